"""Whose turn it is among the endpoints of a plan.

Tiers in order; within a tier in turn, even to within one request. Endpoints at their limit are passed over, and so are
those whose lanes are all ejected; when all are ejected, the one that failed longest ago is tried rather than refusing.
"""

from collections import deque

import msgspec

from gateway.core.admission import Admission
from gateway.core.ejection import Ejections
from gateway.core.plan import Candidate, Choice, Lane, Plan, Pool, TierPlan
from geniehive.rules.operations import Operation

# Tiers whose turns are remembered. Forgetting one costs nothing but evenness, once.
_TURNS_KEPT = 10_000
# Names whose load is remembered while there is none.
_ROUTES_KEPT = 4096


class Full(msgspec.Struct, frozen=True):
    """Endpoints are there, and all of them at their limits."""

    pools: tuple[Pool, ...]


class RouteLoad:
    """in_flight: requests that are with an engine. waiting: held here, for a turn or for a model that loads."""

    __slots__ = ("in_flight", "waiting")

    def __init__(self) -> None:
        self.in_flight = 0
        self.waiting = 0


class _Turn:
    """The candidates of a tier, next one first."""

    __slots__ = ("order", "tier")

    def __init__(self, tier: TierPlan) -> None:
        self.tier = tier
        self.order = deque(tier.candidates)

    def follow(self, tier: TierPlan) -> None:
        """Takes over a newer table's tier: who stays keeps its place, who is new is next."""
        now = {c.endpoint: c for c in tier.candidates}
        staying = [now.pop(c.endpoint) for c in self.order if c.endpoint in now]
        self.tier = tier
        self.order = deque([*now.values(), *staying])


class Balance:
    """Turns, limits, ejections, and what is in flight."""

    def __init__(self, admission: Admission | None = None) -> None:
        self.admission = admission if admission is not None else Admission()
        self.ejections = Ejections()
        # By endpoint; those with none are left out.
        self.in_flight: dict[str, int] = {}
        self._turns: dict[tuple[str, int, int], _Turn] = {}
        self._routes: dict[tuple[str, Operation], RouteLoad] = {}

    def route(self, model: str, operation: Operation) -> RouteLoad:
        """To be counted in by who asks for this name."""
        load = self._routes.get((model, operation))
        if load is None:
            if len(self._routes) >= _ROUTES_KEPT:
                self._routes = {key: load for key, load in self._routes.items() if load.in_flight or load.waiting}
            load = self._routes[(model, operation)] = RouteLoad()
        return load

    def routes(self) -> list[tuple[str, Operation, int, int]]:
        """Name, operation, in flight, waiting: of those that have any."""
        return [(*key, r.in_flight, r.waiting) for key, r in self._routes.items() if r.in_flight or r.waiting]

    def choose(self, plan: Plan, tried: set[str], now: float) -> Choice | Full | None:
        """The endpoint whose turn it is, of those not in `tried`; None if all have been tried."""
        if self.admission.waiting:
            self._let_in(plan, now)
        return self._choose(plan, tried, now)

    def _choose(self, plan: Plan, tried: set[str], now: float, waited: bool = False) -> Choice | Full | None:
        """waited: the plan may be old, so that its limits are not those in force."""
        full: list[Pool] = []
        all_open = not self.ejections.out
        for tier in plan.tiers:
            turn = self._turns.get(tier.key)
            if turn is None or turn.tier is not tier:
                turn = self._turn(tier)
            if all_open and not tried and (candidate := turn.order[0]).pool is None:
                # As nearly always; the rest of this is for when it is not so.
                turn.order.rotate(-1)
                return Choice(candidate, candidate.lanes[0], tier.label)
            for index, candidate in enumerate(turn.order):
                if candidate.endpoint in tried:
                    continue
                lane = candidate.lanes[0] if all_open else self.open_lane(candidate, (), now)
                if lane is None:
                    continue
                if (pool := candidate.pool) is not None:
                    if not waited:
                        self.admission.learn(pool)
                    if not self.admission.has_room(pool):
                        full.append(pool)
                        continue
                if index == 0:
                    turn.order.rotate(-1)
                else:
                    del turn.order[index]
                    turn.order.append(candidate)
                return Choice(candidate, lane, tier.label)
        return Full(tuple(full)) if full else self._longest_out(plan, tried)

    def open_lane(self, candidate: Candidate, but: tuple[Lane, ...], now: float) -> Lane | None:
        """The candidate's first lane that is not ejected and not among `but`."""
        for lane in candidate.lanes:
            if lane not in but and self.ejections.is_open(lane, now):
                return lane
        return None

    def _longest_out(self, plan: Plan, tried: set[str]) -> Choice | Full | None:
        out: list[Choice] = []
        full: list[Pool] = []
        for tier in plan.tiers:
            for candidate in tier.candidates:
                if candidate.endpoint in tried:
                    continue
                if candidate.pool is not None and not self.admission.has_room(candidate.pool):
                    full.append(candidate.pool)
                else:
                    out += [Choice(candidate, lane, tier.label) for lane in candidate.lanes]
        if full and not out:
            return Full(tuple(full))
        return min(out, key=lambda choice: self.ejections.since(choice.lane), default=None)

    def ejected(self, now: float) -> list[str]:
        """Endpoints that are left out now: every lane of theirs is ejected."""
        if not self.ejections.out:
            return []
        services = {lane.service for lane in self.ejections.ejected(now)}
        known = {c.endpoint: c for turn in self._turns.values() for c in turn.tier.candidates if c.service in services}
        return sorted(name for name, c in known.items() if self.open_lane(c, (), now) is None)

    def opens_in(self, plan: Plan, now: float) -> float | None:
        """Seconds until the first of the plan's lanes is half open; None for a plan without lanes."""
        waits = [self.ejections.opens_in(lane, now) for tier in plan.tiers for c in tier.candidates for lane in c.lanes]
        return min(waits, default=None)

    def started(self, choice: Choice, now: float) -> None:
        candidate = choice.candidate
        endpoint = candidate.endpoint
        self.in_flight[endpoint] = self.in_flight.get(endpoint, 0) + 1
        if candidate.pool is not None:
            self.admission.took(candidate.pool)
        if self.ejections.out:
            self.ejections.chosen(choice.lane, now)

    def moved(self, choice: Choice, other: Choice, now: float) -> None:
        """The same candidate is asked by another lane."""
        self.ejections.left(choice.lane)
        self.ejections.chosen(other.lane, now)

    def ended(self, choice: Choice, now: float, seconds: float | None = None) -> None:
        """The turn is given back, to whoever waits for it. seconds: how long it took to be answered to the end."""
        candidate = choice.candidate
        endpoint = candidate.endpoint
        left = self.in_flight[endpoint] - 1
        if left:
            self.in_flight[endpoint] = left
        else:
            del self.in_flight[endpoint]
        if self.ejections.out:
            self.ejections.left(choice.lane)
        if candidate.pool is not None:
            self.admission.gave_back(candidate.pool, seconds)
            if self.admission.waiting:
                self._hand_on(candidate.pool, now)

    def _hand_on(self, pool: Pool, now: float) -> None:
        """Gives what is free in the pool to those who wait there. Who finds its lanes ejected waits on."""
        passed_over = 0
        while self.admission.has_room(pool) and (ticket := self.admission.next(pool, passed_over)) is not None:
            choice = self._choose(ticket.plan, ticket.tried, now, True)
            if isinstance(choice, Choice):
                self.admission.withdraw(ticket)
                self.started(choice, now)
                ticket.choice = choice
                ticket.wake()
            else:
                passed_over += 1

    def _let_in(self, plan: Plan, now: float) -> None:
        """Nobody who comes now gets what others wait for: a higher limit, or a lane that is open again."""
        for tier in plan.tiers:
            for candidate in tier.candidates:
                if candidate.pool is not None:
                    self.admission.learn(candidate.pool)
                    self._hand_on(candidate.pool, now)

    def _turn(self, tier: TierPlan) -> _Turn:
        turn = self._turns.get(tier.key)
        if turn is None:
            if len(self._turns) >= _TURNS_KEPT:
                self._turns.clear()
            turn = self._turns[tier.key] = _Turn(tier)
        elif turn.tier is not tier:
            turn.follow(tier)
        return turn
