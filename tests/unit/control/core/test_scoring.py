"""The terms of a match score."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.rules.model import BenchmarkSample, OffloadHint, RoutingPolicy, Speed
from geniehive_control.core import scoring
from geniehive_control.core.defaults import Weights
from geniehive_control.core.facts import Facts, Machine
from geniehive_control.core.scoring import Runtime
from tests.support.cluster import CHAT


def sample(workload: str = "chat.short_reasoning/1", **figures: float) -> BenchmarkSample:
    return BenchmarkSample(
        sample_id=workload,
        service="a/x",
        asset_id="m",
        workload=workload,
        measured=1.0,
        **figures,  # type: ignore[arg-type]
    )


def facts(family: str, *labels: tuple[str, str]) -> Facts:
    return Facts(
        operations=(CHAT,),
        hosted=False,
        family=family,
        context_tokens=None,
        abilities=(),
        lacking=(),
        loaded=None,
        machine=Machine(),
        labels=labels,
    )


@pytest.mark.parametrize(
    ("found", "value"),
    [
        (None, 0.0),
        (Runtime(), 0.0),
        (Runtime(loaded=True), 0.35),
        (Runtime(loaded=False), 0.0),
        (Runtime(p50_seconds=0.49), 0.30),
        (Runtime(p50_seconds=0.5), 0.20),
        (Runtime(p50_seconds=1.5), 0.10),
        (Runtime(p50_seconds=3.0), 0.05),
        (Runtime(tokens_per_second=40.0), 0.20),
        (Runtime(tokens_per_second=39.9), 0.10),
        (Runtime(tokens_per_second=19.9), 0.0),
        (Runtime(loaded=True, queued=1), 0.35),
        (Runtime(loaded=True, queued=2), 0.25),
        (Runtime(loaded=True, queued=5), 0.15),
        (Runtime(loaded=True, busy=True), 0.25),
        (Runtime(queued=9, busy=True), 0.0),
        (Runtime(loaded=True, p50_seconds=0.1, tokens_per_second=90.0), 0.85),
    ],
)
def test_runtime(found: Runtime | None, value: float) -> None:
    assert scoring.runtime(0.3, found).value == pytest.approx(value)


def test_text_is_the_share_of_the_task_s_words() -> None:
    asked = scoring.words(["Summarise this REPORT", "report, in German"])
    assert asked == {"summarise", "this", "report", "in", "german"}
    assert scoring.text(0.3, asked, scoring.words(["Report writer: German, English"])).value == 2 / 5
    assert scoring.text(0.3, frozenset(), frozenset({"x"})).value == 0.0


def test_benchmark() -> None:
    fast = sample(correctness=0.8, decode_tokens_per_second=20.0)
    assert scoring.quality([fast]) == pytest.approx(0.65 * 0.8 + 0.35 * 0.5)
    assert scoring.quality([sample(decode_tokens_per_second=80.0)]) == 1.0
    assert scoring.quality([sample(first_token_seconds=2.5)]) == 0.5
    assert scoring.quality([sample(correctness=0.4)]) == 0.4
    assert scoring.quality([sample(prefill_tokens_per_second=900.0)]) is None
    # Three requests weigh as much as three samples.
    two = [sample(correctness=1.0, request_count=3), sample("chat.other/1", correctness=0.0, request_count=1)]
    assert scoring.quality(two) == 0.75
    term = scoring.benchmark(0.25, [fast], ["chat.short_reasoning", "embeddings/1"])
    assert term.value == pytest.approx(0.45 * 0.5 + 0.55 * (0.65 * 0.8 + 0.35 * 0.5))
    assert term.signals["workload_overlap"] == 0.5
    # What was not asked for does not count, if something was.
    assert scoring.benchmark(0.25, [fast], ["embeddings/1"]).value == 0.0
    assert scoring.benchmark(0.25, two).value == 0.55 * 0.75


def test_what_is_preferred_may_say_more_than_the_family() -> None:
    policy = RoutingPolicy(preferred_families=("qwen3-coder", "qwen3"))
    coder = msgspec.structs.replace(facts("qwen3"), name="qwen3-coder-30b")
    assert [scoring.rank(policy, found) for found in (coder, facts("qwen3"), facts("llama3.2"))] == [0, 1, 2]


def test_family() -> None:
    policy = RoutingPolicy(preferred_families=("qwen3", "llama"), preferred_labels={"zone": "a", "disk": "fast"})
    assert scoring.family(0.15, policy, facts("qwen3.5")).value == 1.0
    assert scoring.family(0.15, policy, facts("llama3.2")).value == 0.5
    assert scoring.family(0.15, policy, facts("llama3.2", ("zone", "a"))).value == 0.75
    assert scoring.family(0.15, policy, facts("gemma3", ("zone", "a"), ("disk", "fast"))).value == 0.5
    assert scoring.family(0.15, policy, facts("gemma3")).value == 0.0
    assert scoring.family(0.15, RoutingPolicy(), facts("gemma3")).value == 0.5
    assert scoring.family(0.15, policy, None).value == 0.0


SHARES = st.none() | st.floats(0.0, 1.0)
FIGURES = st.none() | st.floats(min_value=1e-9, max_value=1e9)
SAMPLES = st.lists(
    st.builds(
        lambda correctness, first, decode, count: sample(
            correctness=correctness, first_token_seconds=first, decode_tokens_per_second=decode, request_count=count
        ),
        SHARES,
        FIGURES,
        FIGURES,
        st.integers(0, 10**9),
    ),
    max_size=6,
)
RUNTIMES = st.builds(
    Runtime,
    loaded=st.none() | st.booleans(),
    p50_seconds=FIGURES,
    tokens_per_second=FIGURES,
    queued=st.none() | st.integers(0, 10**6),
    busy=st.booleans(),
)


@given(SAMPLES, RUNTIMES, st.sampled_from([(), ("chat.short_reasoning",), ("x", "y")]))
def test_no_value_and_no_score_leaves_its_range(
    samples: list[BenchmarkSample], runtime: Runtime, workloads: tuple[str, ...]
) -> None:
    weights = Weights()
    measured = scoring.quality(samples)
    assert measured is None or 0.0 <= measured <= 1.0
    asked, own = scoring.words(["a b"]), scoring.words(["a"])
    policy = RoutingPolicy(preferred_families=("q",), preferred_labels={str(n): "" for n in range(9)})
    terms = (
        scoring.text(weights.role_text, asked, own),
        scoring.runtime(weights.role_runtime, runtime),
        scoring.benchmark(weights.role_benchmark, samples, workloads),
        scoring.family(weights.role_family, policy, facts("q", *((str(n), "") for n in range(9)))),
    )
    assert all(0.0 <= term.value <= 1.0 for term in terms)
    assert 0.0 <= scoring.score(terms) <= 1.0
    weight, _ = scoring.weight(terms)
    assert 0 <= weight <= 1000


def test_weights_of_each_kind_add_up() -> None:
    weights = Weights()
    for kind in ("role", "service"):
        parts = [getattr(weights, name) for name in Weights.__struct_fields__ if name.startswith(kind)]
        assert sum(parts) == pytest.approx(1.0)


def test_a_hint_says_what_it_is_based_on() -> None:
    measured = sample(correctness=0.9, decode_tokens_per_second=45.0)
    found = scoring.hint([measured], Speed(decode_tokens_per_second=45.0))
    assert found == OffloadHint(suitability=0.95, basis="benchmark chat.short_reasoning/1, 45 tok/s")
    assert scoring.hint([], Speed(decode_tokens_per_second=10.0)) == OffloadHint(suitability=0.25, basis="10 tok/s")
    assert scoring.hint([sample("embeddings/1", correctness=1.0)], None) is None
    assert scoring.best_hint({"a": found}, ["b", "a"]) == found
