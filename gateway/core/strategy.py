"""How one of several endpoints is chosen. All of them can serve: who is ejected, full or unfit is not here.

    soonest       the least wait, as `wait` has it; of those within a fifth of it the one with the least to do
    scored        the best score, as control has it, less what a queue costs; then the least to do
    loaded_first  those whose model is in memory; then the least to do
    least_loaded  the least to do, for each request that it runs at once
    round_robin   in turn; `Turn` knows whose it is

Whoever is equal comes in turn.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from gateway.core.asking import Ask
from gateway.core.plan import Candidate, Choice, TierPlan
from gateway.core.speeds import assume
from gateway.core.wait import Seat, waits
from geniehive.rules.model import Strategy

# Waits that are as good as the best.
_AS_GOOD = 1.2
_TINY = 1e-9

# Of a weight, which goes to 1000: what a longer queue, a short one, and having no slot free cost, as in match scores.
_LONG_QUEUE, _SHORT_QUEUE, _NO_SLOT = 90, 45, 45
_LONG, _SHORT = 5, 2

_IN_TURN = frozenset({Strategy.ROUND_ROBIN})


class Member:
    """A candidate of a tier. choice: it, by its first lane."""

    __slots__ = ("candidate", "choice", "seat", "weight")

    def __init__(self, candidate: Candidate, label: str, seat: Seat) -> None:
        self.candidate = candidate
        self.choice = Choice(candidate, candidate.lanes[0], label)
        self.seat = seat
        self.weight = candidate.weight


class Turn:
    """The candidates of a tier, and whose turn it is. order: next one first. in_turn: nothing else counts.

    free: none of them has a limit. learned, asked_again: as of when what is known of them was looked at.
    """

    __slots__ = ("asked_again", "free", "in_turn", "lacking", "learned", "members", "order", "start", "taken", "tier")

    def __init__(self, tier: TierPlan, seats: Mapping[str, Seat]) -> None:
        self.start = 0
        self.order: deque[Member] = deque()
        self.follow(tier, seats)

    def follow(self, tier: TierPlan, seats: Mapping[str, Seat]) -> None:
        """Takes over a newer table's tier: who stays keeps its place, who is new is next."""
        made = {c.endpoint: Member(c, tier.label, seats[c.endpoint]) for c in tier.candidates}
        self.tier = tier
        self.members = tuple(made.values())
        staying = [made.pop(m.candidate.endpoint) for m in self.order if m.candidate.endpoint in made]
        self.order = deque([*made.values(), *staying])
        self.in_turn = tier.strategy in _IN_TURN or len(self.members) == 1
        self.free = all(m.candidate.pool is None for m in self.members)
        self.learned = -1
        self.taken = -1
        self.asked_again = 0.0
        self.lacking = True

    def learn(self, learned: int) -> None:
        """Something new is known of somebody's speed."""
        self.learned = learned
        if self.lacking:
            self.lacking = assume(member.seat.pace for member in self.members)

    def took(self, member: Member) -> None:
        """It was chosen."""
        if not self.in_turn:
            self.start += 1
        elif self.order[0] is member:
            self.order.rotate(-1)
        else:
            self.order.remove(member)
            self.order.append(member)


def pick(turn: Turn, members: Sequence[Member], ask: Ask, expected: float, now: float) -> Member:
    """Whom of these, who can all serve."""
    strategy = turn.tier.strategy
    if turn.in_turn:
        return members[0]
    if strategy in _RANKS:
        rank = _RANKS[strategy]
        return _least(turn, members, [rank(member) for member in members])
    return _soonest(turn, members, ask, expected, now)


def _soonest(turn: Turn, members: Sequence[Member], ask: Ask, expected: float, now: float) -> Member:
    scores = [found[0] for found in waits([member.seat for member in members], ask, expected, now)]
    limit = min(scores) * _AS_GOOD + _TINY
    good = [member for member, score in zip(members, scores, strict=True) if score <= limit]
    if len(good) == 1:
        return good[0]
    return _least(turn, good, [busyness(member) for member in good])


def busyness(member: Member) -> float:
    place = member.seat.place
    return place.busy / place.slots


def worth(member: Member) -> float:
    """Its weight, less what its queue costs."""
    place = member.seat.place
    over = place.busy - place.slots
    weight = member.weight - (_LONG_QUEUE if over >= _LONG else _SHORT_QUEUE if over >= _SHORT else 0)
    return weight - (_NO_SLOT if over >= 0 else 0)


def _scored(member: Member) -> tuple[float, float]:
    return -worth(member), busyness(member)


def _loaded_first(member: Member) -> tuple[bool, float]:
    return member.seat.cold, busyness(member)


_Rank = float | tuple[float, float] | tuple[bool, float]

_RANKS: Mapping[Strategy, Callable[[Member], _Rank]] = {
    Strategy.SCORED: _scored,
    Strategy.LOADED_FIRST: _loaded_first,
    Strategy.LEAST_LOADED: busyness,
}


def _least(turn: Turn, members: Sequence[Member], ranks: Sequence[_Rank]) -> Member:
    """Of the least, the first from where the turn begins."""
    least = min(ranks)
    equal = [member for member, rank in zip(members, ranks, strict=True) if rank == least]
    return equal[turn.start % len(equal)]
