import random

from hypothesis import given, settings
from hypothesis import strategies as st

from geniehive.kit.backoff import Backoff


class Highest(random.Random):
    def random(self) -> float:
        return 1.0


class Lowest(random.Random):
    def random(self) -> float:
        return 0.0


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff(0.2, 3.0, Highest())
    assert [round(backoff.next(), 6) for _ in range(6)] == [0.2, 0.4, 0.8, 1.6, 3.0, 3.0]


def test_jitter_takes_at_most_half() -> None:
    backoff = Backoff(0.2, 3.0, Lowest())
    assert [round(backoff.next(), 6) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.5, 1.5]


def test_a_success_begins_anew() -> None:
    backoff = Backoff(0.2, 3.0, Highest())
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.next() == 0.2


def test_the_longest_at_once() -> None:
    backoff = Backoff(0.2, 3.0, Highest())
    backoff.most()
    assert [backoff.next(), backoff.next()] == [3.0, 3.0]
    backoff.reset()
    assert backoff.next() == 0.2


@settings(deadline=None)
@given(st.integers(0, 5000))
def test_never_beyond_its_bounds(attempts: int) -> None:
    backoff = Backoff(0.2, 3.0)
    for _ in range(attempts):
        assert 0.1 <= backoff.next() <= 3.0


def test_two_peers_do_not_come_back_at_once() -> None:
    assert Backoff().next() != Backoff().next()
