"""GET /metrics: what the gateway counts and how it is, in Prometheus' words. docs/operations.md lists the names."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import psutil
from aiohttp import web

from gateway.core import errors
from gateway.core.crew import Levels, Process, Snapshot, State, Whole
from gateway.core.metrics import BOUNDS, Counts, Times
from gateway.crew import Silent
from gateway.http.exchange import Refusal
from gateway.http.records import Records
from geniehive._version import __version__
from geniehive.kit import address

if TYPE_CHECKING:
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )

    _Family = CounterMetricFamily | GaugeMetricFamily

METRICS = "/metrics"
_PREFIX = "geniehive_gateway_"
_PROXIED = ("X-Forwarded-For", "Forwarded", "Via")
_LABELS = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]


class MetricsPage:
    """Shows one process, until `whole` is set: that gives what all workers of the address count and are. Silent."""

    def __init__(self, records: Records, levels: Callable[[], Levels]) -> None:
        self._records = records
        self._levels = levels
        self._process = psutil.Process()
        self.whole: Callable[[], Awaitable[Whole]] | None = None

    def snapshot(self) -> Snapshot:
        """Of this process."""
        self._records.flush()
        with self._process.oneshot():
            times = self._process.cpu_times()
            process = Process(
                cpu=times.user + times.system,
                memory=self._process.memory_info().rss,
                # Handles are what Windows has for them.
                files=getattr(self._process, "num_handles" if sys.platform == "win32" else "num_fds")(),
                began=self._process.create_time(),
            )
        return Snapshot(self._records.metrics.counts(), self._levels(), process)

    async def page(self, accept: str) -> tuple[bytes, bytes]:
        """Header lines and body, by what the client accepts. Refusal."""
        if self.whole is None:
            own = self.snapshot()
            counts, states, many = own.counts, [State(0, own.levels, own.process)], False
        else:
            try:
                whole = await self.whole()
            except Silent as error:
                raise Refusal(errors.workers_away(str(error))) from error
            counts, states, many = whole.counts, whole.states, True
        # Thousands of lines take a while to write, and other requests go on meanwhile.
        return await asyncio.to_thread(_written, counts, states, many, accept)


def _written(counts: Counts, states: Sequence[State], many: bool, accept: str) -> tuple[bytes, bytes]:
    # Only now: who is never asked needs no memory for it.
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry()
    registry.register(_Collector(lambda: chain(_counted(counts), _seen(states, many))))
    encode, content_type = choose_encoder(accept)
    return f"content-type: {content_type}\r\n".encode(), encode(registry)


class _Collector:
    """As prometheus_client wants it."""

    def __init__(self, collect: Callable[[], Iterable["Metric"]]) -> None:
        self.collect = collect

    def describe(self) -> Iterable["Metric"]:
        return ()


def is_local(request: web.BaseRequest) -> bool:
    """Whether both ends of the connection are on this machine's loopback, and no proxy there speaks for others."""
    transport = request.transport
    if transport is None or any(header in request.headers for header in _PROXIED):
        return False
    ends = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    return all(isinstance(end, tuple) and address.is_loopback(str(end[0])) for end in ends)


def _counted(metrics: Counts) -> Iterator["Metric"]:
    from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily

    requests = CounterMetricFamily(
        _PREFIX + "requests", "Calls to models, by how they ended.", labels=["operation", "ending", "status"]
    )
    by_class: dict[tuple[str, str, str], int] = {}
    for (operation, ending, status), count in metrics.requests.items():
        key = operation.word, ending.value, f"{status // 100}xx" if status else "none"
        by_class[key] = by_class.get(key, 0) + count
    for labels, count in by_class.items():
        requests.add_metric(labels, count)
    yield requests

    attempts = CounterMetricFamily(
        _PREFIX + "attempts", "Requests to engines, by what became of them.", labels=["result"]
    )
    for kind, count in metrics.attempts.items():
        attempts.add_metric([kind], count)
    yield attempts

    tokens = CounterMetricFamily(
        _PREFIX + "tokens", "Tokens, as engines counted them. cached: of the input.", labels=["model", "direction"]
    )
    for model, counts in metrics.tokens.items():
        for direction, count in zip(("input", "cached", "output"), counts, strict=True):
            tokens.add_metric([model, direction], count)
    yield tokens

    for name, text, histograms in (
        ("request_duration_seconds", "From a request's head to the end of its answer.", metrics.durations),
        (
            "time_to_first_byte_seconds",
            "From a request's head to the first byte of an engine's answer.",
            metrics.firsts,
        ),
    ):
        histogram = HistogramMetricFamily(_PREFIX + name, text, labels=["operation"])
        for operation, times in histograms.items():
            _add(histogram, [operation.word], times)
        yield histogram
    waited = HistogramMetricFamily(_PREFIX + "wait_seconds", "For a turn, of those that had to wait.", labels=[])
    _add(waited, [], metrics.waited)
    yield waited


def _seen(states: Sequence[State], many: bool) -> Iterator["Metric"]:
    """many: workers are told apart, where their figures make no sum."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    all_levels = [state.levels for state in states if state.levels is not None]
    clients = sum(levels.clients for levels in all_levels)
    yield GaugeMetricFamily(_PREFIX + "open_requests", "Requests of clients that are open.", clients)
    in_flight: dict[str, list[int]] = {}
    for levels in all_levels:
        for _, operation, running, waiting in levels.routes:
            counts = in_flight.setdefault(operation.word, [0, 0])
            counts[0] += running
            counts[1] += waiting
    for number, name, text in (
        (0, "in_flight_requests", "Requests that are with an engine."),
        (1, "waiting_requests", "Requests that wait for a turn, or for a model to load."),
    ):
        family = GaugeMetricFamily(_PREFIX + name, text, labels=["operation"])
        for word, counts in in_flight.items():
            family.add_metric([word], counts[number])
        yield family
    connections = sum(levels.upstream_connections for levels in all_levels)
    yield GaugeMetricFamily(_PREFIX + "upstream_connections", "Connections to engines.", connections)

    label = ["worker"] if many else []

    def each(make: type["_Family"], name: str, text: str, of: Callable[[State], float | None]) -> "Metric":
        family = make(name, text, labels=label)
        for state in states:
            value = of(state)
            if value is not None:
                family.add_metric([str(state.worker)] if many else [], value)
        return family

    def level(name: str, text: str, of: Callable[[Levels], float | None]) -> "Metric":
        return each(GaugeMetricFamily, _PREFIX + name, text, lambda s: None if s.levels is None else of(s.levels))

    def figure(make: type["_Family"], name: str, text: str, of: Callable[[Process], float]) -> "Metric":
        return each(make, name, text, lambda s: None if s.process is None else of(s.process))

    yield level("ejected_endpoints", "Endpoints left out after failures.", lambda now: now.ejected)
    yield level("table_generation", "Grows with the routing table.", lambda now: now.table_generation)
    age = level("table_age_seconds", "Since control last changed the routing table.", lambda now: now.table_age)
    if age.samples:
        yield age
    if many:
        text = "Whether the worker answered; of one that did not, what it counted last is in the sums."
        yield each(GaugeMetricFamily, _PREFIX + "worker_up", text, lambda state: float(state.process is not None))
    yield figure(CounterMetricFamily, "process_cpu_seconds", "CPU time, user and system.", lambda now: now.cpu)
    yield figure(GaugeMetricFamily, "process_resident_memory_bytes", "Resident memory.", lambda now: now.memory)
    yield figure(GaugeMetricFamily, "process_open_fds", "Open file descriptors.", lambda now: now.files)
    text = "Start, in seconds since the epoch."
    yield figure(GaugeMetricFamily, "process_start_time_seconds", text, lambda now: now.began)
    python = ".".join(map(str, sys.version_info[:3]))
    yield InfoMetricFamily("geniehive_build", "What runs.", {"version": __version__, "python": python})


def _add(family: "HistogramMetricFamily", labels: list[str], times: Times) -> None:
    buckets: list[tuple[str, float]] = []
    total = 0
    for label, count in zip(_LABELS, times.counts, strict=True):
        total += count
        buckets.append((label, total))
    family.add_metric(labels, buckets, times.sum)
