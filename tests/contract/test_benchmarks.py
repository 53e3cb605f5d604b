"""RecordBenchmarkSamples, ListBenchmarkSamples and the benchmarks of WatchRegistry, on a real server."""

import asyncio
import math
from typing import Any

import grpc
import pytest

from geniehive.v1 import admin_service_pb2 as admin
from geniehive.v1 import benchmark_pb2
from geniehive.v1 import registry_service_pb2 as pb
from geniehive.v1.failure_pb2 import FailureReason
from tests.support.cluster import asset, service
from tests.support.control_server import AS_NODE, Control, as_, for_client, refused, running_control
from tests.support.fake_store import FakeStore

OPERATE, READ = as_("operate"), as_("read")
INVALID = FailureReason.FAILURE_REASON_FIELD_INVALID
OLLAMA = service("gpu-1/ollama", asset("qwen3"), asset("llama"))


def sample(sample_id: str = "s1", age: float = 0.0, **fields: Any) -> benchmark_pb2.BenchmarkSample:
    given = {
        "service": "gpu-1/ollama",
        "asset_id": "qwen3",
        "workload": "tool_call/1",
        "request_count": 20,
        "correctness": 0.9,
        "decode_tokens_per_second": 45.5,
        **fields,
    }
    made = benchmark_pb2.BenchmarkSample(sample_id=sample_id, **given)
    made.measure_time.GetCurrentTime()
    made.measure_time.seconds -= int(age)
    return made


async def offered(control: Control) -> None:
    await (await control.node("gpu-1")).register(OLLAMA)


async def record(control: Control, *samples: Any, metadata: Any = OPERATE) -> list[str]:
    """The fields for which samples were refused, in order; "" for those that were not."""
    request = admin.RecordBenchmarkSamplesRequest(samples=samples)
    answer = await control.admin.RecordBenchmarkSamples(request, metadata=metadata)
    assert all(r.refused.reason == INVALID for r in answer.results if r.HasField("refused"))
    return [result.refused.metadata["field"] for result in answer.results]


async def listed(control: Control, metadata: Any = READ, **fields: Any) -> list[benchmark_pb2.BenchmarkSample]:
    request = pb.ListBenchmarkSamplesRequest(**fields)
    return list((await control.registry.ListBenchmarkSamples(request, metadata=metadata)).samples)


async def test_samples_are_stored_and_come_back_as_they_were() -> None:
    async with running_control() as control:
        await offered(control)
        assert await listed(control) == []
        older, newer = sample("s1", 60.0), sample("s2", first_token_seconds=0.25, prefill_tokens_per_second=812.5)
        assert await record(control, older, newer) == ["", ""]
        found = await listed(control)
        assert [s.sample_id for s in found] == ["s2", "s1"], "newest first"
        for before, now in zip((newer, older), found, strict=True):
            assert abs(before.measure_time.ToNanoseconds() - now.measure_time.ToNanoseconds()) < 1000
            now.measure_time.CopyFrom(before.measure_time)
            assert now == before
        assert not found[1].HasField("first_token_seconds")


async def test_good_ones_are_kept_though_others_are_refused() -> None:
    async with running_control() as control:
        await offered(control)
        future = sample("s7")
        future.measure_time.seconds += 86400
        untimed = sample("s8")
        untimed.ClearField("measure_time")
        fields = await record(
            control,
            sample("s0"),
            sample("s1", service="gpu-2/ollama"),
            sample("s2", service="gpu-1/vllm"),
            sample("s3", asset_id="gemma"),
            sample("s4", correctness=1.5),
            sample("s5", decode_tokens_per_second=math.nan),
            sample("s6", first_token_seconds=math.inf),
            future,
            untimed,
            sample("s9", prefill_tokens_per_second=-1.0),
            sample("s10", workload="chat"),
            sample(""),
            sample("s11", request_count=0),
            sample("s12"),
        )
        assert fields == [
            "", "service", "service", "asset_id", "correctness", "decode_tokens_per_second", "first_token_seconds",
            "measure_time", "measure_time", "prefill_tokens_per_second", "workload", "sample_id", "request_count", "",
        ]  # fmt: skip
        assert {s.sample_id for s in await listed(control)} == {"s0", "s12"}


async def test_one_id_is_stored_once() -> None:
    async with running_control() as control:
        await offered(control)
        assert await record(control, sample("s1", correctness=0.1), sample("s1", correctness=0.2)) == ["", ""]
        assert await record(control, sample("s1", correctness=0.3)) == [""]
        assert [s.correctness for s in await listed(control)] == [0.1]


async def test_too_many_are_refused_whole() -> None:
    async with running_control() as control:
        await offered(control)
        many = [sample(f"s{n}") for n in range(1001)]
        error = await refused(record(control, *many))
        assert (error.reason, error.metadata["field"]) == (INVALID, "samples")
        assert await listed(control) == []
        assert await record(control, *many[:1000]) == [""] * 1000


async def test_filters_and_pages() -> None:
    async with running_control() as control:
        await offered(control)
        samples = [
            sample(f"s{n}", 10.0 * n, asset_id="llama" if n % 2 else "qwen3", workload=f"w{n % 3}/1") for n in range(12)
        ]
        await record(control, *samples)
        assert [s.sample_id for s in await listed(control, asset_id="llama", workload="w0/1")] == ["s3", "s9"]
        assert await listed(control, service="gpu-2/x") == []
        request = pb.ListBenchmarkSamplesRequest(page_size=5, service="gpu-1/ollama")
        found = []
        while True:
            page = await control.registry.ListBenchmarkSamples(request, metadata=READ)
            found.append([s.sample_id for s in page.samples])
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert list(map(len, found)) == [5, 5, 2]
        assert [name for page_ in found for name in page_] == [f"s{n}" for n in range(12)]
        error = await refused(listed(control, page_size=-1))
        assert error.reason == INVALID
        error = await refused(listed(control, page_token=request.page_token))
        assert (error.reason, error.metadata["field"]) == (INVALID, "page_token")


@pytest.mark.parametrize(("metadata", "code"), [(READ, grpc.StatusCode.PERMISSION_DENIED), ((), None)])
async def test_who_may_record(metadata: Any, code: grpc.StatusCode | None) -> None:
    async with running_control() as control:
        await offered(control)
        error = await refused(record(control, sample(), metadata=metadata))
        assert error.code is (code or grpc.StatusCode.UNAUTHENTICATED)
        assert await listed(control) == []


async def test_gateways_ask_and_record_for_clients_that_may() -> None:
    async with running_control() as control:
        await offered(control)
        assert await record(control, sample(), metadata=for_client("operate")) == [""]
        error = await refused(record(control, sample("s2"), metadata=for_client("read")))
        assert error.code is grpc.StatusCode.PERMISSION_DENIED
        assert len(await listed(control, metadata=for_client("read"))) == 1
        error = await refused(listed(control, metadata=for_client("infer")))
        assert error.code is grpc.StatusCode.PERMISSION_DENIED
        assert len(await listed(control, metadata=AS_NODE)) == 1


async def test_a_store_that_fails_stores_nothing_and_says_so() -> None:
    store = FakeStore()
    async with running_control(store=store) as control:
        await offered(control)
        store.failing = "database is locked"
        error = await refused(record(control, sample()))
        assert error.reason == FailureReason.FAILURE_REASON_STORE_UNAVAILABLE
        assert (await refused(listed(control))).reason == FailureReason.FAILURE_REASON_STORE_UNAVAILABLE
        store.failing = None
        assert await listed(control) == []
        assert await record(control, sample()) == [""]
        (line,) = [line for line in store.audit if "benchmark" in line.action]
        assert (line.caller, line.target) == ("operate", "gpu-1/ollama")


async def test_watchers_see_the_newest_of_each() -> None:
    async with running_control() as control:
        await offered(control)
        await record(control, sample("s1", 60.0), sample("s0", 90.0))
        request = pb.WatchRegistryRequest(kinds=[pb.OBJECT_KIND_BENCHMARK])
        stream = control.stream(control.registry.WatchRegistry(request, metadata=READ))
        assert (await stream.answer()).changed.benchmark.sample_id == "s1"
        assert (await stream.answer()).HasField("synced")
        await record(control, sample("s2"), sample("s3", workload="chat/2"), sample("s4", 500.0))
        told = [await stream.answer() for _ in range(3)]
        removed = [(m.removed.kind, m.removed.name) for m in told if m.HasField("removed")]
        assert removed == [(pb.OBJECT_KIND_BENCHMARK, "s1")]
        assert {m.changed.benchmark.sample_id for m in told if m.HasField("changed")} == {"s2", "s3"}
        await control.admin.ForgetHost(admin.ForgetHostRequest(host_id="gpu-1"), metadata=as_("admin"))
        async with asyncio.timeout(5):
            assert {(await stream.answer()).removed.name for _ in range(2)} == {"s2", "s3"}
        await stream.close()
