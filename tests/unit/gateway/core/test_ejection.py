from gateway.core.ejection import Ejections
from gateway.core.plan import Lane

A, B = Lane("a/e", "http://a"), Lane("b/e", "http://b")


def fail(e: Ejections, now: float) -> None:
    e.chosen(A, now)
    e.failed(A, now)
    e.left(A)


def test_out_at_the_first_failure_for_a_second_then_twice_as_long_up_to_thirty() -> None:
    e = Ejections()
    now = 100.0
    for span in (1, 2, 4, 8, 16, 30, 30):
        assert e.is_open(A, now)
        fail(e, now)
        assert e.opens_in(A, now) == span
        assert not e.is_open(A, now + span - 0.01)
        now += span
    assert e.is_open(B, now)


def test_half_open_lets_one_in_at_a_time() -> None:
    e = Ejections()
    fail(e, 0.0)
    assert e.is_open(A, 1.0)
    e.chosen(A, 1.0)
    assert not e.is_open(A, 1.0)
    e.left(A)  # the client left before anything was known
    assert e.is_open(A, 1.0)


def test_success_clears() -> None:
    e = Ejections()
    fail(e, 0.0)
    e.succeeded(A)
    assert e.is_open(A, 0.0)
    fail(e, 5.0)
    assert e.opens_in(A, 5.0) == 1.0


def test_a_burst_of_failures_counts_once() -> None:
    e = Ejections()
    for _ in range(50):
        e.failed(A, 0.0)
    assert e.opens_in(A, 0.0) == 1.0


def test_a_desperate_try_moves_it_to_the_back_of_the_queue() -> None:
    e = Ejections()
    e.failed(A, 0.0)
    e.failed(B, 0.1)
    assert e.since(A) < e.since(B)
    e.failed(A, 0.2)
    assert e.since(A) > e.since(B)
    assert e.ejected(0.3) == [A, B]


def test_lanes_that_nobody_asks_about_are_forgotten() -> None:
    e = Ejections()
    e.failed(A, 0.0)
    e.failed(B, 1000.0)
    assert e.out.keys() == {B}
