"""Builds control, starts it, and stops it in order. Nothing else builds collaborators or reads settings."""

import asyncio
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geniehive.kit import address, lifecycle, machine, notices, state
from geniehive.kit.clock import SystemClock
from geniehive.kit.errors import UserError
from geniehive.rules import names
from geniehive.rules.model import ClientKey, Scope
from geniehive_control.core.events import Now
from geniehive_control.core.registry import Pace, Registry
from geniehive_control.hub import Hub
from geniehive_control.ports import StoreUnavailable
from geniehive_control.rpc.auth import Authenticator, Required, digest
from geniehive_control.rpc.node_service import Intervals
from geniehive_control.rpc.server import Server, check_free
from geniehive_control.settings import AuthSettings, ControlSettings, KeySettings
from geniehive_control.store.database import open_database

log = logging.getLogger(__name__)


async def serve(settings: ControlSettings, stop: lifecycle.Stop) -> None:
    """Until it is told to stop. UserError if it can't start."""
    intervals = _intervals(settings)
    configured, required = _keys(settings.auth, settings.listen, settings.state_folder)
    check_free(settings.listen)
    database = await open_database(settings.database_url, settings.state_folder)
    try:
        try:
            stored = await database.load()
        except StoreUnavailable as error:
            raise UserError(f"control cannot read what it had stored: {error}") from error
        clock = SystemClock()
        control_id = f"{names.to_id(machine.host_name(), 'control')}-{secrets.token_hex(3)}"
        pace = Pace(lease_ttl=settings.lease_ttl, restart_grace=settings.restart_grace)
        hub = Hub(Registry(stored, _now(clock), pace, configured), database, clock)
        server = Server(hub, Authenticator(required, hub.registry.keys, clock.wall), intervals, control_id)
        hub.start()
        where = await server.start(settings.listen)
        log.info("control %s of cluster %s listens on %s", control_id, stored.cluster_id, where)
        notices.send("ready", daemon="control", address=where)
        lifecycle.settle()
        failed = await _until_stopped(stop, hub)
        log.info("control stops: %s", stop.cause or "a part of it failed")
        await server.stop(settings.stop_grace * 0.6)
        await hub.close(settings.stop_grace * 0.4)
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


def _intervals(settings: ControlSettings) -> Intervals:
    heartbeat = settings.heartbeat_interval or settings.lease_ttl / 3
    if heartbeat >= settings.lease_ttl:
        raise UserError(
            f"heartbeat_interval ({heartbeat:g}) must be less than lease_ttl ({settings.lease_ttl:g}): "
            "every host would be offline between two signs of life"
        )
    return Intervals(lease_ttl=settings.lease_ttl, heartbeat=heartbeat, load=settings.load_interval)


def _keys(auth: AuthSettings, listen: str, folder: Path) -> tuple[list[ClientKey], Required]:
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
    host, _ = address.split(listen)
    if not address.is_loopback(host):
        if not (required.clients and required.nodes):
            raise UserError(
                f"authentication is off (auth in the settings), and {listen} can be reached from other machines. "
                "Listen on 127.0.0.1, or give keys"
            )
        log.warning("listening on %s without TLS: keys can be read by whoever is in between", listen)
    for who, on in (("people and tools", required.clients), ("nodes and gateways", required.nodes)):
        if not on:
            log.warning("authentication of %s is off: any program on this machine can do what they can", who)
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
