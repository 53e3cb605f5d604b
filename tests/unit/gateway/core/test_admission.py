"""Limits and turns, whatever happens in whatever order."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.admission import Admission, Ticket
from gateway.core.attempt import Attempt
from gateway.core.balance import Balance
from gateway.core.budget import RetryBudget
from gateway.core.plan import Candidate, Plan, Pool
from gateway.core.trying import ENDED, SERVED, START, WOKEN, Answered, Fail, Forward, Lost, Try, Wait
from geniehive.rules.operations import Operation
from tests.unit.gateway.builders import candidate, plan


def limited(host: str, limit: int, model: str = "m") -> Candidate:
    """Models of one host share its limit."""
    return msgspec.structs.replace(candidate(host, limit=limit), endpoint=f"endpoint/{host}/e/{model}")


class Shop:
    """Requests under way, and what must be so after every step. raise_to: what limits become at "raise"."""

    def __init__(self, limits: list[int], raise_to: int) -> None:
        self.balance = Balance(Admission(wait=10.0, most=6))
        self.limits = limits
        self.raise_to = raise_to
        self.budget = RetryBudget()
        self.now = 0.0
        self.running: list[Attempt] = []
        # In the order in which they came.
        self.waiting: list[tuple[Ticket, Attempt]] = []

    def plan(self, shape: int) -> Plan:
        a, b, c = (limited(host, limit) for host, limit in zip("abc", self.limits, strict=True))
        a2 = limited("a", self.limits[0], "other")
        return [plan((a,)), plan((a, b)), plan((a,), (b, c)), plan((a2, c)), plan((a, a2))][shape]

    def took(self, attempt: Attempt, effect: Any) -> None:
        match effect:
            case Try() | Forward():
                self.running.append(attempt)
            case Wait(_, ticket):
                assert ticket is not None
                self.waiting.append((ticket, attempt))
            case Fail():
                self.end(attempt)

    def end(self, attempt: Attempt, event: Any = ENDED) -> None:
        self.mind_the_order(lambda: attempt.handle(event, self.now))

    def step(self, what: str, number: int) -> None:
        match what:
            case "come":
                attempt = Attempt("m", Operation.CHAT, self.plan(number % 5), self.balance, self.budget)
                effect = self.mind_the_order(lambda: attempt.handle(START, self.now))
                self.took(attempt, effect)
            case "serve" | "leave" | "lose" if self.running:
                attempt = self.running.pop(number % len(self.running))
                if what == "lose":
                    self.took(attempt, self.mind_the_order(lambda: attempt.handle(Lost("reset"), self.now)))
                    return
                if what == "serve":
                    attempt.handle(Answered(200), self.now)
                self.end(attempt, SERVED if what == "serve" else ENDED)
            case "give up" | "wake" if self.waiting:
                _, attempt = self.waiting.pop(number % len(self.waiting))
                if what == "give up":
                    self.end(attempt)
                else:  # because a turn came, or because its time is over
                    self.took(attempt, self.mind_the_order(lambda: attempt.handle(WOKEN, self.now)))
            case "raise":
                self.limits = [max(limit, self.raise_to) for limit in self.limits]
            case "pass time":
                self.now += 1.0

    def mind_the_order(self, act: Any) -> Any:
        before = [ticket for ticket, _ in self.waiting if ticket.flight is None]
        done = act()
        still = [ticket for ticket, _ in self.waiting if ticket.flight is None]
        for ticket in before:
            if ticket.flight is not None:
                candidate = ticket.flight.choice.candidate
                if candidate.endpoint in self.balance.ejections.out:
                    continue  # who has another endpoint waits for that
                pool = candidate.pool
                assert pool is not None
                earlier = still[: sum(before.index(other) < before.index(ticket) for other in still)]
                assert not [t for t in earlier if self.may_use(t, pool)], "who came first must go first"
        return done

    def may_use(self, ticket: Ticket, pool: Pool) -> bool:
        """Whether it waits there for an endpoint that is not ejected."""
        candidates = [c for tier in ticket.plan.tiers for c in tier.candidates if c.endpoint not in ticket.tried]
        there = [c for c in candidates if c.pool is not None and c.pool.key == pool.key]
        out = self.balance.ejections.out
        return pool.key in ticket.pools and any(c.endpoint not in out for c in there)

    def check(self) -> None:
        held = len(self.running) + sum(ticket.flight is not None for ticket, _ in self.waiting)
        assert sum(self.balance.in_flight.values()) == held
        admission = self.balance.admission
        assert admission.waiting == sum(ticket.flight is None for ticket, _ in self.waiting) <= 6
        loads = [(i, w) for _, _, i, w in self.balance.routes()]
        assert loads in ([], [(len(self.running), len(self.waiting))])
        for host, limit in zip("abc", self.limits, strict=True):
            assert admission.running(Pool(f"{host}/e", limit)) <= limit


STEPS = st.lists(
    st.tuples(st.sampled_from(["come"] * 4 + ["serve", "leave", "lose", "give up", "wake", "raise", "pass time"]),
              st.integers(0, 100)),
    min_size=20, max_size=80,
)  # fmt: skip
LIMITS = st.lists(st.integers(1, 3), min_size=3, max_size=3)


@given(LIMITS, st.integers(1, 4), STEPS)
def test_limits_hold_and_the_order_is_kept(limits: list[int], raise_to: int, steps: list[tuple[str, int]]) -> None:
    shop = Shop(limits, raise_to)
    for what, number in steps:
        shop.step(what, number)
        shop.check()


@given(LIMITS, st.integers(1, 4), STEPS)
def test_nobody_who_waits_is_forgotten(limits: list[int], raise_to: int, steps: list[tuple[str, int]]) -> None:
    """When nobody comes any more and all who run end, all who wait get their turns, without their time being over."""
    shop = Shop(limits, raise_to)
    for what, number in steps:
        shop.step(what, number)
    while shop.running or shop.waiting:
        woken = [n for n, (ticket, _) in enumerate(shop.waiting) if ticket.flight is not None]
        assert shop.running or woken, "they would wait for ever"
        shop.step("wake", woken[0]) if woken else shop.step("serve", 0)
        shop.check()
    assert shop.balance.in_flight == {}
    assert shop.balance.routes() == []


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40))
def test_without_limits_nobody_waits(shapes: list[int]) -> None:
    balance, budget = Balance(), RetryBudget()
    a, b = candidate("a"), limited("b", 1)
    for shape in shapes:
        asked = [plan((a,)), plan((a, b)), plan((b,), (a,))][shape]
        assert isinstance(Attempt("m", Operation.CHAT, asked, balance, budget).handle(START, 0.0), Try)
    assert balance.admission.running(Pool("b/e", 1)) <= 1


def test_a_lane_that_opens_again_goes_to_who_waits_for_it_first() -> None:
    """Nobody who runs wakes them: the next who comes does."""
    balance, budget = Balance(), RetryBudget()
    a, b = limited("a", 1), limited("b", 1)

    def come(asked: Plan, now: float) -> Any:
        return Attempt("m", Operation.CHAT, asked, balance, budget).handle(START, now)

    assert isinstance(come(plan((b,)), 0.0), Try)
    balance.ejections.failed(a.lanes[0], 0.0)
    waits = come(plan((a, b)), 0.0)  # for b, since a is out
    assert isinstance(waits, Wait)
    assert waits.ticket is not None
    assert come(plan((a,)), 0.5).choice.candidate is a  # for want of anything better
    assert isinstance(come(plan((a, b)), 5.0), Wait)
    assert waits.ticket.flight is None


def test_who_waits_where_nobody_can_serve_any_more_waits_where_somebody_can() -> None:
    balance, budget = Balance(), RetryBudget()
    a, b = limited("a", 1), limited("b", 1)

    def come(asked: Plan, now: float) -> tuple[Attempt, Any]:
        attempt = Attempt("m", Operation.CHAT, asked, balance, budget)
        return attempt, attempt.handle(START, now)

    first, _ = come(plan((a,)), 0.0)
    balance.ejections.failed(b.lanes[0], 0.0)
    _, waits = come(plan((a, b)), 0.5)  # for a alone, since b is out
    assert isinstance(waits, Wait)
    assert waits.ticket is not None
    second, _ = come(plan((b,)), 0.6)  # for want of anything better
    second.handle(Answered(200), 0.7)
    balance.ejections.failed(a.lanes[0], 0.8)
    first.handle(ENDED, 0.9)
    ticket = waits.ticket
    assert not ticket.flight
    second.handle(SERVED, 1.0)
    assert [ticket.flight.choice.candidate if ticket.flight else None] == [b]


def test_a_limit_that_was_raised_lets_in_who_waits_before_who_comes() -> None:
    balance, budget = Balance(), RetryBudget()

    def come(limit: int) -> Any:
        return Attempt("m", Operation.CHAT, plan((limited("a", limit),)), balance, budget).handle(START, 0.0)

    assert isinstance(come(1), Try)
    first, second = come(1), come(1)
    assert isinstance(come(2), Wait)
    assert first.ticket.flight is not None
    assert second.ticket.flight is None


@pytest.mark.parametrize(
    ("durations", "ahead", "seconds"), [([], 0, 5.0), ([8.0], 0, 4.0), ([8.0], 3, 16.0), ([8.0, 3.0], 0, 3.5)]
)
def test_when_a_turn_may_come(durations: list[float], ahead: int, seconds: float) -> None:
    """By what requests took: a limit of two gives two turns per duration."""
    admission, pool = Admission(), Pool("a/e", 2)
    for duration in durations:
        admission.took(pool)
        admission.gave_back(pool, duration)
    admission.took(pool)
    admission.gave_back(pool, None)  # who was not answered to the end says nothing
    for _ in range(ahead):
        assert admission.enqueue(Ticket(plan(), set(), [pool]))
    assert admission.free_in([pool, pool]) == pytest.approx(seconds)


def test_endpoints_that_work_side_by_side_give_turns_sooner() -> None:
    admission, pools = Admission(), [Pool("a/e", 1), Pool("b/e", 1)]
    for pool in pools:
        admission.took(pool)
        admission.gave_back(pool, 10.0)
    assert admission.free_in(pools) == pytest.approx(5.0)
    assert admission.free_in(pools[:1]) == pytest.approx(10.0)


def test_pools_that_nobody_uses_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.core.admission._POOLS_KEPT", 3)
    admission, used = Admission(), Pool("used/e", 1)
    admission.took(used)
    for n in range(10):
        admission.learn(Pool(f"h{n}/e", 1))
    assert admission.running(used) == 1
    assert not admission.has_room(used)
    assert len(admission._pools) <= 4
