"""What of hosts and their services is in the table, and what is asked of them.

By their nodes' word, what became of connecting to them, control's probes, and gateways' outcomes.
"""

from collections.abc import Callable, Iterable, Mapping

from geniehive.rules.model import Service
from geniehive_control.core import events as e
from geniehive_control.core import reach
from geniehive_control.core.effects import Changed, Effect, Note
from geniehive_control.core.events import Now
from geniehive_control.core.health import HealthBook
from geniehive_control.core.hosts import HostState
from geniehive_control.core.reach import Reach
from geniehive_control.core.table import Table
from geniehive_control.core.verdict import Life


class Listing:
    """hosts: also those that have not registered. Resources that become other than they were are added to `changed`.

    machine_id: of control's own machine; None: whoever came without a certificate counts as of it.
    """

    def __init__(
        self,
        hosts: Mapping[str, HostState],
        table: Table,
        health: HealthBook,
        changed: Callable[[set[str]], None],
        *,
        machine_id: str | None,
    ) -> None:
        self.reach = Reach()
        self.health = health
        self._hosts = hosts
        self._table = table
        self._changed = changed
        self._machine_id = machine_id

    def restore(self, host: HostState) -> None:
        """As it was stored."""
        assert host.info is not None
        self._table.put_host(host.info)
        for service in host.services.values():
            self._table.put_service(service)
            self._table.put_upstream(host.upstream(service))

    def offered(self, host: HostState, before: Mapping[str, Service], now: Now) -> None:
        """It offers what it says now, in place of the services that it had before."""
        assert host.info is not None
        for name in before.keys() - host.services.keys():
            self._changed(self._table.drop_service(name))
        self._changed(self._table.put_relay(host.host_id, host.relay))
        self._table.put_host(host.info)
        for service in host.services.values():
            self._changed(self._table.put_service(service))
        self._seek(host, reach.places(host.services.values(), host.relay), now)
        here = not host.certified and self._machine_id in (None, host.machine_id)
        self.health.tend(before, host.services, host.relay, here, now)
        self.judge(host)

    def rest(self, host: HostState, now: Now) -> None:
        """It is away, or gone: nothing of it is tried any more."""
        self._seek(host, frozenset(), now)

    def drop(self, host: HostState) -> None:
        """It is forgotten."""
        self.health.rest(host.services)
        for name in host.services:
            self._changed(self._table.drop_service(name))
        self._changed(self._table.put_relay(host.host_id, None))
        self._table.drop_host(host.host_id)

    def judge(self, host: HostState) -> None:
        """Brings what is said of its services up to date."""
        for service in host.services.values():
            self._changed(self._table.put_upstream(host.upstream(service)))

    def probed(self, event: e.Probed, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for host_id in self.reach.tell(event.place, event.failure, now.mono):
            host = self._hosts[host_id]
            host.broken = self.reach.broken(host_id)
            self.judge(host)
            where = f"{event.place.host} port {event.place.port}, an address of host {host_id!r},"
            text = "takes connections again" if event.failure is None else f"can't be connected to: {event.failure}"
            effects.append(Note(text=f"{where} {text}", grave=event.failure is not None))
            effects.append(Changed(services=frozenset(host.services)))
        return effects

    def checked(self, event: e.Checked, now: Now) -> list[Effect]:
        changed = self.health.checked(event.check, event.failure, now)
        return self._ailing({event.check.service} if changed else ())

    def reported(self, event: e.OutcomesReported, now: Now) -> list[Effect]:
        return self._ailing(self.health.outcomes(event.rows, now))

    @property
    def due(self) -> float | None:
        """When `tick` is to be called, on the clock that only grows; None: never."""
        return self.health.due

    def tick(self, now: Now) -> list[Effect]:
        return self._ailing(self.health.tick(now))

    def _ailing(self, services: Iterable[str]) -> list[Effect]:
        """Something else is known of their health."""
        effects: list[Effect] = []
        for name in services:
            host = self._hosts.get(name.partition("/")[0])
            if host is None or (service := host.services.get(name)) is None:
                continue
            upstream = host.upstream(service)
            if not (changed := self._table.put_upstream(upstream)):
                continue
            self._changed(changed)
            effects.append(Changed(services=frozenset({name})))
            text = "takes requests" if upstream.routable else "takes no requests"
            text += f": {upstream.condition.detail}" if upstream.condition.detail else " again"
            effects.append(Note(text=f"service {name!r} {text}", grave=not upstream.routable))
        return effects

    def _seek(self, host: HostState, wanted: frozenset[reach.Place], now: Now) -> None:
        self.reach.want(host.host_id, wanted, now.mono)
        host.broken = self.reach.broken(host.host_id)
        if host.life is not Life.ONLINE:
            self.health.rest(host.services)
