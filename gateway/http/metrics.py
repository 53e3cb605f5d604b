"""GET /metrics: what this process counts and how it is, in Prometheus' words. docs/operations.md lists the names."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec
import psutil
from aiohttp import web

from gateway.core.metrics import BOUNDS, Metrics, Times
from gateway.http.records import Records
from geniehive._version import __version__
from geniehive.kit import address
from geniehive.rules.operations import Operation

if TYPE_CHECKING:
    from prometheus_client.metrics_core import HistogramMetricFamily, Metric

METRICS = "/metrics"
_PREFIX = "geniehive_gateway_"
_PROXIED = ("X-Forwarded-For", "Forwarded", "Via")
_LABELS = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]


class Levels(msgspec.Struct, frozen=True, kw_only=True):
    """What is, at the moment of asking. table_age: seconds since control last sent something; None: never.

    routes: of each name and operation in use the requests that are with engines, and those that wait.
    """

    clients: int
    upstream_connections: int
    ejected: int
    table_generation: int
    table_age: float | None
    routes: list[tuple[str, Operation, int, int]]


class MetricsPage:
    def __init__(self, records: Records, levels: Callable[[], Levels]) -> None:
        self._records = records
        self._levels = levels
        self._process = psutil.Process()

    async def page(self, accept: str) -> tuple[bytes, bytes]:
        """Header lines and body, by what the client accepts."""
        self._records.flush()
        # Thousands of lines take a while to write, and other requests go on meanwhile.
        return await asyncio.to_thread(self._written, self._records.metrics.copied(), self._levels(), accept)

    def _written(self, metrics: Metrics, levels: Levels, accept: str) -> tuple[bytes, bytes]:
        # Only now: who is never asked needs no memory for it.
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry()
        registry.register(_Collector(lambda: self._families(metrics, levels)))
        encode, content_type = choose_encoder(accept)
        return f"content-type: {content_type}\r\n".encode(), encode(registry)

    def _families(self, metrics: Metrics, levels: Levels) -> Iterator["Metric"]:
        yield from _counted(metrics)
        yield from _seen(levels)
        yield from self._of_process()

    def _of_process(self) -> Iterator["Metric"]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        with self._process.oneshot():
            times = self._process.cpu_times()
            # Handles are what Windows has for them.
            files = getattr(self._process, "num_handles" if sys.platform == "win32" else "num_fds")()
            rss = self._process.memory_info().rss
            began = self._process.create_time()
        yield CounterMetricFamily("process_cpu_seconds", "CPU time, user and system.", times.user + times.system)
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory.", rss)
        yield GaugeMetricFamily("process_open_fds", "Open file descriptors.", files)
        yield GaugeMetricFamily("process_start_time_seconds", "Start, in seconds since the epoch.", began)
        python = ".".join(map(str, sys.version_info[:3]))
        yield InfoMetricFamily("geniehive_build", "What runs.", {"version": __version__, "python": python})


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


def _counted(metrics: Metrics) -> Iterator["Metric"]:
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


def _seen(levels: Levels) -> Iterator["Metric"]:
    from prometheus_client.metrics_core import GaugeMetricFamily

    yield GaugeMetricFamily(_PREFIX + "open_requests", "Requests of clients that are open.", levels.clients)
    in_flight: dict[str, list[int]] = {}
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
    yield GaugeMetricFamily(_PREFIX + "upstream_connections", "Connections to engines.", levels.upstream_connections)
    yield GaugeMetricFamily(_PREFIX + "ejected_endpoints", "Endpoints left out after failures.", levels.ejected)
    yield GaugeMetricFamily(_PREFIX + "table_generation", "Grows with the routing table.", levels.table_generation)
    if levels.table_age is not None:
        yield GaugeMetricFamily(
            _PREFIX + "table_age_seconds", "Since control last changed the routing table.", levels.table_age
        )


def _add(family: "HistogramMetricFamily", labels: list[str], times: Times) -> None:
    buckets: list[tuple[str, float]] = []
    total = 0
    for label, count in zip(_LABELS, times.counts, strict=True):
        total += count
        buckets.append((label, total))
    family.add_metric(labels, buckets, times.sum)
