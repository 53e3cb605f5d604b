"""What control itself holds of a service's health, on top of its node's word: its own probes, and gateways' outcomes.

A service takes requests if all three sides let it. The node's side is in the service's own condition (`verdict`); the
two others are joined here. Each has its hysteresis: `probes` by counting, `failing` by waiting.
"""

from collections.abc import Iterable, Mapping

import msgspec

from geniehive.rules.model import Condition, Health, Reason, Relay, Service, Way
from geniehive_control.core.events import Now
from geniehive_control.core.failing import Failing, Row
from geniehive_control.core.probes import Check, Failure, Probes


class Overlay(msgspec.Struct, frozen=True):
    """ways: those that are left. condition: instead of the service's own; None: that holds."""

    ways: tuple[Way, ...]
    condition: Condition | None = None


class HealthBook:
    """Of all services. interval: of the probes, in seconds. tls: whether control has a certificate."""

    def __init__(self, interval: float, *, tls: bool = False) -> None:
        self.probes = Probes(interval, tls=tls)
        self._failing = Failing(self.probes.answering)
        # What was said of a service, and since when, for people.
        self._since: dict[str, tuple[str, float]] = {}
        self._wall = 0.0

    @property
    def due(self) -> float | None:
        """When `tick` is to be called; None: never."""
        return self._failing.due

    def tend(
        self, before: Iterable[str], services: Mapping[str, Service], relay: Relay | None, here: bool, now: Now
    ) -> None:
        """A host offers these services in place of those that it had. here: it is control's own machine."""
        self._wall = now.wall
        for name in before:
            if name not in services:
                self._drop(name)
        for service in services.values():
            self.probes.want(service, relay, here, now.mono)

    def rest(self, services: Iterable[str]) -> None:
        """Their host is away, or gone: what is known of them is nothing to go by when they are back."""
        for name in services:
            self._drop(name)

    def _drop(self, service: str) -> None:
        self.probes.drop(service)
        self._failing.drop(service)
        self._since.pop(service, None)

    def checked(self, check: Check, failure: Failure | None, now: Now) -> bool:
        """What became of a question. Whether something else is known of the service now."""
        self._wall = now.wall
        changed = self.probes.tell(check, failure, now.mono)
        if changed and failure is None and self.probes.answering(check.service):
            self._failing.recovered(check.service, now.mono)
        return changed

    def outcomes(self, rows: Iterable[Row], now: Now) -> set[str]:
        """What gateways report. Gives the services of which something else is known now."""
        self._wall = now.wall
        return self._failing.take(rows, now.mono)

    def tick(self, now: Now) -> set[str]:
        """`due` has come. Gives the services of which something else is known now."""
        self._wall = now.wall
        return self._failing.tick(now.mono)

    def judge(self, service: Service, ways: tuple[Way, ...]) -> Overlay:
        """ways: those of the service that are not known to be broken by anything else."""
        name = service.service
        finding = self.probes.finding(service, ways)
        health, reason, words = Health.UNHEALTHY, Reason.PROBE, ""
        if finding.words:
            words = f"control's probe failed: {finding.words}"
        elif out := self._failing.out(name):
            reason, words = Reason.OUTCOMES, f"gateways report: {out}"
        elif trial := self._failing.trial(name):
            health, reason = Health.DEGRADED, Reason.OUTCOMES
            words = f"on trial, one request at a time. Gateways reported: {trial}"
        if not words:
            self._since.pop(name, None)
            return Overlay(finding.ways)
        told, since = self._since.get(name, ("", 0.0))
        if told != words:
            since = self._wall
            self._since[name] = words, since
        own = service.condition
        return Overlay(
            finding.ways,
            msgspec.structs.replace(own, health=health, reason=reason, detail=words, since=since),
        )
