from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.balance import Balance, Full
from gateway.core.plan import Choice, Plan, Pool
from geniehive.rules.operations import Operation
from tests.unit.gateway.builders import candidate, plan

A, B, C = candidate("a"), candidate("b"), candidate("c")


def ask(balance: Balance, asked: Plan, now: float = 0.0, tried: set[str] | None = None) -> str:
    choice = balance.choose(asked, tried or set(), now)
    assert isinstance(choice, Choice)
    balance.ended(balance.started(choice, now), now)
    return choice.candidate.host


@given(st.integers(1, 7), st.integers(0, 60))
def test_in_turn_even_to_within_one(endpoints: int, requests: int) -> None:
    balance, asked = Balance(), plan(tuple(candidate(f"h{n}") for n in range(endpoints)))
    counts = Counter(ask(balance, asked) for _ in range(requests))
    assert max(counts.values(), default=0) - min((counts.get(f"h{n}", 0) for n in range(endpoints)), default=0) <= 1


def test_a_tier_is_exhausted_before_the_next() -> None:
    balance, asked = Balance(), plan((A,), (B,))
    assert [ask(balance, asked) for _ in range(3)] == ["a", "a", "a"]
    balance.ejections.failed(A.lanes[0], 0.0)
    assert ask(balance, asked) == "b"
    assert ask(balance, asked, tried={A.endpoint}) == "b"


def test_turns_survive_updates_and_who_is_new_is_next() -> None:
    balance = Balance()
    assert ask(balance, plan((A, B))) == "a"
    assert ask(balance, plan((A, B))) == "b"
    assert ask(balance, plan((A, B))) == "a"
    assert [ask(balance, plan((A, B, C))) for _ in range(4)] == ["c", "b", "a", "c"]
    assert [ask(balance, plan((A, C))) for _ in range(2)] == ["a", "c"]


def test_the_ejected_are_passed_over_and_come_back() -> None:
    balance, asked = Balance(), plan((A, B))
    balance.ejections.failed(A.lanes[0], 0.0)
    assert [ask(balance, asked, 0.5) for _ in range(3)] == ["b", "b", "b"]
    assert ask(balance, asked, 1.0) == "a"


def test_when_all_are_ejected_the_one_that_failed_longest_ago_is_tried() -> None:
    balance, asked = Balance(), plan((A,), (B,))
    balance.ejections.failed(B.lanes[0], 0.0)
    balance.ejections.failed(A.lanes[0], 0.1)
    assert ask(balance, asked, 0.2) == "b"
    assert ask(balance, asked, 0.2, {B.endpoint}) == "a"
    assert balance.choose(asked, {A.endpoint, B.endpoint}, 0.2) is None
    assert balance.opens_in(asked, 0.2) == 0.8


def test_another_lane_of_the_same_endpoint() -> None:
    two = candidate("two", lanes=2)
    balance, asked = Balance(), plan((two,))
    balance.ejections.failed(two.lanes[0], 0.0)
    choice = balance.choose(asked, set(), 0.1)
    assert isinstance(choice, Choice)
    assert choice.lane == two.lanes[1]


def test_what_is_in_flight() -> None:
    balance, asked = Balance(), plan((A, B))
    first, second = balance.choose(asked, set(), 0.0), balance.choose(asked, set(), 0.0)
    assert isinstance(first, Choice)
    assert isinstance(second, Choice)
    flights = [balance.started(choice, 0.0) for choice in (first, first, second)]
    assert balance.in_flight == {A.endpoint: 2, B.endpoint: 1}
    for flight in flights:
        balance.ended(flight, 0.0)
    assert balance.in_flight == {}


def test_nobody() -> None:
    assert Balance().choose(plan(), set(), 0.0) is None
    assert Balance().opens_in(plan(), 0.0) is None


def test_the_load_of_names() -> None:
    balance = Balance()
    chat, other = balance.route("m", Operation.CHAT), balance.route("m", Operation.EMBEDDINGS)
    chat.in_flight += 2
    chat.waiting += 1
    assert balance.route("m", Operation.CHAT) is chat
    assert balance.routes() == [("m", Operation.CHAT, 2, 1)]
    other.waiting += 1
    assert len(balance.routes()) == 2


def test_names_without_load_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.core.balance._ROUTES_KEPT", 3)
    balance = Balance()
    used = balance.route("used", Operation.CHAT)
    used.in_flight += 1
    for n in range(10):
        balance.route(f"m{n}", Operation.CHAT)
    assert len(balance._routes) <= 4
    assert balance.route("used", Operation.CHAT) is used


def test_when_all_are_ejected_the_full_are_waited_for_all_the_same() -> None:
    full = candidate("full", limit=1)
    balance, asked = Balance(), plan((full,))
    choice = balance.choose(asked, set(), 0.0)
    assert isinstance(choice, Choice)
    flight = balance.started(choice, 0.0)
    balance.ejections.failed(full.lanes[0], 0.0)
    assert balance.choose(asked, set(), 0.1) == Full((Pool("full/e", 1),))
    balance.ended(flight, 0.2)
    assert isinstance(balance.choose(asked, set(), 0.2), Choice)


def test_who_is_left_out_is_told_until_it_is_half_open() -> None:
    balance, two = Balance(), candidate("a", lanes=2)
    assert balance.ejected(0.0) == []
    ask(balance, plan((two, B)))
    balance.ejections.failed(two.lanes[0], 0.0)
    balance.ejections.failed(B.lanes[0], 0.0)
    assert balance.ejected(0.5) == [B.endpoint], "a still has a lane"
    balance.ejections.failed(two.lanes[1], 0.5)
    assert balance.ejected(0.6) == [two.endpoint, B.endpoint]
    assert balance.ejected(1.2) == []
