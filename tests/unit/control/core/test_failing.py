"""What gateways' outcomes say of services."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from geniehive_control.core import failing
from geniehive_control.core.failing import FIRST_OUT, LEAST, LONGEST_OUT, REMEMBERED, TRIAL, WINDOW, Failing, service_of


class Row(NamedTuple):
    endpoint: str = "endpoint/b/ollama/qwen3:8b"
    attempts: int = 0
    connect: int = 0
    upstream: int = 0
    timeout: int = 0
    cut: int = 0


NAME = "b/ollama"
BAD = Row(attempts=LEAST, upstream=LEAST)


def fresh(answering: bool = True) -> Failing:
    return Failing(lambda service: answering)


def test_whose_an_endpoint_is() -> None:
    assert service_of("endpoint/b/ollama/Qwen/Qwen3-8B") == "b/ollama"
    assert service_of("") is None
    assert service_of("endpoint/b") is None


def test_half_of_five_within_half_a_minute() -> None:
    f = fresh()
    assert f.take([Row(attempts=LEAST - 1, upstream=LEAST - 1)], 0.0) == set()
    assert f.out(NAME) == ""
    assert f.take([Row(attempts=2, cut=1)], WINDOW - 1) == {NAME}
    assert f.out(NAME) == "5 of the last 6 requests that gateways sent it failed"
    assert f.due == WINDOW - 1 + FIRST_OUT


def test_what_was_longer_ago_does_not_count() -> None:
    f = fresh()
    f.take([Row(attempts=4, upstream=4)], 0.0)
    assert f.take([Row(attempts=4, upstream=4)], WINDOW) == set()


def test_less_than_half_is_no_reason() -> None:
    f = fresh()
    assert f.take([Row(attempts=100, timeout=20, cut=20)], 0.0) == set()


def test_all_gateways_count_together() -> None:
    f = fresh()
    assert f.take([Row(attempts=2, timeout=2)], 0.0) == set()
    assert f.take([Row(attempts=3, timeout=2)], 1.0) == {NAME}


def test_connections_that_fail_count_where_control_does_not_get_either() -> None:
    rows = [Row(attempts=9, connect=9)]
    assert fresh(answering=True).take(rows, 0.0) == set()
    assert fresh(answering=False).take(rows, 0.0) == {NAME}


def test_one_bad_model_does_not_take_out_its_service() -> None:
    f = fresh()
    bad = Row("endpoint/b/ollama/bad", attempts=50, upstream=50)
    good = Row("endpoint/b/ollama/good", attempts=10)
    assert f.take([bad, good], 0.0) == set()
    assert f.take([bad._replace(endpoint="endpoint/b/ollama/worse")], 100.0) == {NAME}


def test_after_its_time_it_is_on_trial_and_one_success_brings_it_back() -> None:
    f = fresh()
    f.take([BAD], 0.0)
    assert f.tick(FIRST_OUT) == {NAME}
    assert (f.out(NAME), bool(f.trial(NAME))) == ("", True)
    assert f.take([Row(attempts=1)], FIRST_OUT + 1) == {NAME}
    assert f.trial(NAME) == ""


def test_one_failure_on_trial_and_it_is_out_for_twice_as_long() -> None:
    f = fresh()
    now = 0.0
    f.take([BAD], now)
    for span in (FIRST_OUT, 20, 40, 80, 160, LONGEST_OUT, LONGEST_OUT):
        assert f.due == now + span
        now += span
        assert f.tick(now) == {NAME}
        assert f.take([Row(attempts=1, timeout=1)], now) == {NAME}
        assert f.out(NAME)


def test_what_is_reported_of_the_time_before_changes_nothing_while_it_is_out() -> None:
    f = fresh()
    f.take([BAD], 0.0)
    assert f.take([BAD], 1.0) == set()
    assert f.due == FIRST_OUT


def test_a_trial_without_requests_ends_and_earlier_ones_are_forgotten_in_the_end() -> None:
    f = fresh()
    f.take([BAD], 0.0)
    f.tick(FIRST_OUT)
    assert f.tick(FIRST_OUT + TRIAL) == {NAME}
    assert f.trial(NAME) == ""
    # Known as one that failed before.
    f.take([BAD], 100.0)
    assert f.due == 100.0 + 2 * FIRST_OUT
    f.tick(120.0)
    f.tick(180.0)
    assert f.tick(100.0 + REMEMBERED) == set()
    assert [f.due] == [None]
    f.take([BAD], 1000.0)
    assert [f.due] == [1000.0 + FIRST_OUT]


def test_who_was_broken_and_is_well_again_is_tried_at_once() -> None:
    f = fresh()
    f.take([BAD], 0.0)
    assert f.recovered(NAME, 2.0)
    assert f.trial(NAME)
    assert not f.recovered(NAME, 3.0)
    assert not f.recovered("x/y", 3.0)


def test_who_is_away_is_forgotten() -> None:
    f = fresh()
    f.take([BAD], 0.0)
    f.drop(NAME)
    assert f.out(NAME) == ""
    assert f.tick(FIRST_OUT) == set()
    assert f.due is None


def test_refusals_are_no_failures() -> None:
    f = fresh()
    assert f.take([Row(attempts=1000)], 0.0) == set()
    assert f.take([Row(attempts=0, upstream=0), Row("", attempts=9, upstream=9)], 0.0) == set()


@given(
    st.lists(
        st.tuples(st.floats(0, 40), st.integers(0, 9), st.integers(0, 9)).filter(lambda step: step[2] <= step[1]),
        max_size=30,
    )
)
def test_nobody_is_out_for_less_than_half_nor_for_longer_than_the_longest(
    steps: list[tuple[float, int, int]],
) -> None:
    f = fresh()
    now = 0.0
    told: list[tuple[float, int, int]] = []
    for passed, attempts, failed in steps:
        now += passed
        while f.due is not None and f.due <= now:
            f.tick(f.due)
        f.take([Row(attempts=attempts, upstream=failed)], now)
        told.append((now, attempts, failed))
        all_, bad = (sum(column) for column in list(zip(*(t for t in told if t[0] > now - WINDOW), strict=True))[1:])
        enough = all_ >= LEAST and bad >= failing.SHARE * all_
        if f.due is None:
            assert not enough
        else:
            assert f.due <= now + max(LONGEST_OUT, REMEMBERED)
            if len(told) == 1:
                assert enough
