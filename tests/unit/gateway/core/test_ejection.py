from gateway.core.ejection import STRIKES, Ejections
from gateway.core.plan import Lane
from tests.unit.gateway.builders import candidate

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


def test_an_endpoint_is_out_after_three_failures_in_a_row() -> None:
    e = Ejections()
    e.strike("endpoint/a/e/m", 0.0)
    e.strike("endpoint/a/e/m", 0.0)
    assert e.is_open("endpoint/a/e/m", 0.0)
    e.served("endpoint/a/e/m")
    for _ in range(STRIKES):
        assert e.is_open("endpoint/a/e/m", 0.0)
        e.strike("endpoint/a/e/m", 0.0)
    assert not e.is_open("endpoint/a/e/m", 0.9)
    assert e.ejected(0.5) == ["endpoint/a/e/m"]
    assert e.is_open("endpoint/b/e/m", 0.0)
    assert not e.struck


def test_half_open_one_failure_is_enough_and_one_success_too() -> None:
    e = Ejections()
    for _ in range(STRIKES):
        e.strike("x", 0.0)
    for span in (2, 4, 8, 16, 30, 30):
        now = e.out["x"].until
        e.chosen("x", now)
        assert not e.is_open("x", now)
        e.strike("x", now)
        e.left("x")
        assert e.opens_in("x", now) == span
    e.served("x")
    assert not e.out


def test_a_candidate_whose_endpoint_is_out_has_no_open_lane() -> None:
    e, a = Ejections(), candidate("a", lanes=2)
    e.failed(a.lanes[0], 0.0)
    assert e.open_lane(a, (), 0.0) == a.lanes[1]
    for _ in range(STRIKES):
        e.strike(a.endpoint, 0.0)
    assert e.open_lane(a, (), 0.0) is None
    # Who has begun with it goes on with it.
    assert e.open_lane(a, (a.lanes[0],), 0.0) == a.lanes[1]


def test_who_is_on_trial_is_tried_by_one_at_a_time() -> None:
    e = Ejections()
    e.trial("x", 5.0)
    assert e.is_open("x", 5.0)
    e.chosen("x", 5.0)
    assert not e.is_open("x", 5.0)
    e.strike("x", 5.0)
    assert e.opens_in("x", 5.0) == 2.0
    e.trial("x", 5.5)
    assert not e.is_open("x", 5.5), "its own experience is newer"


def test_endpoints_that_failed_once_are_remembered_in_a_bounded_number() -> None:
    e = Ejections()
    for number in range(10_100):
        e.strike(f"endpoint/{number}", 0.0)
    assert len(e.struck) == 10_000
