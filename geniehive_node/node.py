"""Connects what the engines tell, what is offered, how it can be reached, and the session."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from geniehive.kit import address, lifecycle, notices, state
from geniehive.kit.clock import Clock
from geniehive.kit.http1 import Client
from geniehive.kit.tasks import Tasks
from geniehive.membership import Cluster, Credential
from geniehive.rules.model import Host, Relay
from geniehive.rules.names import split_service
from geniehive_node import system
from geniehive_node.core import inventory as core
from geniehive_node.core.ways import Reach
from geniehive_node.engines import outside
from geniehive_node.engines.ask import Target
from geniehive_node.engines.watcher import Watcher
from geniehive_node.outlook import Outlook
from geniehive_node.relay import RelayServer
from geniehive_node.session import Hooks, Identity, Link, Load
from geniehive_node.sources import Place

log = logging.getLogger(__name__)

WILDCARDS = frozenset({"0.0.0.0", "::"})

_NO_CERTIFICATE = (
    "the relay has no certificate yet: control gives it one over the session, where control has TLS (its setting "
    "tls.listen)"
)
_NO_ADDRESS = (
    "this machine has no address at which others could reach its relay: connect it to a network, or give one by the "
    "setting relay.advertise"
)


class Plan(NamedTuple):
    """How a node is to run, by its settings.

    control: "HOST:PORT". far: it is reached by this machine's certificate. joined: what `geniehive join` kept; None if
    this is control's own machine.
    listen: of the relay. relay_token: without TLS, on loopback; None: by TLS.
    advertise: the host under which others find the relay; None: this machine's address. advertise_port: None: its own.
    near: whether a gateway may be on this machine.
    """

    folder: Path
    control: str
    far: bool
    joined: Cluster | None
    listen: str
    relay_token: str | None
    advertise: str | None
    advertise_port: int | None
    near: bool
    poll_interval: float
    first_look_timeout: float

    def __repr__(self) -> str:
        return f"Plan(control={self.control!r}, listen={self.listen!r})"  # not the token


class Node:
    def __init__(
        self,
        plan: Plan,
        identity: Identity,
        host: Host,
        found: Sequence[Place],
        relay: RelayServer,
        credential: Credential,
        clock: Clock,
    ) -> None:
        self._plan = plan
        self._host_id = identity.host_id
        self._places = found
        self._targets: dict[str, Target] = {p.source.key: p.target for p in found}
        self._relay = relay
        self._credential = credential
        self._clock = clock
        self._catalog = core.Catalog(host, [p.source for p in found], self._placed(None))
        self._sampler: system.Sampler | None = None
        self._outlook: Outlook | None = None
        if plan.relay_token is None or plan.far:
            on, _ = address.split(plan.listen)
            self._outlook = Outlook(address.split(plan.control)[0], ":" in on if on in WILDCARDS else None)
        self._outsides: list[outside.Outside] = []
        self._work = Tasks()
        self._relay_asked = bool(relay.base_url)
        self._stopping = False
        hooks = Hooks(self._met, self._registered, lambda: self._handle(core.TooMuch()), self._load)
        # Without use for control, and with the relay on loopback, a certificate would only be one more to lose.
        certify = plan.far or plan.relay_token is None
        self._link = Link(plan.control, identity, hooks, clock, credential, certify)

    async def run(self, client: Client, stop: lifecycle.Stop) -> None:
        """Until told to stop, then until control knows."""
        self._sampler = await asyncio.to_thread(system.Sampler)
        work, waiting = self._work, Tasks()
        self._credential.listeners.append(self._certified)
        try:
            if self._outlook is not None:
                await self._outlook.look()
                work.start(self._outlook.run(self._moved), "outlook")
            watchers = self._watch(client)
            self._place()
            work.start(self._first_looks(watchers), "first looks")
            link = waiting.start(self._link.run(), "link")
            asked = waiting.start(stop.wait(), "stop")
            await asyncio.wait([link, asked, work.failed], return_when=asyncio.FIRST_COMPLETED)
            self._stopping = True
            await work.close()
            if stop.asked and not link.done():
                log.info("stopping: %s", stop.cause)
                self._handle(core.Stopping())
                self._link.stop()
                await asyncio.wait([link])
            if link.done():
                link.result()
            if work.failed.done():
                raise work.failed.result()
        finally:
            self._credential.listeners.remove(self._certified)
            await work.close()
            await waiting.close()

    def _watch(self, client: Client) -> list[Watcher]:
        watchers = []
        for place in self._places:
            source = place.source
            watcher = Watcher(source, place.target, client, self._plan.poll_interval, self._handle)
            watchers.append(watcher)
            self._work.start(watcher.run(), f"watch {source.key}")
            if self._plan.relay_token is None and outside.matters(source):
                look = outside.Outside(source, place.target, watcher, client, self._handle)
                self._outsides.append(look)
                self._work.start(look.run(), f"look at {source.key} from outside")
        return watchers

    async def _first_looks(self, watchers: Iterable[Watcher]) -> None:
        try:
            async with asyncio.timeout(self._plan.first_look_timeout):
                for watcher in watchers:
                    await watcher.looked.wait()
        except TimeoutError:
            log.warning("some engines take their time to answer; the others are offered meanwhile")
        self._handle(core.FirstLooksDone())

    def _handle(self, event: core.Event) -> None:
        for effect in self._catalog.handle(event, self._clock.now()):
            match effect:
                case core.Found():
                    notices.send(
                        "first_look",
                        chat_models=effect.chat_models,
                        engines=list(effect.engines),
                        troubles=effect.troubles,
                    )
                case core.Offer():
                    runtimes = {split_service(s.service)[1]: s.runtime for s in effect.inventory.services}
                    routes = {
                        service: replace(
                            self._targets[key],
                            paths=effect.paths.get(service, {}),
                            runtime=runtimes.get(service, ""),
                        )
                        for service, key in effect.sources.items()
                    }
                    self._relay.serve(effect.inventory.host.host_id, routes)
                    self._link.offer(effect.inventory)

    # Where others find this machine, and by what they know it.

    def _moved(self) -> None:
        self._place()
        self._link.moved()

    def _certified(self) -> None:
        """The certificate, or whom to believe, has changed."""
        if self._plan.relay_token is None and self._named() and not self._relay_asked and not self._stopping:
            self._relay_asked = True
            self._work.start(self._open_relay(), "open the relay")
        self._place()

    async def _open_relay(self) -> None:
        await self._relay.start(self._plan.listen)
        log.info("the relay listens on %s", self._relay.base_url)
        self._place()

    def _place(self) -> None:
        at = self._outlook.address if self._outlook is not None else None
        for look in self._outsides:
            look.at(at if at is not None and not address.is_loopback(at) else None)
        self._handle(self._placed(self._plan.advertise or at))

    def _placed(self, at: str | None) -> core.Placed:
        plan, relay = self._plan, self._relay
        if plan.relay_token is not None:
            offered = Relay(host_id=self._host_id, base_urls=(relay.base_url,), token=plan.relay_token)
            return core.Placed(reach=Reach(near=plan.near), relay=offered)
        if at is None:
            return core.Placed(reach=Reach(no_relay=_NO_ADDRESS, near=plan.near))
        if not relay.base_url or not self._named():
            return core.Placed(reach=Reach(no_relay=_NO_CERTIFICATE, near=plan.near, far=True))
        port = plan.advertise_port or address.split(relay.base_url.removeprefix("https://"))[1]
        url = f"https://{address.join(at, port)}"
        return core.Placed(reach=Reach(near=plan.near, far=True), relay=Relay(host_id=self._host_id, base_urls=(url,)))

    def _named(self) -> bool:
        """Whether the certificate is for the name that gateways expect at this host's relay."""
        return self._credential.peer is not None and self._credential.peer.peer_id == self._host_id

    # The session's wishes.

    async def _met(self, cluster_id: str, host_id: str, renamed: bool) -> None:
        if renamed:
            log.warning("control knows this machine as %s, not as %s; keeping that name", host_id, self._host_id)
            self._host_id = host_id
            try:
                await asyncio.to_thread(self._keep, host_id)
            except OSError as error:
                log.error("cannot keep the name below %s: %s", self._plan.folder, error.strerror)
        self._handle(core.Joined(cluster_id=cluster_id, host_id=host_id))
        if renamed:
            self._place()

    def _keep(self, host_id: str) -> None:
        state.write_private(self._plan.folder / "machine-id", host_id.encode("ascii") + b"\n")
        if self._plan.joined is not None:
            self._plan.joined._replace(host_id=host_id).save(self._plan.folder)

    def _registered(self, host_id: str) -> None:
        log.info("registered as %s", host_id)
        notices.send("registered", host_id=host_id)

    async def _load(self) -> Load:
        assert self._sampler is not None
        sample = await asyncio.to_thread(self._sampler.sample, self._host_id)
        return sample, self._catalog.load(self._relay.in_flight(), self._clock.now())
