"""Builds the gateway from its settings, and runs it until it is told to stop."""

import asyncio
import logging
import os
import secrets
from pathlib import Path

from gateway.core.balance import Balance
from gateway.core.budget import RetryBudget
from gateway.core.table import Rejected, Table
from gateway.http.calls import Calls
from gateway.http.handler import Handler
from gateway.http.server import HttpServer
from gateway.settings import GatewaySettings, NodeKeySettings
from gateway.upstream import Upstream
from gateway.watch.kept import Broken, KeptTable
from gateway.watch.lookup import NameLookUp
from gateway.watch.stream import Identity, RouteStream
from geniehive._version import __version__
from geniehive.channels import check_plain
from geniehive.convert import resource_from_proto
from geniehive.kit import address, http1, machine, notices, state
from geniehive.kit.clock import SystemClock
from geniehive.kit.errors import UserError
from geniehive.kit.lifecycle import Stop, settle
from geniehive.kit.tasks import Tasks
from geniehive.rules import names

log = logging.getLogger(__name__)


async def serve(settings: GatewaySettings, stop: Stop) -> None:
    """Returns when the gateway has stopped in order. UserError for settings that can't be used."""
    _check(settings)
    folder = settings.state_folder
    gateway_id = settings.gateway_id or state.machine_id(folder, names.to_id(machine.host_name()))
    clock = SystemClock()
    tasks = Tasks()
    table = Table(gateway_id)
    kept = KeptTable(folder / "gateway" / "table.pb")
    serving = _Serving(table)
    await _start_from_kept(kept, table, serving)

    times = settings.timeouts
    client = http1.Client()
    timeouts = http1.Timeouts(connect=times.connect, first_byte=times.first_byte, idle=times.idle, total=times.total)
    upstream = Upstream(client, timeouts)

    def on_table(offline: tuple[str, ...]) -> None:
        serving.begin("control")
        upstream.offline(offline)

    stream = RouteStream(
        settings.control,
        _node_key(settings.node_key, folder),
        Identity(gateway_id=gateway_id, instance_id=secrets.token_hex(8), version=__version__),
        table,
        kept,
        on_table,
    )
    look_up = NameLookUp(lambda: stream.stub, stream.metadata, gateway_id, clock, tasks)
    calls = Calls(table, Balance(), RetryBudget(), upstream, look_up, clock, settings.max_body_bytes)
    handler = Handler(table, calls, look_up, auth=settings.auth.require, client_idle=times.idle)
    server = HttpServer(handler)
    try:
        url = await server.start(settings.listen)
        stream.base_url = url
        notices.send("ready", daemon="gateway", url=url)
        log.info("listening on %s; OpenAI's base URL is %s/v1", url, url)
        tasks.start(kept.run(), "keep the table")
        tasks.start(stream.run(), "watch routes")
        settle()
        await _stopped(stop, tasks)
        log.info("stopping: %s", stop.cause)
        await server.drain(settings.drain_timeout)
    finally:
        await server.drain(0.0)
        await tasks.close()
        await kept.flush()
        await client.close()


class _Serving:
    """Says once that a table is in force, and where it came from."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._began = False

    def begin(self, source: str) -> None:
        if not self._began:
            self._began = True
            log.info("serving %d names, by the table from %s", len(self._table.routes()), source)
            notices.send("serving", source=source)


async def _stopped(stop: Stop, tasks: Tasks) -> None:
    """Until told to stop. Raises what ended a background task: half a gateway is worse than one that is restarted."""
    asked = tasks.start(stop.wait(), "wait for the end")
    await asyncio.wait([asked, tasks.failed], return_when=asyncio.FIRST_COMPLETED)
    if tasks.failed.done():
        raise tasks.failed.result()


async def _start_from_kept(kept: KeptTable, table: Table, serving: _Serving) -> None:
    try:
        update = await asyncio.to_thread(kept.load)
        if update is None:
            return
        table.apply(tuple(map(resource_from_proto, update.changed)), cluster_id=update.cluster_id)
    except (Broken, Rejected, ValueError) as problem:
        log.warning("the kept table is not used: %s", problem)
        return
    kept.note(update.changed, (), update.cluster_id)
    serving.begin("kept")


def _check(settings: GatewaySettings) -> None:
    host, _ = address.split(settings.listen)
    check_plain(settings.control)
    if settings.gateway_id is not None and not names.is_id(settings.gateway_id):
        raise UserError(f"gateway_id: {settings.gateway_id!r} is no id; an id matches [a-z0-9][a-z0-9._-]{{0,62}}")
    if not settings.auth.require:
        if not address.is_loopback(host):
            raise UserError(
                f"auth.require is false, but {settings.listen} can be reached from other machines. Require keys, or "
                "listen on 127.0.0.1"
            )
        log.warning("auth.require is false: every program on this machine may use the models without a key")
    times = settings.timeouts
    for name in ("connect", "first_byte", "idle", "total"):
        seconds = getattr(times, name)
        if seconds is not None and seconds <= 0:
            raise UserError(f"timeouts.{name}: {seconds} must be more than 0, or null for no limit")
    if settings.max_body_bytes <= 0:
        raise UserError(f"max_body_bytes: {settings.max_body_bytes} must be more than 0")
    if settings.drain_timeout < 0:
        raise UserError(f"drain_timeout: {settings.drain_timeout} must not be negative")


def _node_key(settings: NodeKeySettings, folder: Path) -> str:
    if settings.file and settings.env:
        raise UserError("node_key: give file or env, not both")
    if settings.file:
        return state.read_secret(Path(settings.file))
    if settings.env:
        key = os.environ.get(settings.env, "").strip()
        if not key:
            raise UserError(f"node_key.env: the environment variable {settings.env} is not set")
        return key
    return state.local_secret(folder / "node.key", "ghn")
