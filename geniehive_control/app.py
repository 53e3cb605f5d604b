"""Builds control, starts it, and stops it in order. Nothing else builds collaborators or reads settings."""

import asyncio
import hashlib
import ipaddress
import logging
import os
import secrets
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geniehive.kit import address, lifecycle, machine, notices, state
from geniehive.kit.clock import SystemClock
from geniehive.kit.errors import UserError
from geniehive.rules import names
from geniehive.rules.model import ClientKey, Scope, Strategy
from geniehive_control.authority import CertificateIssuer, Files, OwnCertificate, open_authority
from geniehive_control.catalogue import CatalogueFile
from geniehive_control.core.defaults import RoutingDefaults, Weights
from geniehive_control.core.events import Now
from geniehive_control.core.registry import Pace, Registry
from geniehive_control.hub import Hub
from geniehive_control.joining import Joining
from geniehive_control.loads import Loads
from geniehive_control.ports import Store, StoreUnavailable
from geniehive_control.prober import Prober
from geniehive_control.questions import Questions
from geniehive_control.rpc.auth import Authenticator, Required, digest
from geniehive_control.rpc.node_service import Intervals
from geniehive_control.rpc.server import Server, check_free
from geniehive_control.rpc.server import Tls as Listeners
from geniehive_control.settings import AuthSettings, ControlSettings, KeySettings, RoutingSettings, TlsSettings
from geniehive_control.store.database import open_database
from geniehive_control.usage import Usage

log = logging.getLogger(__name__)


async def serve(settings: ControlSettings, stop: lifecycle.Stop) -> None:
    """Until it is told to stop. UserError if it can't start."""
    intervals = _intervals(settings)
    configured, required = _keys(settings.auth, settings.state_folder)
    _check_listeners(settings, required)
    routing = routing_defaults(settings.routing)
    database = await open_database(settings.database_url, settings.state_folder)
    try:
        try:
            stored = await database.load()
        except StoreUnavailable as error:
            raise UserError(f"control cannot read what it had stored: {error}") from error
        clock = SystemClock()
        control_id = f"{names.to_id(machine.host_name(), 'control')}-{secrets.token_hex(3)}"
        pace = Pace(
            lease_ttl=settings.lease_ttl,
            restart_grace=settings.restart_grace,
            probe_interval=settings.probe_interval,
        )
        with_tls = settings.tls.listen is not None
        own_id = machine.fingerprint()
        registry = Registry(stored, _now(clock), pace, configured, tls=with_tls, routing=routing, machine_id=own_id)
        hub = Hub(registry, database, clock)
        authenticator = Authenticator(required, registry.keys, clock.wall, registry.trust, registry.cluster_id)
        joining, listeners, own = _tls(settings, hub, database, clock)
        kept = settings.usage
        usage = Usage(hub, database, clock, stored.reported, interval=kept.report_interval, keep_days=kept.keep_days)
        loads = Loads(hub, intervals.load)
        server = Server(hub, authenticator, intervals, control_id, usage, loads, joining=joining)
        catalogue = _catalogue(settings, hub)
        if catalogue is not None:
            await catalogue.start()
        hub.start()
        if catalogue is not None:
            hub.tasks.start(catalogue.run(), "catalogue")
        usage.start()
        loads.start()
        if settings.probe:
            hub.tasks.start(Prober(hub, Questions(stored.cluster_id, own)).run(), "prober")
        where = await server.start(settings.listen, listeners)
        log.info("control %s of cluster %s listens on %s", control_id, stored.cluster_id, where.plain)
        told = {"address": where.plain}
        if where.tls is not None and where.peers is not None:
            log.info("other machines join and ask at %s, and are served at %s", where.tls, where.peers)
            told |= {"tls_address": where.tls, "peers_address": where.peers}
        notices.send("ready", daemon="control", **told)
        lifecycle.settle()
        failed = await _until_stopped(stop, hub)
        log.info("control stops: %s", stop.cause or "a part of it failed")
        await server.stop(settings.stop_grace * 0.6)
        await usage.finish(settings.stop_grace * 0.2)
        await hub.close(settings.stop_grace * 0.2)
        if failed is not None:
            raise failed
    finally:
        await database.close()


def _now(clock: SystemClock) -> Now:
    return Now(clock.now(), clock.wall())


async def _until_stopped(stop: lifecycle.Stop, hub: Hub) -> BaseException | None:
    """The error of a background task, if that came first."""
    told: asyncio.Future[Any] = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((told, hub.tasks.failed), return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
    return hub.tasks.failed.result() if hub.tasks.failed.done() else None


def _check_listeners(settings: ControlSettings, required: Required) -> None:
    """UserError if one of the addresses is not allowed, or not free."""
    host, _ = address.split(settings.listen)
    if not address.is_loopback(host):
        raise UserError(
            f"listen={settings.listen} can be reached from other machines, and is plain text. Leave it on 127.0.0.1, "
            "and set tls.listen, such as tls.listen=0.0.0.0:8804, for the others"
        )
    for who, on in (("people and tools", required.clients), ("nodes and gateways", required.nodes)):
        if not on:
            log.warning("authentication of %s is off: any program on this machine can do what they can", who)
    check_free(settings.listen)
    tls = settings.tls
    if tls.listen is None:
        return
    if not (required.clients and required.nodes):
        raise UserError(
            f"authentication is off (auth in the settings), and tls.listen={tls.listen} is for other machines. "
            "Leave tls.listen out, or give keys"
        )
    if (tls.ca_cert is None) != (tls.ca_key is None):
        raise UserError("tls.ca_cert and tls.ca_key belong together: give both, or neither")
    for entry in tls.advertise or ():
        _with_port(entry, 1)
    host, port = address.split(tls.listen)
    if port and port == tls.peers_port:
        raise UserError(f"tls.listen and tls.peers_port are both {port}: choose another tls.peers_port")
    check_free(tls.listen, "tls.listen=HOST:PORT")
    check_free(address.join(host, tls.peers_port), "tls.peers_port=PORT")


def _tls(
    settings: ControlSettings, hub: Hub, store: Store, clock: SystemClock
) -> tuple[Joining | None, Listeners | None, ssl.SSLContext | None]:
    """What control needs for other machines, its certificate for their relays. UserError if its CA can't be used."""
    tls = settings.tls
    if tls.listen is None:
        return None, None, None
    own = None if tls.ca_cert is None or tls.ca_key is None else Files(Path(tls.ca_cert), Path(tls.ca_key))
    authority = open_authority(settings.state_folder, own, hub.registry.cluster_id, clock.wall())
    seconds = tls.certificate_days * 86400
    certificate = OwnCertificate(authority, clock, seconds)
    hub.tasks.start(certificate.keep(), "own certificate")
    joining = Joining(hub, store, CertificateIssuer(authority), seconds, lambda port: advertised(tls, port))
    listeners = Listeners(tls.listen, tls.peers_port, lambda: certificate.pair, authority.bundle)
    return joining, listeners, certificate.client_context


def advertised(tls: TlsSettings, port: int) -> list[str]:
    """Where other machines reach control, which listens on this port; the likeliest first."""
    if tls.advertise is not None:
        return [_with_port(entry, port) for entry in tls.advertise]
    host, _ = address.split(tls.listen or "")
    return [address.join(found, port) for found in (machine.addresses() if _is_any(host) else [host])]


def _with_port(entry: str, port: int) -> str:
    """UserError if this is no address, with or without a port of its own."""
    whole = entry.startswith("[") and entry.endswith("]")
    host, found = address.split(f"{entry}:{port}" if whole else entry, port)
    return address.join(host, found)


def _is_any(host: str) -> bool:
    """Whether this stands for all addresses of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _catalogue(settings: ControlSettings, hub: Hub) -> CatalogueFile | None:
    """The file of roles and aliases."""
    if settings.catalogue is None:
        return None
    file = Path(settings.catalogue).expanduser().absolute()
    digest = hashlib.blake2b(str(file).encode(), digest_size=4).hexdigest()
    return CatalogueFile(hub, file, settings.state_folder / f"catalogue-{digest}.yaml")


def routing_defaults(routing: RoutingSettings) -> RoutingDefaults:
    """UserError if the weights of a kind do not add up to 1."""
    weights = Weights(**{name: getattr(routing.weights, name) for name in Weights.__struct_fields__})
    for kind in ("role", "service"):
        names_of_kind = [name for name in Weights.__struct_fields__ if name.startswith(f"{kind}_")]
        total = sum(getattr(weights, name) for name in names_of_kind)
        if abs(total - 1) > 1e-6:
            raise UserError(f"routing.weights: {', '.join(names_of_kind)} must add up to 1, and are {total:g} together")
    return RoutingDefaults(
        strategy=Strategy[routing.default_strategy.upper()],
        allow_hosted=routing.allow_hosted,
        found_names=routing.found_names,
        thinking_off=routing.disable_thinking,
        weights=weights,
    )


def _intervals(settings: ControlSettings) -> Intervals:
    heartbeat = settings.heartbeat_interval or settings.lease_ttl / 3
    if heartbeat >= settings.lease_ttl:
        raise UserError(
            f"heartbeat_interval ({heartbeat:g}) must be less than lease_ttl ({settings.lease_ttl:g}): "
            "every host would be offline between two signs of life"
        )
    return Intervals(lease_ttl=settings.lease_ttl, heartbeat=heartbeat, load=settings.load_interval)


def _keys(auth: AuthSettings, folder: Path) -> tuple[list[ClientKey], Required]:
    """The keys of the configuration, and what callers must prove. UserError says what is wrong with them."""
    if auth.client_keys is None:
        configured = [
            _client_key("local-admin", state.local_secret(folder / "admin.key", "gha"), ("admin",)),
            _client_key("local-client", state.local_secret(folder / "client.key", "ghc"), ("infer", "read")),
        ]
    else:
        configured = [
            _client_key(key.name, _secret(key, f"auth.client_keys[{number}]"), key.scopes)
            for number, key in enumerate(auth.client_keys)
        ]
    for values, what in (([key.key_id for key in configured], "name"), ([key.sha256 for key in configured], "key")):
        if len(set(values)) < len(values):
            raise UserError(f"auth.client_keys: two entries have the same {what}")
    if auth.node_keys is None:
        node_keys = [state.local_secret(folder / "node.key", "ghn")]
    else:
        node_keys = [_secret(key, f"auth.node_keys[{number}]") for number, key in enumerate(auth.node_keys)]
    required = Required(
        clients=auth.require and auth.client_keys != [],
        nodes=auth.require and auth.node_keys != [],
        node_keys=tuple(map(digest, node_keys)),
    )
    return configured, required


def _client_key(name: str, key: str, scopes: Sequence[str]) -> ClientKey:
    if not names.is_id(name):
        raise UserError(f"auth.client_keys: {name!r} is no name; use a-z, 0-9, '.', '_' and '-', at most 63 of them")
    words = {scope.word: scope for scope in Scope}
    chosen = tuple(sorted({words[scope] for scope in scopes}))
    return ClientKey(key_id=name, sha256=digest(key), display_name=name, scopes=chosen, configured=True)


def _secret(setting: KeySettings, where: str) -> str:
    given = [name for name in ("key", "key_file", "key_env") if getattr(setting, name) is not None]
    if len(given) != 1:
        raise UserError(f"{where}: give exactly one of key, key_file, key_env")
    if setting.key_file is not None:
        return state.read_secret(Path(setting.key_file))
    if setting.key_env is not None:
        found = os.environ.get(setting.key_env, "").strip()
        if not found:
            raise UserError(f"{where}: the environment has no variable {setting.key_env}")
        return found
    if not setting.key or setting.key.split() != [setting.key]:
        raise UserError(f"{where}: a key must not be empty or have white space in it")
    return setting.key
