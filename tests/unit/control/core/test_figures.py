"""What is learned of endpoints: medians of what was seen, rounded, and at rest as long as it is nearly right."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.rules.histogram import BOUNDS
from geniehive.rules.model import ServiceLoad, Speed
from geniehive_control.core import figures as module
from geniehive_control.core.figures import HALF_LIFE, SETTLED, Changes, EndpointOutcomes, Figures, band

E = "endpoint/h/s/m"


def seen(decode: float = 40.0, *, tokens: int = 400, endpoint: str = E, **more: object) -> EndpointOutcomes:
    """Requests that wrote so many tokens, at this speed."""
    row = EndpointOutcomes(endpoint, "m", "g1", decode_tokens=tokens, decode_seconds=tokens / decode)
    return row._replace(**more)  # type: ignore[arg-type]


def lasting(seconds: float, count: int) -> tuple[int, ...]:
    counts = [0] * (len(BOUNDS) + 1)
    counts[next(n for n, bound in enumerate(BOUNDS) if seconds <= bound)] = count
    return tuple(counts)


def test_nothing_is_known_of_what_was_not_seen() -> None:
    figures = Figures()
    assert (figures.speed(E), figures.decode(E), figures.latency_p50(E)) == (None, None, None)
    assert (figures.expected("m"), figures.queue("h/s"), len(figures)) == (None, None, 0)
    assert figures.settle(0.0) == Changes({}, {}, {})


def test_speeds_are_told_in_bands() -> None:
    figures = Figures()
    row = seen(43.7, prefill_tokens=9000, prefill_seconds=9000 / 1234.0, cold_starts=2, cold_start_seconds=13.0)
    changes = figures.take([row], 10.0)
    told = Speed(prefill_tokens_per_second=1200.0, decode_tokens_per_second=44.0, load_seconds=6.5)
    assert changes.speeds == {E: told}
    assert figures.speed(E) == told
    assert figures.decode(E) == pytest.approx(43.7)
    assert list(figures) == [E]


def test_too_little_tells_nothing() -> None:
    figures = Figures()
    few = seen(tokens=20, prefill_tokens=100, prefill_seconds=0.1, duration=lasting(1.0, 2), with_tokens=2)
    assert figures.take([few], 1.0) == Changes({}, {}, {})
    assert figures.speed(E) is None
    changes = figures.take([few, few], 1.0)
    assert changes.speeds[E] == Speed(decode_tokens_per_second=40.0), "prompts were too short to tell anything"
    assert changes.latencies.keys() == {E}
    assert changes.expected.keys() == {"m"}


def test_a_figure_that_nobody_knew_is_told_at_once() -> None:
    figures = Figures()
    figures.take([seen(40.0)], 0.0)
    changes = figures.take([seen(20.0, cold_starts=1, cold_start_seconds=5.0)], 1.0)
    assert changes.speeds[E] == Speed(decode_tokens_per_second=40.0, load_seconds=5.0), "the other one must wait"


def test_a_change_is_told_after_a_minute_even_if_nothing_more_comes() -> None:
    figures = Figures()
    figures.take([seen(40.0)], 0.0)
    assert figures.take([seen(10.0, tokens=4000)], 1.0).speeds == {}
    assert figures.settle(SETTLED - 1).speeds == {}
    speed = figures.settle(SETTLED).speeds[E]
    assert speed.decode_tokens_per_second == band(4400 / (10 + 400))
    assert figures.settle(10 * SETTLED) == Changes({}, {}, {}), "it is right now"


@given(seed=st.integers(0, 2**32), spread=st.floats(0.0, 0.5))
def test_steady_noise_leaves_tables_at_rest(seed: int, spread: float) -> None:
    source = random.Random(seed)
    figures = Figures()
    told: list[float] = []
    for number in range(720):
        now = number * 5.0
        speed = 40.0 * (1 + source.uniform(-spread, spread))
        row = seen(speed, tokens=source.randrange(50, 500), duration=lasting(source.uniform(1.7, 3.1), 3))
        changes = figures.take([row._replace(with_tokens=3, completion_tokens=source.randrange(100, 500))], now)
        told += [now] * bool(changes.speeds or changes.latencies)
    assert all(later - earlier >= SETTLED for earlier, later in itertools.pairwise(told))
    assert len(told) <= 4, "in an hour"
    found = figures.speed(E)
    assert found is not None
    assert found.decode_tokens_per_second == pytest.approx(40.0, rel=0.3)


def test_what_was_seen_fades_with_time() -> None:
    figures = Figures()
    figures.take([seen(40.0, tokens=40_000)], 0.0)
    figures.take([seen(10.0, tokens=10_000)], HALF_LIFE)
    # Half of the first is left.
    assert figures.decode(E) == pytest.approx(30_000 / (500 + 1000))


def test_who_rests_keeps_a_weak_opinion() -> None:
    figures = Figures()
    figures.take([seen(40.0, tokens=1_000_000, duration=lasting(1.0, 1000))], 0.0)
    week = 7 * 86400.0
    assert figures.decode(E) == pytest.approx(40.0)
    figures.take([seen(10.0, tokens=50)], week)
    assert 30.0 < (figures.decode(E) or 0.0) < 40.0, "one request does not turn everything over"
    figures.take([seen(10.0, tokens=5000)], week)
    assert (figures.decode(E) or 0.0) < 12.0, "some do"


def test_a_benchmark_speaks_until_requests_do() -> None:
    figures = Figures()
    changes = figures.benchmarked(E, 1000.0, 80.0, 0.0)
    assert changes.speeds[E] == Speed(prefill_tokens_per_second=1000.0, decode_tokens_per_second=80.0)
    assert figures.benchmarked(E, None, None, 1.0).speeds == {}, "of what was not measured this stays"
    figures.take([seen(20.0, tokens=60)], 2.0)
    assert 40.0 < (figures.decode(E) or 0.0) < 80.0
    figures.take([seen(20.0, tokens=20_000)], 3.0)
    assert figures.decode(E) == pytest.approx(20.0, rel=0.02)


def test_a_restart_takes_over_an_opinion() -> None:
    figures = Figures()
    day = seen(
        40.0, tokens=5_000_000, duration=lasting(1.0, 10_000), with_tokens=10_000, completion_tokens=3_000_000,
        cold_starts=100, cold_start_seconds=500.0,
    )  # fmt: skip
    changes = figures.restore([day], 0.0)
    assert changes.speeds[E] == Speed(decode_tokens_per_second=40.0, load_seconds=5.0)
    assert changes.expected == {"m": 300}
    assert changes.latencies.keys() == {E}
    # Which the first minutes may change.
    figures.take([seen(10.0, tokens=20_000, with_tokens=1000, completion_tokens=1000)], 1.0)
    assert (figures.decode(E) or 0.0) < 12.0
    assert figures.settle(SETTLED).expected["m"] < 20


def test_latency_is_the_median() -> None:
    figures = Figures()
    changes = figures.take([seen(duration=lasting(0.3, 9)), seen(duration=lasting(100.0, 4))], 0.0)
    found = figures.latency_p50(E)
    assert found is not None
    assert 0.2 <= found <= 0.4
    assert changes.latencies == {E: band(found)}


def test_lengths_of_answers_are_learned_by_name() -> None:
    figures = Figures()
    other = seen(endpoint="endpoint/h/s/n", with_tokens=5, completion_tokens=500)
    changes = figures.take([seen(with_tokens=5, completion_tokens=1500), other, other._replace(model="n")], 0.0)
    assert changes.expected == {"m": 200, "n": 100}
    assert figures.expected("m") == 200
    nameless = figures.take([other._replace(model="")], 0.0)
    assert nameless.expected == {}


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_NAMES", 3)
    figures = Figures()
    for number in range(5):
        figures.take([seen(with_tokens=5, completion_tokens=50, model=f"m{number}"), seen(model="m1")], float(number))
    assert [figures.expected(f"m{number}") for number in range(5)] == [None, None, 10, 10, 10]


def test_what_is_forgotten_is_gone() -> None:
    figures = Figures()
    figures.take([seen(40.0)], 0.0)
    figures.take([seen(5.0, tokens=4000)], 1.0)
    figures.forget(E)
    assert figures.speed(E) is None
    assert figures.settle(1000.0) == Changes({}, {}, {})


def test_a_queue_is_as_the_engine_told_last() -> None:
    loads = {"h/s": ServiceLoad(service="h/s", queued=3), "h/t": ServiceLoad(service="h/t", running=1)}
    figures = Figures(loads.get)
    assert [figures.queue(name) for name in ("h/s", "h/t", "h/u")] == [3, None, None]


@given(value=st.floats(1e-6, 1e9))
def test_a_band_is_near(value: float) -> None:
    assert band(value) == pytest.approx(value, rel=0.051)
    assert band(band(value)) == band(value)
