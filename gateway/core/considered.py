"""An endpoint as it stands when one is chosen, for people: by the figures that the choice goes by."""

import msgspec

from gateway.core.asking import Ask
from gateway.core.plan import Lane, TierPlan
from gateway.core.strategy import Member, worth
from gateway.core.wait import Wait, waits
from geniehive.rules.model import Strategy


class Considered(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint of a plan as it stands at this moment, for people.

    tier: from 0. lane: "direct" or "relay", the way by which it would be asked; None: none is open. why_not: why it
    can't be asked now, "" if it can. rank: what its tier's strategy goes by: the wait of SOONEST, weighted, the weight
    of SCORED after its queue; None for those who have none. wait: term by term, of SOONEST. in_flight: from this
    gateway; others: from elsewhere. speed: where its speed comes from: "learned", "control", "assumed". hit: tokens of
    the prompt that are in its cache. chosen: the next request of this kind goes there.
    """

    endpoint: str
    name: str
    tier: int
    label: str
    strategy: Strategy
    lane: str | None
    why_not: str = ""
    rank: float | None = None
    wait: Wait | None = None
    in_flight: int = 0
    others: int = 0
    slots: int = 0
    weight: int = 0
    loaded: bool | None = None
    tokens_per_second: float | None = None
    speed: str = ""
    hit: int = 0
    expected_tokens: float = 0.0
    chosen: bool = False


def consider(
    index: int,
    tier: TierPlan,
    member: Member,
    lane: Lane | None,
    why_not: str,
    ask: Ask,
    expected: float,
    now: float,
    chosen: bool,
) -> Considered:
    """index: of the tier. expected: tokens of the answer."""
    candidate, seat, strategy = member.candidate, member.seat, tier.strategy
    terms = Wait(*waits((seat,), ask, expected, now)[0]) if strategy is Strategy.SOONEST else None
    rank = terms.score if terms is not None else worth(member) if strategy is Strategy.SCORED else None
    return Considered(
        endpoint=candidate.endpoint,
        name=candidate.name,
        tier=index,
        label=tier.label,
        strategy=strategy,
        lane=None if lane is None else "relay" if lane.relayed else "direct",
        why_not=why_not,
        rank=rank,
        wait=terms,
        in_flight=seat.place.own,
        others=seat.place.others,
        slots=seat.place.slots,
        weight=candidate.weight,
        loaded=candidate.loaded,
        tokens_per_second=1 / seat.pace.used_token,
        speed=seat.pace.basis,
        hit=seat.place.memory.hit(seat.model, ask),
        expected_tokens=expected,
        chosen=chosen,
    )
