"""GET /metrics: who may see it, and that it is what a scraper reads."""

import asyncio
import sys

import pytest
from aiohttp import web
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.crew import State, Whole
from gateway.core.metrics import BOUNDS
from gateway.crew import Silent
from gateway.http import metrics
from geniehive.rules.model import Scope
from tests.unit.gateway.builders import key, served
from tests.unit.gateway.http.gateways import Gateway
from tests.unit.gateway.http.test_calls import DEAD, Engine

ANSWER = b'{"usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":2}}}'
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: bytes) -> Samples:
    samples: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.documentation
        for sample in family.samples:
            name = sample.name, tuple(sorted(sample.labels.items()))
            assert name not in samples
            samples[name] = sample.value
    return samples


async def scrape(gateway: Gateway) -> Samples:
    answer = await gateway.ask("GET", "/metrics", authorization="")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return read(answer.body)


async def test_what_is_counted() -> None:
    async with Engine(body=ANSWER) as engine, Gateway(*served("m", a=engine.url), *served("dead", b=DEAD)) as gateway:
        await gateway.chat()
        await gateway.chat()
        await gateway.chat(b'{"model":"dead"}')
        await gateway.chat(b'{"model":"unknown"}')
        await gateway.ended(4)
        seen = await scrape(gateway)
    prefix = "geniehive_gateway_"
    chat = ("operation", "chat")

    def requests(ending: str, status: str) -> float:
        return seen[prefix + "requests_total", (("ending", ending), chat, ("status", status))]

    assert (requests("ok", "2xx"), requests("failed", "5xx"), requests("unserved", "4xx")) == (2, 1, 1)
    assert seen[prefix + "attempts_total", (("result", "served"),)] == 2
    assert seen[prefix + "attempts_total", (("result", "connect"),)] == 1
    for direction, count in {"input": 20, "cached": 4, "output": 10}.items():
        assert seen[prefix + "tokens_total", (("direction", direction), ("model", "m"))] == count
    for name, count in {"request_duration_seconds": 4, "time_to_first_byte_seconds": 2}.items():
        assert seen[f"{prefix}{name}_count", (chat,)] == count
        assert seen[f"{prefix}{name}_sum", (chat,)] > 0
        buckets = [seen[f"{prefix}{name}_bucket", (("le", le), chat)] for le in ("327.68", "+Inf")]
        assert buckets == [count, count]
        assert sum(1 for found, _ in seen if found == f"{prefix}{name}_bucket") == len(BOUNDS) + 1
    assert seen[prefix + "open_requests", ()] == 1
    assert seen[prefix + "upstream_connections", ()] == 1
    assert seen[prefix + "table_generation", ()] == 1
    assert seen["process_resident_memory_bytes", ()] > 1 << 20
    for name in ("process_cpu_seconds_total", "process_open_fds", "process_start_time_seconds"):
        assert seen[name, ()] > 0
    assert any(name == "geniehive_build_info" for name, _ in seen)


async def test_before_anything_was_asked() -> None:
    async with Gateway() as gateway:
        assert ("geniehive_gateway_wait_seconds_count", ()) in await scrape(gateway)


async def test_names_of_models_are_written_so_that_they_can_be_read() -> None:
    name = 'a"b\\c\nd'
    async with Engine(body=ANSWER) as engine, Gateway(*served("m", a=engine.url)) as gateway:
        gateway.records.metrics.tokens[name] = [1, 0, 2]
        assert (await scrape(gateway))[
            "geniehive_gateway_tokens_total", (("direction", "input"), ("model", name))
        ] == 1  # fmt: skip


async def test_several_workers() -> None:
    async with Gateway() as gateway:
        own = gateway.metrics.snapshot()
        states = [State(0, own.levels, own.process), State(1, own.levels, own.process), State(2)]

        async def whole() -> Whole:
            return Whole(own.counts, states)

        gateway.metrics.whole = whole
        seen = await scrape(gateway)

        async def silent() -> Whole:
            raise Silent("it said nothing")

        gateway.metrics.whole = silent
        answer = await gateway.ask("GET", "/metrics", authorization="")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert b"workers_unavailable" in answer.body
        assert b"it said nothing" in answer.body

    def of(name: str) -> dict[str, float]:
        return {dict(labels)["worker"]: value for (found, labels), value in seen.items() if found == name}

    assert seen["geniehive_gateway_open_requests", ()] == 2 * own.levels.clients
    assert of("geniehive_gateway_worker_up") == {"0": 1, "1": 1, "2": 0}
    for name in (
        "geniehive_gateway_ejected_endpoints",
        "geniehive_gateway_table_generation",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ):
        assert of(name).keys() == {"0", "1"}


async def test_open_metrics() -> None:
    async with Engine(body=ANSWER) as engine, Gateway(*served("m", a=engine.url)) as gateway:
        await gateway.chat()
        await gateway.ended()
        answer = await gateway.ask("GET", "/metrics", accept="application/openmetrics-text; version=1.0.0")
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert list(read_openmetrics(answer.body.decode()))


@pytest.mark.parametrize(
    ("scopes", "status"), [((Scope.READ,), 200), ((Scope.ADMIN,), 200), ((Scope.INFER,), 403), (None, 401)]
)
async def test_from_elsewhere_a_key_is_needed(
    scopes: tuple[Scope, ...] | None, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.http.handler.is_local", lambda request: False)
    async with Gateway(key("sk-2", *(scopes or ()), key_id="k2")) as gateway:
        answer = await gateway.ask("GET", "/metrics", authorization="Bearer sk-2" if scopes else "")
        assert answer.status == status


class _Request:
    def __init__(self, peer: object, own: object, headers: dict[str, str]) -> None:
        self._ends = {"peername": peer, "sockname": own}
        self.headers = headers

    @property
    def transport(self) -> "_Request":
        return self

    def get_extra_info(self, name: str) -> object:
        return self._ends[name]


@pytest.mark.parametrize(
    ("peer", "own", "local"),
    [
        (("127.0.0.1", 5), ("127.0.0.1", 80), True),
        (("::1", 5, 0, 0), ("::1", 80, 0, 0), True),
        (("127.0.0.9", 5), ("127.0.0.1", 80), True),
        (("192.0.2.1", 5), ("192.0.2.2", 80), False),
        (("192.0.2.2", 5), ("192.0.2.2", 80), False),
        (("127.0.0.1", 5), ("192.0.2.2", 80), False),
        (None, None, False),
        ("/run/sock", "", False),
    ],
)
def test_who_is_on_this_machine(peer: object, own: object, local: bool) -> None:
    request: web.BaseRequest = _Request(peer, own, {})  # type: ignore[assignment]
    assert metrics.is_local(request) is local


async def test_a_proxy_on_this_machine_speaks_for_others() -> None:
    async with Gateway() as gateway:
        assert (await gateway.ask("GET", "/metrics", authorization="", via="1.1 proxy")).status == 401
        assert (await gateway.ask("GET", "/metrics", authorization="", x_forwarded_for="192.0.2.1")).status == 401


async def test_nothing_is_loaded_for_it_before_it_is_asked() -> None:
    """Prometheus' client costs memory that gateways without monitoring keep."""
    code = "import gateway.app, sys; assert 'prometheus_client' not in sys.modules"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0
