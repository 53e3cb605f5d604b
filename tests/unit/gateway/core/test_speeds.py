import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.speeds import (
    GUESSED_LENGTH,
    GUESSED_LOAD,
    GUESSED_PREFILL,
    GUESSED_TOKEN,
    Lengths,
    Pace,
    assume,
    slope,
)
from geniehive.rules.model import Speed


def test_nothing_known_is_a_guess() -> None:
    pace = Pace(1)
    assert (pace.used_token, pace.full, pace.step) == (GUESSED_TOKEN, GUESSED_TOKEN, 0.0)
    assert pace.per_prompt == 1 / GUESSED_PREFILL
    assert pace.used_load == GUESSED_LOAD
    assert pace.basis == "assumed"


def test_what_control_says_is_a_start_and_own_figures_count_for_more() -> None:
    pace = Pace(1)
    pace.tell(Speed(decode_tokens_per_second=50.0, prefill_tokens_per_second=2000.0, load_seconds=5.0), 0.0)
    assert (pace.used_token, pace.per_prompt, pace.used_load, pace.basis) == (0.02, 1 / 2000, 5.0, "control")
    pace.learn(1.0, 0.1, None, None)
    assert (pace.token, pace.basis) == (0.1, "learned")
    pace.learn(2.0, 0.2, None, None)
    assert pace.token == pytest.approx(0.12)
    pace.tell(Speed(decode_tokens_per_second=10.0), 3.0)
    assert pace.token == pytest.approx(0.12)


def test_control_knows_better_where_nothing_was_learned_for_long() -> None:
    pace = Pace(1)
    pace.learn(1.0, 1.0, None, None)
    pace.tell(Speed(decode_tokens_per_second=100.0), 62.0)
    assert pace.token == 0.01
    # The same once more is no news: what is learned meanwhile stays.
    pace.learn(63.0, 0.5, None, None)
    pace.tell(Speed(decode_tokens_per_second=100.0), 200.0)
    assert pace.token == 0.5


def test_a_price_for_loading_can_go_away() -> None:
    pace = Pace(1)
    pace.tell(Speed(cold_cost_seconds=3.0), 0.0)
    assert pace.cold_cost == 3.0
    pace.tell(Speed(load_seconds=2.0), 0.0)
    assert pace.cold_cost == 0.0


def test_prompts_are_read_faster_than_answers_are_written() -> None:
    pace = Pace(1)
    pace.learn(0.0, 0.05, None, None)
    assert pace.per_prompt == pytest.approx(0.05 / 25)
    pace.learn(0.0, None, 4000.0, None)
    assert pace.per_prompt == 1 / 4000


def test_more_slots_more_slope() -> None:
    assert [slope(n) for n in (1, 4, 64)] == [0.0, 0.30, 0.06]
    pace = Pace(4)
    pace.learn(0.0, 0.1, None, None)
    assert (pace.step, pace.full) == (pytest.approx(0.03), pytest.approx(0.19))
    pace.resize(1)
    assert (pace.step, pace.full) == (0.0, 0.1)


def test_who_lacks_figures_uses_those_of_the_others() -> None:
    known, other, third, unknown = Pace(1), Pace(1), Pace(1), Pace(1)
    for pace, token in ((known, 0.01), (other, 0.03), (third, 0.5)):
        pace.learn(0.0, token, None, None)
    known.learn(0.0, None, 5000.0, 4.0)
    assert assume((known, other, third, unknown)) is True
    assert (unknown.used_token, unknown.per_prompt, unknown.used_load) == (0.03, 1 / 5000, 4.0)
    assert (other.used_token, other.used_load) == (0.03, 4.0)
    assert unknown.basis == "assumed"
    assert assume((known,)) is False


def test_lengths_begin_at_what_control_says() -> None:
    lengths = Lengths()
    assert lengths.expected("r") == GUESSED_LENGTH
    assert lengths.expected("r", 400) == 400.0
    lengths.learn("r", 1000)
    assert 400 < lengths.expected("r") < 440


def test_lengths_are_learned_fast_at_first() -> None:
    lengths = Lengths()
    for tokens in (10, 20, 30):
        lengths.learn("r", tokens)
    assert lengths.expected("r") == pytest.approx(20)
    assert lengths.expected("other") == GUESSED_LENGTH


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=50))
def test_lengths_stay_among_what_was_seen(seen: list[int]) -> None:
    lengths = Lengths()
    for tokens in seen:
        lengths.learn("r", tokens)
    assert min(seen) - 1e-6 <= lengths.expected("r") <= max(seen) + 1e-6


def test_lengths_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.core.speeds._ROUTES_KEPT", 3)
    lengths = Lengths()
    for n in range(10):
        lengths.learn(f"r{n}", 5)
    assert len(lengths._lengths) == 3
    assert lengths.expected("r9") == 5.0
