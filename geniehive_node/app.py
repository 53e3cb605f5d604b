"""Builds a node from its settings and runs it."""

import asyncio
import ipaddress
import logging
import uuid
from datetime import UTC, datetime

from geniehive import channels, membership
from geniehive.kit import address, lifecycle, machine, notices, state
from geniehive.kit.clock import SystemClock
from geniehive.kit.errors import EXIT_REFUSED, UserError
from geniehive.kit.http1 import Client
from geniehive.membership import Cluster, Credential
from geniehive.rules import names
from geniehive.rules.identity import PeerKind
from geniehive.rules.model import Host
from geniehive_node import system
from geniehive_node.core.looks import Choice
from geniehive_node.node import WILDCARDS, Node, Plan
from geniehive_node.relay import RelayServer
from geniehive_node.session import Identity
from geniehive_node.settings import NodeSettings
from geniehive_node.sources import places, read_key

log = logging.getLogger(__name__)

_ALLOWED = "up to 63 of a-z, 0-9, dot, dash and underscore are allowed"
_CONTROL = "127.0.0.1:8801"
_RELAY_PORT = 8803


async def serve(settings: NodeSettings, stop: lifecycle.Stop) -> None:
    """Runs a node until it is told to stop. UserError if it can't start, or control refused it for good."""
    _check(settings)
    engines = places(
        settings.engines,
        settings.providers,
        settings.discover_ports if settings.discover else (),
        Choice(settings.way),
    )
    clock = SystemClock()
    plan = await _plan(settings)
    credential = Credential(plan.folder, PeerKind.NODE)
    if plan.far:
        _check_certificate(plan, credential, clock.wall())
    host = await _host(settings, plan, credential)
    node_key = None if plan.far else _node_key(settings)
    identity = Identity(host.host_id, machine.fingerprint(), uuid.uuid4().hex, node_key)
    async with Client() as client:
        by_tls = credential if plan.relay_token is None else None
        relay = RelayServer(client, settings.relay.connect_timeout, token=plan.relay_token, credential=by_tls)
        try:
            # Without a certificate in this name the relay waits until control gives one.
            if by_tls is None or (credential.peer is not None and credential.peer.peer_id == host.host_id):
                await relay.start(plan.listen)
            notices.send("ready", daemon="node", relay_url=relay.base_url)
            log.info("node %s: relay on %s, control at %s", host.host_id, relay.base_url or plan.listen, plan.control)
            await Node(plan, identity, host, engines, relay, credential, clock).run(client, stop)
        finally:
            await relay.stop(settings.stop_grace)


async def _plan(settings: NodeSettings) -> Plan:
    folder = settings.state_folder
    joined = Cluster.load(folder)
    control, far = settings.control, False
    if control is None:
        control, far = (joined.peers, True) if joined is not None else (_CONTROL, False)
    elif joined is not None and not address.is_loopback(address.split(control)[0]):
        far = True
    else:
        channels.check_plain(control)
    listen = settings.relay.listen or await _listen(control, far)
    host, _ = address.split(listen)
    loopback = address.is_loopback(host)
    advertise, port = None, None
    if settings.relay.advertise is not None:
        advertise, port = _advertised(settings.relay.advertise)
    elif host not in WILDCARDS:
        advertise = host
    return Plan(
        folder=folder,
        control=control,
        far=far,
        joined=joined if far else None,
        listen=listen,
        relay_token=state.new_secret("ghr") if loopback else None,
        advertise=advertise,
        advertise_port=port or None,
        near=not far or (folder / membership.FOLDER / f"{PeerKind.GATEWAY.value}.pem").exists(),
        poll_interval=settings.poll_interval,
        first_look_timeout=settings.first_look_timeout,
    )


def _advertised(given: str) -> tuple[str, int]:
    """ "HOST" or "HOST:PORT"; port 0: not said."""
    try:
        return str(ipaddress.ip_address(given.strip("[]"))), 0
    except ValueError:
        pass
    try:
        return address.split(given, 0)
    except UserError as error:
        raise UserError(f"relay.advertise: {error}") from error


async def _listen(control: str, far: bool) -> str:
    if not far:
        return address.join("127.0.0.1", _RELAY_PORT)
    towards, _ = address.split(control)
    local = await asyncio.to_thread(address.local_towards, towards) or towards
    return address.join("::" if ":" in local else "0.0.0.0", _RELAY_PORT)


def _check_certificate(plan: Plan, credential: Credential, wall: float) -> None:
    """Of a machine that joined."""
    assert plan.joined is not None
    again = f"Join again: geniehive join {plan.joined.control} --token TOKEN"
    if credential.peer is None:
        raise UserError(
            f"this machine joined the cluster at {plan.joined.control}, but {credential.path} has no certificate of "
            f"that cluster any more. {again}",
            EXIT_REFUSED,
        )
    assert credential.expires is not None
    # Not the end: it may be this clock that is wrong. Control has the last word.
    if wall >= credential.expires:
        day = datetime.fromtimestamp(credential.expires, UTC).strftime("%Y-%m-%d %H:%M UTC")
        log.warning("by this machine's clock its certificate expired on %s. If the clock is right: %s", day, again)


async def _host(settings: NodeSettings, plan: Plan, credential: Credential) -> Host:
    host_id = settings.host_id
    if plan.far:
        assert credential.peer is not None
        if host_id is not None and host_id != credential.peer.peer_id:
            raise UserError(
                f"host_id {host_id!r}: this machine joined its cluster as {credential.peer.peer_id!r}, and its "
                f"certificate says so. Leave that setting out, or join under the other name: geniehive join --name"
            )
        host_id = credential.peer.peer_id
    if host_id is None:
        host_id = state.machine_id(plan.folder, names.to_id(machine.host_name()))
        if not names.is_id(host_id):
            path = plan.folder / "machine-id"
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
    for port in settings.discover_ports:
        if not 0 < port < 65536:
            raise UserError(f"discover_ports: {port} is no port")


def _node_key(settings: NodeSettings) -> str:
    given = settings.node_key
    if given is None:
        return state.local_secret(settings.state_folder / "node.key", "ghn")
    return read_key(given.file, given.env, "node_key")
