"""Builds a node from its settings and runs it."""

import asyncio
import logging
import uuid
from collections.abc import Iterable, Sequence

from geniehive import channels
from geniehive.kit import lifecycle, machine, notices, state
from geniehive.kit.clock import Clock, SystemClock
from geniehive.kit.errors import UserError
from geniehive.kit.http1 import Client
from geniehive.kit.tasks import Tasks
from geniehive.rules import names
from geniehive.rules.model import Host, Relay
from geniehive_node import system
from geniehive_node.core import inventory as core
from geniehive_node.engines.ask import Target
from geniehive_node.engines.watcher import Watcher
from geniehive_node.relay import RelayServer
from geniehive_node.session import Hooks, Identity, Link, Load
from geniehive_node.settings import NodeSettings
from geniehive_node.sources import Place, places, read_key

log = logging.getLogger(__name__)

_ALLOWED = "up to 63 of a-z, 0-9, dot, dash and underscore are allowed"


async def serve(settings: NodeSettings, stop: lifecycle.Stop) -> None:
    """Runs a node until it is told to stop. UserError if it can't start, or control refused it for good."""
    _check(settings)
    node_key = _node_key(settings)
    found = places(settings.engines, settings.providers, settings.discover_ports if settings.discover else ())
    host = await _host(settings)
    clock = SystemClock()
    async with Client() as client:
        token = state.new_secret("ghr")
        relay = RelayServer(client, token, settings.relay.connect_timeout)
        await relay.start(settings.relay.listen)
        notices.send("ready", daemon="node", relay_url=relay.base_url)
        log.info("node %s: relay on %s, control at %s", host.host_id, relay.base_url, settings.control)
        identity = Identity(host.host_id, machine.fingerprint(), uuid.uuid4().hex, node_key)
        offered = Relay(host_id=host.host_id, base_urls=(relay.base_url,), token=token)
        node = Node(settings, identity, core.Catalog(host, [p.source for p in found], offered), found, relay, clock)
        try:
            await node.run(client, stop)
        finally:
            await relay.stop(settings.stop_grace)


class Node:
    """Connects what the engines tell, what is offered, and the session."""

    def __init__(
        self,
        settings: NodeSettings,
        identity: Identity,
        catalog: core.Catalog,
        found: Sequence[Place],
        relay: RelayServer,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._host_id = identity.host_id
        self._catalog = catalog
        self._places = found
        self._targets: dict[str, Target] = {p.source.key: p.target for p in found}
        self._relay = relay
        self._clock = clock
        self._sampler: system.Sampler | None = None
        hooks = Hooks(self._met, self._registered, lambda: self._handle(core.TooMuch()), self._load)
        self._link = Link(settings.control, identity, hooks, clock)

    async def run(self, client: Client, stop: lifecycle.Stop) -> None:
        """Until told to stop, then until control knows."""
        self._sampler = await asyncio.to_thread(system.Sampler)
        watching = Tasks()
        waiting = Tasks()
        try:
            interval = self._settings.poll_interval
            watchers = [Watcher(p.source, p.target, client, interval, self._handle) for p in self._places]
            for watcher, place in zip(watchers, self._places, strict=True):
                watching.start(watcher.run(), f"watch {place.source.key}")
            watching.start(self._first_looks(watchers), "first looks")
            link = waiting.start(self._link.run(), "link")
            asked = waiting.start(stop.wait(), "stop")
            await asyncio.wait([link, asked, watching.failed], return_when=asyncio.FIRST_COMPLETED)
            await watching.close()
            if stop.asked and not link.done():
                log.info("stopping: %s", stop.cause)
                self._handle(core.Stopping())
                self._link.stop()
                await asyncio.wait([link])
            if link.done():
                link.result()
            if watching.failed.done():
                raise watching.failed.result()
        finally:
            await watching.close()
            await waiting.close()

    async def _first_looks(self, watchers: Iterable[Watcher]) -> None:
        try:
            async with asyncio.timeout(self._settings.first_look_timeout):
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
                    routes = {service: self._targets[key] for service, key in effect.sources.items()}
                    self._relay.serve(effect.inventory.host.host_id, routes)
                    self._link.offer(effect.inventory)

    async def _met(self, cluster_id: str, host_id: str, renamed: bool) -> None:
        if renamed:
            log.warning("control knows this machine as %s, not as %s; keeping that name", host_id, self._host_id)
            self._host_id = host_id
            path = self._settings.state_folder / "machine-id"
            try:
                await asyncio.to_thread(state.write_private, path, host_id.encode("ascii") + b"\n")
            except OSError as error:
                log.error("cannot write %s, so the name is lost at the next start: %s", path, error.strerror)
        self._handle(core.Joined(cluster_id=cluster_id, host_id=host_id))

    def _registered(self, host_id: str) -> None:
        log.info("registered as %s", host_id)
        notices.send("registered", host_id=host_id)

    async def _load(self) -> Load:
        assert self._sampler is not None
        sample = await asyncio.to_thread(self._sampler.sample, self._host_id)
        return sample, self._catalog.load(self._relay.in_flight())


async def _host(settings: NodeSettings) -> Host:
    host_id = settings.host_id
    if host_id is None:
        host_id = state.machine_id(settings.state_folder, names.to_id(machine.host_name()))
        if not names.is_id(host_id):
            path = settings.state_folder / "machine-id"
            raise UserError(
                f"{path} holds {host_id[:80]!r}, which is no host id: {_ALLOWED}. Correct or delete the file"
            )
    return Host(
        host_id=host_id,
        display_name=settings.display_name or machine.host_name(),
        labels=settings.labels,
        trust_tier=settings.trust_tier or "",
        device_class=settings.device_class or "",
        workload_classes=tuple(settings.workload_classes),
        machine=await asyncio.to_thread(system.machine),
    )


def _check(settings: NodeSettings) -> None:
    if settings.host_id is not None and not names.is_id(settings.host_id):
        raise UserError(f"host_id {settings.host_id!r}: {_ALLOWED}")
    for name, seconds in (
        ("poll_interval", settings.poll_interval),
        ("first_look_timeout", settings.first_look_timeout),
        ("relay.connect_timeout", settings.relay.connect_timeout),
    ):
        if not seconds > 0:
            raise UserError(f"{name} must be more than 0 seconds")
    if not settings.stop_grace >= 0:
        raise UserError("stop_grace must not be less than 0 seconds")
    channels.check_plain(settings.control)
    for port in settings.discover_ports:
        if not 0 < port < 65536:
            raise UserError(f"discover_ports: {port} is no port")


def _node_key(settings: NodeSettings) -> str:
    given = settings.node_key
    if given is None:
        return state.local_secret(settings.state_folder / "node.key", "ghn")
    return read_key(given.file, given.env, "node_key")
