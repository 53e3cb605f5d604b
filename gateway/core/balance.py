"""Whose turn it is among the endpoints of a plan.

Tiers in order; within a tier in turn, even to within one request. Endpoints whose lanes are all ejected are passed
over; when nothing else is left, the one that failed longest ago is tried rather than refusing.
"""

from collections import deque

import msgspec

from gateway.core.ejection import Ejections
from gateway.core.plan import Candidate, Lane, Plan, TierPlan

# Tiers whose turns are remembered. Forgetting one costs nothing but evenness, once.
_TURNS_KEPT = 10_000


class Choice(msgspec.Struct, frozen=True, gc=False):
    """Ask this candidate, by this lane. `label` is the tier's."""

    candidate: Candidate
    lane: Lane
    label: str


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
    """Turns, ejections, and what is in flight."""

    def __init__(self) -> None:
        self.ejections = Ejections()
        # By endpoint; those with none are left out.
        self.in_flight: dict[str, int] = {}
        self._turns: dict[tuple[str, int, int], _Turn] = {}

    def choose(self, plan: Plan, tried: set[str], now: float) -> Choice | None:
        """The endpoint whose turn it is, of those not in `tried`; None if all have been tried."""
        for tier in plan.tiers:
            turn = self._turn(tier)
            for index, candidate in enumerate(turn.order):
                if candidate.endpoint in tried:
                    continue
                lane = self.open_lane(candidate, (), now)
                if lane is None:
                    continue
                if index == 0:
                    turn.order.rotate(-1)
                else:
                    del turn.order[index]
                    turn.order.append(candidate)
                return Choice(candidate, lane, tier.label)
        return self._longest_out(plan, tried)

    def open_lane(self, candidate: Candidate, but: tuple[Lane, ...], now: float) -> Lane | None:
        """The candidate's first lane that is not ejected and not among `but`."""
        for lane in candidate.lanes:
            if lane not in but and self.ejections.is_open(lane, now):
                return lane
        return None

    def _longest_out(self, plan: Plan, tried: set[str]) -> Choice | None:
        out = (
            Choice(candidate, lane, tier.label)
            for tier in plan.tiers
            for candidate in tier.candidates
            if candidate.endpoint not in tried
            for lane in candidate.lanes
        )
        return min(out, key=lambda choice: self.ejections.since(choice.lane), default=None)

    def opens_in(self, plan: Plan, now: float) -> float | None:
        """Seconds until the first of the plan's lanes is half open; None for a plan without lanes."""
        waits = [self.ejections.opens_in(lane, now) for tier in plan.tiers for c in tier.candidates for lane in c.lanes]
        return min(waits, default=None)

    def started(self, choice: Choice, now: float) -> None:
        endpoint = choice.candidate.endpoint
        self.in_flight[endpoint] = self.in_flight.get(endpoint, 0) + 1
        self.ejections.chosen(choice.lane, now)

    def ended(self, choice: Choice) -> None:
        endpoint = choice.candidate.endpoint
        left = self.in_flight[endpoint] - 1
        if left:
            self.in_flight[endpoint] = left
        else:
            del self.in_flight[endpoint]
        self.ejections.left(choice.lane)

    def _turn(self, tier: TierPlan) -> _Turn:
        turn = self._turns.get(tier.key)
        if turn is None:
            if len(self._turns) >= _TURNS_KEPT:
                self._turns.clear()
            turn = self._turns[tier.key] = _Turn(tier)
        elif turn.tier is not tier:
            turn.follow(tier)
        return turn
