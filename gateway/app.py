"""Builds the gateway from its settings, and runs it until it is told to stop."""

import asyncio
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gateway import crew, workers
from gateway.core.admission import Admission
from gateway.core.balance import Balance
from gateway.core.budget import RetryBudget
from gateway.core.cors import Cors
from gateway.core.crew import Levels
from gateway.core.latency import Latencies
from gateway.core.metrics import Metrics
from gateway.core.plan import Limits
from gateway.core.sums import Sums
from gateway.core.table import Rejected, Table
from gateway.http.access import AccessLog, Output
from gateway.http.calls import Calls
from gateway.http.certificate import Certificate
from gateway.http.cluster import ClusterApi, Explain
from gateway.http.forms import Forms
from gateway.http.handler import Handler
from gateway.http.metrics import MetricsPage
from gateway.http.records import Records
from gateway.http.server import HttpServer
from gateway.patience import Patience, by_path
from gateway.relays import Relays
from gateway.settings import GatewaySettings, LimitSettings, NodeKeySettings, TimeoutSettings
from gateway.upstream import Upstream
from gateway.watch.answers import AskControl
from gateway.watch.certificates import Certificates
from gateway.watch.kept import Broken, KeptTable
from gateway.watch.link import Link
from gateway.watch.lookup import NameLookUp
from gateway.watch.outcomes import Gauges, OutcomeReports, RouteGauge
from gateway.watch.stream import Identity, RouteStream
from gateway.watch.usage import AskUsage
from geniehive._version import __version__
from geniehive.channels import check_plain
from geniehive.convert import resource_from_proto
from geniehive.kit import address, http1, machine, notices, state
from geniehive.kit.clock import Clock, SystemClock
from geniehive.kit.errors import EXIT_REFUSED, UserError
from geniehive.kit.lifecycle import Stop, settle
from geniehive.kit.outbox import Outbox
from geniehive.kit.rotated import RotatedFile
from geniehive.kit.tasks import Tasks
from geniehive.membership import Cluster, Credential
from geniehive.rules import names
from geniehive.rules.identity import PeerKind
from geniehive.rules.model import ServiceLoad

log = logging.getLogger(__name__)

_CONTROL = "127.0.0.1:8801"
# Seconds that control gets to store what was counted last.
_LAST_REPORT = 2.0


async def serve(settings: GatewaySettings, stop: Stop) -> None:
    """Returns when the gateway has stopped in order. UserError for settings that can't be used."""
    _check(settings)
    cors = _cors(settings)
    folder = settings.state_folder
    clock = SystemClock()
    credential = Credential(folder, PeerKind.GATEWAY)
    link = _link(settings, credential, clock)
    gateway_id = _gateway_id(settings, link, credential)
    certificate = _certificate(settings)
    worker = workers.number()
    # All workers have the same table, and one file of it is enough.
    keeps = worker in (None, 0)
    tasks = Tasks()
    limits = settings.limits
    table = Table(gateway_id, far=link.secured, limits=Limits(limits.per_slot, limits.services))
    kept = KeptTable(folder / "gateway" / "table.pb")
    serving = _Serving(table)
    await _start_from_kept(kept, table, serving)

    times = settings.timeouts
    outbox = Outbox()
    client = http1.Client(outbox=outbox)
    relays = Relays(credential)
    upstream = Upstream(client, relays.client)

    def on_table(offline: tuple[str, ...]) -> None:
        serving.begin("control")
        now = serving.changed_at = clock.now()
        upstream.offline(offline)
        for endpoint in table.take_trials():
            balance.ejections.trial(endpoint, now)

    def on_load(services: Sequence[ServiceLoad], good_for: float) -> None:
        balance.loads.take(services, good_for, balance.own_at, clock.now())

    identity = Identity(gateway_id=gateway_id, instance_id=secrets.token_hex(8), version=__version__)
    stream = RouteStream(
        link,
        identity,
        table,
        kept,
        on_table,
        Certificates(credential, gateway_id, clock),
        on_load=on_load,
    )
    look_up = NameLookUp(lambda: stream.stub, link.metadata, table, clock, tasks)
    forms = Forms(settings.max_upload_bytes, settings.upload_dir)
    balance = Balance(Admission(limits.wait, limits.waiting), gateways=settings.routing.gateways)
    sums = Sums()

    def gauges() -> Gauges:
        return Gauges([RouteGauge(*route) for route in balance.routes()], balance.ejected(clock.now()))

    def levels() -> Levels:
        relayed = relays.client()
        return Levels(
            clients=len(handler.open),
            upstream_connections=client.open_count + (relayed.open_count if relayed is not None else 0),
            ejected=len(balance.ejected(clock.now())),
            table_generation=table.generation,
            table_age=serving.age(clock.now()),
            routes=balance.routes(),
        )

    reports = OutcomeReports(lambda: stream.stub, link.metadata, identity, sums, gauges, clock)
    ask = AskControl(lambda: stream.channel, link.metadata)
    ask_usage = AskUsage(lambda: stream.registry, link.metadata)
    cluster = ClusterApi(ask, ask_usage, Explain(ask, table, look_up, balance, clock), clock)
    calls = Calls(
        table, balance, RetryBudget(), upstream, look_up, clock, settings.max_body_bytes, forms, _patience(times),
        settings.usage.ask,
    )  # fmt: skip
    access = _access_log(settings, worker, clock)
    latencies = Latencies(table.has_model)
    records = Records(Metrics(table.has_model), clock, access, (sums.add, latencies.record))
    metrics = MetricsPage(records, levels)
    line = crew.line_of(worker, metrics.snapshot)
    if line is not None:
        metrics.whole = line.whole
    handler = Handler(
        table, calls, look_up, auth=settings.auth.require, client_idle=times.idle, records=records,
        metrics=metrics if settings.metrics.enabled else None, cors=cors, cluster=cluster,
        latency=latencies.p50, outbox=outbox,
    )  # fmt: skip
    server = HttpServer(handler)
    try:
        if line is not None:
            # Before it serves, so that no question to the others leaves this one out.
            await line.connect()
            tasks.start(line.run(), "know of the other workers")
        context = certificate.context if certificate is not None else None
        url = await server.start(settings.listen, context, shared=worker is not None)
        stream.base_url = url
        notices.send("ready", daemon="gateway", url=url)
        log.info("listening on %s; OpenAI's base URL is %s/v1", url, url)
        if keeps:
            tasks.start(kept.run(), "keep the table")
        tasks.start(stream.run(), "watch routes")
        tasks.start(reports.run(), "report outcomes")
        if access is not None:
            tasks.start(access.run(), "write the access log")
        if certificate is not None:
            tasks.start(certificate.run(), "watch the certificate")
        settle()
        await _stopped(stop, tasks)
        log.info("stopping: %s", stop.cause)
        await server.drain(settings.drain_timeout)
        records.flush()
        await reports.flush(_LAST_REPORT)
    finally:
        await server.drain(0.0)
        await tasks.close()
        records.flush()
        if access is not None:
            await access.close()
        if keeps:
            await kept.flush()
        await relays.close()
        await client.close()
        forms.close()


class _Serving:
    """Says once that a table is in force, and where it came from."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._began = False
        # When control sent something last.
        self.changed_at: float | None = None

    def age(self, now: float) -> float | None:
        """Seconds since then; None: it never did."""
        return None if self.changed_at is None else now - self.changed_at

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
    if settings.gateway_id is not None and not names.is_id(settings.gateway_id):
        raise UserError(f"gateway_id: {settings.gateway_id!r} is no id; an id matches [a-z0-9][a-z0-9._-]{{0,62}}")
    if not settings.auth.require:
        if not address.is_loopback(host):
            raise UserError(
                f"auth.require is false, but {settings.listen} can be reached from other machines. Require keys, or "
                "listen on 127.0.0.1"
            )
        log.warning("auth.require is false: every program on this machine may use the models without a key")
    if (settings.tls.cert is None) != (settings.tls.key is None):
        raise UserError("tls: give cert and key, both or neither")
    if settings.tls.cert is None and not address.is_loopback(host):
        log.warning(
            "%s can be reached from other machines without TLS: keys, prompts and answers can be read on the way. Give "
            "a certificate: tls.cert and tls.key",
            settings.listen,
        )
    _check_times(settings.timeouts)
    _check_limits(settings.limits)
    if settings.routing.gateways < 1:
        raise UserError(f"routing.gateways: {settings.routing.gateways} must be at least 1, which is this one")
    if settings.max_body_bytes <= 0:
        raise UserError(f"max_body_bytes: {settings.max_body_bytes} must be more than 0")
    if settings.max_upload_bytes <= 0:
        raise UserError(f"max_upload_bytes: {settings.max_upload_bytes} must be more than 0")
    if settings.upload_dir is not None and not Path(settings.upload_dir).is_dir():
        raise UserError(f"upload_dir: {settings.upload_dir} is no folder. Make it, or leave the setting out")
    if settings.access_log.max_bytes <= 0 or settings.access_log.keep < 0:
        raise UserError("access_log: max_bytes must be more than 0, and keep not negative")
    if settings.drain_timeout < 0:
        raise UserError(f"drain_timeout: {settings.drain_timeout} must not be negative")


def _link(settings: GatewaySettings, credential: Credential, clock: Clock) -> Link:
    """The way to control, by what is configured, and by what joining left in the state folder."""
    joined = Cluster.load(settings.state_folder)
    control = settings.control
    if joined is not None and (control is None or not address.is_loopback(address.split(control)[0])):
        link = Link(control or joined.peers, clock, credential=credential, join=joined.control)
        if credential.peer is None:
            raise UserError(
                f"this machine joined the cluster at {joined.control}, but {credential.path} has no certificate for a "
                f"gateway of it. To have one here, {link.advice}",
                EXIT_REFUSED,
            )
        return link
    control = control or _CONTROL
    check_plain(control)
    return Link(control, clock, _node_key(settings.node_key, settings.state_folder))


def _gateway_id(settings: GatewaySettings, link: Link, credential: Credential) -> str:
    if not link.secured:
        return settings.gateway_id or state.machine_id(settings.state_folder, names.to_id(machine.host_name()))
    assert credential.peer is not None
    if settings.gateway_id not in (None, credential.peer.peer_id):
        raise UserError(
            f"gateway_id {settings.gateway_id!r}: this machine joined its cluster as {credential.peer.peer_id!r}, and "
            "its certificate says so. Leave that setting out, or join under the other name: geniehive join --name"
        )
    return credential.peer.peer_id


def _certificate(settings: GatewaySettings) -> Certificate | None:
    if settings.tls.cert is None or settings.tls.key is None:
        return None
    return Certificate(Path(settings.tls.cert), Path(settings.tls.key))


def _check_times(times: TimeoutSettings) -> None:
    given = msgspec.to_builtins(times)
    for word, own in given.pop("operations").items():
        given |= {f"operations.{word}.{name}": seconds for name, seconds in own.items()}
    for name, seconds in given.items():
        if seconds is not None and seconds <= 0:
            raise UserError(f"timeouts.{name}: {seconds} must be more than 0, or null for no limit")


def _check_limits(limits: LimitSettings) -> None:
    if limits.per_slot is not None and limits.per_slot <= 0:
        raise UserError(f"limits.per_slot: {limits.per_slot} must be more than 0, or null for no limit by slots")
    for service, limit in limits.services.items():
        if service.count("/") != 1:
            raise UserError(
                f"limits.services: {service!r} is no service; `geniehive status` lists them, as HOST/SERVICE"
            )
        if limit is not None and limit < 1:
            raise UserError(f"limits.services: {service}: {limit} must be at least 1, or null for no limit")
    if limits.wait < 0 or limits.waiting < 0:
        raise UserError(f"limits: wait ({limits.wait:g}) and waiting ({limits.waiting}) must not be negative")


def _patience(times: TimeoutSettings) -> dict[str, Patience]:
    general = msgspec.to_builtins(times)
    operations = general.pop("operations")
    return by_path(general, operations)


def _cors(settings: GatewaySettings) -> Cors:
    try:
        return Cors(settings.cors.origins)
    except ValueError as error:
        raise UserError(f"cors.origins: {error}") from error


def _access_log(settings: GatewaySettings, worker: int | None, clock: Clock) -> AccessLog | None:
    told = settings.access_log
    if not told.enabled:
        return None
    if told.file == "-":
        return AccessLog(Output(), settings.log.format, clock)
    path = Path(told.file).expanduser() if told.file else settings.state_folder / "logs" / "access.log"
    if worker:
        path = path.with_name(f"{path.stem}-{worker}{path.suffix}")
    return AccessLog(RotatedFile(path, told.max_bytes, told.keep), settings.log.format, clock)


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
