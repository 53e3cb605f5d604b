"""Which benchmark samples are taken, and which is the newest."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.rules.model import BenchmarkSample, Service
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from geniehive_control.core.benchmarks import MOST_SAMPLES, Benchmarks, check, judge
from geniehive_control.core.refusal import Refusal, Why
from tests.support.cluster import service
from tests.support.control_core import WALL, Driver

OLLAMA = service("gpu-1/ollama", "qwen3")
NAMED = {OLLAMA.service: OLLAMA}


def sample(**fields: Any) -> BenchmarkSample:
    made = BenchmarkSample(
        sample_id="s1",
        service="gpu-1/ollama",
        asset_id="qwen3",
        workload="chat.short_reasoning/1",
        measured=WALL,
        request_count=20,
        correctness=0.9,
        first_token_seconds=0.2,
        prefill_tokens_per_second=900.0,
        decode_tokens_per_second=45.0,
    )
    return msgspec.structs.replace(made, **fields)


def offered(name: str) -> Service | None:
    return NAMED.get(name)


def test_a_good_sample_is_taken() -> None:
    check(sample(), offered, WALL)
    check(sample(correctness=None, first_token_seconds=None, prefill_tokens_per_second=None), offered, WALL)
    check(sample(correctness=0.0, measured=WALL + 100), offered, WALL)
    check(sample(correctness=1.0), offered, WALL)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_id", ""),
        ("sample_id", "x" * 129),
        ("sample_id", "a\nb"),
        ("service", ""),
        ("service", "gpu-2/ollama"),
        ("asset_id", ""),
        ("asset_id", "llama"),
        ("workload", ""),
        ("workload", "chat.short_reasoning"),
        ("workload", "Chat/1"),
        ("workload", "chat/1\n"),
        ("workload", "x" * 1_000_000 + "/1"),
        ("request_count", 0),
        ("measure_time", 0.0),
        ("measure_time", math.nan),
        ("measure_time", WALL + 3600),
        *(("correctness", value) for value in (-0.01, 1.01, math.nan, math.inf)),
        *(
            (name, value)
            for name in ("first_token_seconds", "prefill_tokens_per_second", "decode_tokens_per_second")
            for value in (-1.0, 0.0, math.nan, math.inf, -math.inf, 1e12)
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(field: str, value: Any) -> None:
    wrong = sample(**{"measured" if field == "measure_time" else field: value})
    with pytest.raises(Refusal) as refused:
        check(wrong, offered, WALL)
    assert refused.value.why is Why.FIELD_INVALID
    assert refused.value.details == {"field": field}
    assert len(refused.value.message) < 300


def test_a_sample_without_any_figure_is_refused() -> None:
    names = ("correctness", "first_token_seconds", "prefill_tokens_per_second", "decode_tokens_per_second")
    with pytest.raises(Refusal, match="nothing was measured"):
        check(sample(**dict.fromkeys(names)), offered, WALL)


def test_each_is_judged_by_itself() -> None:
    first, second, third = judge([sample(), sample(service="nobody/x"), sample(sample_id="s2")], offered, WALL)
    assert (first, third) == (None, None)
    assert second is not None
    assert second.details == {"field": "service"}


def test_too_many_are_refused_whole() -> None:
    assert judge([sample()] * MOST_SAMPLES, offered, WALL) == [None] * MOST_SAMPLES
    with pytest.raises(Refusal, match="at most 1000"):
        judge([sample()] * (MOST_SAMPLES + 1), offered, WALL)


def test_the_newest_of_each_workload() -> None:
    book = Benchmarks([sample(), sample(sample_id="s0", measured=WALL - 5)])
    assert [s.sample_id for s in book.newest("gpu-1/ollama", "qwen3")] == ["s1"]
    assert book.newest("gpu-1/ollama", "other") == ()
    assert book.take(sample(sample_id="s2", measured=WALL + 1)) == {"s1", "s2"}
    assert book.take(sample(sample_id="s3", measured=WALL)) == frozenset(), "older than the one that is known"
    assert book.take(sample(sample_id="s4", workload="tool_call/1")) == {"s4"}
    assert (book.get("s1"), book.get("s2")) == (None, sample(sample_id="s2", measured=WALL + 1))
    assert {s.sample_id for s in book} == {"s2", "s4"}
    assert book.forget_host("gpu") == frozenset()
    assert book.forget_host("gpu-1") == {"s2", "s4"}
    assert (list(book), book.newest("gpu-1/ollama", "qwen3")) == ([], ())


SAMPLES = st.builds(
    lambda number, host, asset, workload, measured: sample(
        sample_id=f"s{number}", service=f"h{host}/x", asset_id=f"m{asset}", workload=f"w/{workload}", measured=measured
    ),
    st.integers(0, 10**6),
    *[st.integers(0, 1)] * 3,
    st.floats(1, 1e9),
)


@given(st.lists(SAMPLES, max_size=12, unique_by=lambda s: s.sample_id), st.randoms())
def test_the_order_in_which_they_come_does_not_matter(samples: list[BenchmarkSample], chance: Any) -> None:
    straight = Benchmarks(samples)
    chance.shuffle(samples)
    other = Benchmarks(samples)
    assert set(straight) == set(other)
    wanted: dict[Any, BenchmarkSample] = {}
    for one in samples:
        key = one.service, one.asset_id, one.workload
        wanted[key] = max(wanted.get(key, one), one, key=lambda s: (s.measured, s.sample_id))
    assert set(other) == set(wanted.values())
    for service_name, asset_id, _ in wanted:
        found = other.newest(service_name, asset_id)
        assert set(found) == {s for s in wanted.values() if (s.service, s.asset_id) == (service_name, asset_id)}


def test_watchers_are_told_what_came_and_what_went() -> None:
    driver = Driver()
    assert driver.feed(e.SamplesStored(samples=(sample(),))) == [fx.Changed(benchmarks=frozenset({"s1"}))]
    newer = sample(sample_id="s2", measured=WALL + 9)
    assert driver.feed(e.SamplesStored(samples=(newer,))) == [fx.Changed(benchmarks=frozenset({"s1", "s2"}))]
    assert driver.feed(e.SamplesStored(samples=(sample(sample_id="s3", measured=1.0),))) == []
    assert driver.registry.benchmarks.newest("gpu-1/ollama", "qwen3") == (newer,)
