from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.rules.renewal import FIRST_PAUSE, LONGEST_PAUSE, Held, Renewal, due_in

DAY = 86400.0
HELD = Held(cluster_id="c", peer_id="h", serial="1", renew_in=100.0)


def told(held: Held | None = None) -> Renewal:
    made = Renewal(wanted=True)
    made.hold(held, 0.0)
    made.told()
    return made


def test_without_one_it_asks_as_soon_as_control_said_whom_to_believe() -> None:
    renewal = Renewal(wanted=True)
    assert renewal.at("c", "h") is None
    renewal.told()
    assert renewal.at("c", "h") == -inf


def test_what_is_of_no_use_is_not_asked_for() -> None:
    renewal = Renewal(wanted=False)
    renewal.told()
    assert renewal.at("c", "h") is None


def test_one_that_fits_is_renewed_in_time() -> None:
    assert told(HELD).at("c", "h") == 100.0


@pytest.mark.parametrize("name", [("c", "h-2"), ("c-2", "h")])
def test_one_of_another_name_is_replaced_at_once(name: tuple[str, str]) -> None:
    assert told(HELD).at(*name) == -inf


def test_unanswered_it_is_asked_for_again_after_growing_pauses() -> None:
    renewal = told()
    now, pauses = 0.0, []
    for _ in range(9):
        renewal.ask(now)
        at = renewal.at("c", "h")
        assert at is not None
        pauses.append(at - now)
        now = at
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


def test_an_answer_ends_the_asking() -> None:
    renewal = told()
    renewal.ask(0.0)
    renewal.hold(HELD, 5.0)
    assert renewal.at("c", "h") == 105.0
    assert renewal.name == "h"


def test_a_renewed_one_of_the_same_life_is_news_and_the_same_is_not() -> None:
    renewal = told(HELD)
    renewal.hold(HELD, 50.0)
    assert renewal.at("c", "h") == 100.0
    renewal.hold(Held(cluster_id="c", peer_id="h", serial="2", renew_in=100.0), 50.0)
    assert renewal.at("c", "h") == 150.0


def test_trust_told_again_does_not_hurry_an_answer() -> None:
    renewal = told()
    renewal.ask(0.0)
    renewal.told()
    renewal.hold(None, 1.0)
    assert renewal.at("c", "h") == FIRST_PAUSE


def test_with_the_stream_a_request_is_lost() -> None:
    renewal = told()
    renewal.ask(0.0)
    renewal.lost()
    assert renewal.at("c", "h") is None
    renewal.told()
    assert renewal.at("c", "h") == -inf


@pytest.mark.parametrize(
    ("wall", "expected"),
    [
        (0.0, 10 * DAY),  # just issued
        (4 * DAY, 6 * DAY),
        (11 * DAY, 0.0),
        (40 * DAY, 0.0),
        (-5 * 3600.0, 10 * DAY),  # a clock that is behind
        (-300 * DAY, 10 * DAY),  # or was never set
    ],
)
def test_due_after_a_third_of_its_life_by_its_own_dates(wall: float, expected: float) -> None:
    assert due_in(-2 * DAY, 30 * DAY, 2 * DAY, wall) == expected


@given(*[st.floats(-1e9, 1e9)] * 3)
def test_no_clock_gives_more_than_a_third_or_less_than_nothing(begin: float, life: float, wall: float) -> None:
    assert 0.0 <= due_in(begin, begin + life, 0.0, wall) <= max(0.0, abs(life)) / 3 + 1
