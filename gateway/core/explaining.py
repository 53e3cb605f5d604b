"""What this gateway would do with a request now, and why: its part of an explanation.

Control's part says who may serve a name, in which tiers. This one asks the same functions as a request does: who can't
take the request (`gates`), and of the others whom `Balance` would choose, with the wait of each, term by term.
"""

from collections.abc import Mapping
from typing import Any

from gateway.core import gates
from gateway.core.asking import Ask
from gateway.core.balance import Balance
from gateway.core.considered import Considered
from gateway.core.gates import PassedOver
from gateway.core.needs import Needs
from gateway.core.plan import Candidate, Plan, TierPlan
from gateway.core.wait import WEIGHTS

# What this gateway rules out by.
UNUSABLE, CONTEXT, ABILITIES = "unusable", "context", "abilities"
# What becomes of the request: it is sent; it waits for a turn; nobody can take one like it; nobody is there.
SENT, WAITS, UNFIT, UNSERVED = "sent", "waits", "unfit", "unserved"


def needs_of(
    plan: Plan, prompt_tokens: int, tools: bool = False, images: bool = False, max_tokens: int | None = None,
    session: str = "",
) -> Needs:  # fmt: skip
    """Of a request that is told by figures alone."""
    conversation = hash(session) if session else None
    ask = Ask(plan.model, prompt_tokens, conversation, tools=tools, images=images, max_tokens=max_tokens)
    return Needs(ask, prompt_tokens, tools, images)


def explain(plan: Plan, needs: Needs, balance: Balance, now: float) -> dict[str, Any]:
    """tiers: those with somebody in them. endpoints: by name ("endpoint/..."). chosen: who would be asked; None: nobody
    can be now.
    """
    over = gates.passed_over(plan, needs)
    unfit = {one.candidate.endpoint: one for one in over}
    considered = balance.explain(plan, needs.ask, now, {name: one.reason for name, one in unfit.items()})
    candidates = {(at, c.endpoint): c for at, tier in enumerate(plan.tiers) for c in tier.candidates}
    endpoints: dict[str, dict[str, Any]] = {}
    for one in considered:
        # Nobody is asked twice: a later tier that has it again has nothing of it.
        if one.endpoint not in endpoints:
            candidate = candidates[one.tier, one.endpoint]
            endpoints[one.endpoint] = _endpoint(plan.tiers[one.tier], candidate, one, unfit.get(one.endpoint))
    for unusable in plan.unusable:
        endpoints[f"endpoint/{unusable.name}"] = {"gate": UNUSABLE, "reason": unusable.reason}
    chosen = next((one for one in considered if one.chosen), None)
    tokens = needs.tokens or (needs.ask.prompt_tokens if needs.ask is not None else 0)
    return {
        "outcome": _outcome(plan, over, chosen),
        "chosen": chosen.endpoint if chosen is not None else None,
        "tiers": [_tier(tier, considered) for tier in plan.tiers],
        "endpoints": endpoints,
        "weights": WEIGHTS,
        "prompt_tokens": tokens,
    }


def _outcome(plan: Plan, over: tuple[PassedOver, ...], chosen: Considered | None) -> str:
    if chosen is not None:
        return SENT
    if not plan.tiers:
        return UNSERVED
    return UNFIT if gates.nobody_is_left(plan, over) else WAITS


def _tier(tier: TierPlan, considered: tuple[Considered, ...]) -> Mapping[str, Any]:
    expected = next((one.expected_tokens for one in considered if one.label == tier.label), None)
    return {
        "tier": tier.key[2],
        "label": tier.label,
        "strategy": tier.strategy.name.lower(),
        "expected_completion_tokens": None if expected is None else round(expected),
    }


def _endpoint(tier: TierPlan, candidate: Candidate, found: Considered, unfit: PassedOver | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "tier": tier.key[2],
        "service": candidate.service,
        "host": candidate.host,
        "model": candidate.asset_id,
        "request_policy": candidate.shaper.policy() if candidate.shaper is not None else None,
        "context_tokens": candidate.context_tokens,
        "loaded": candidate.loaded,
        "slots": found.slots,
        # Else it is a guess, until the engine is seen to run more at once.
        "slots_known": candidate.slots_known,
        "in_flight": found.in_flight,
        "others": found.others,
        "tokens_per_second": None if found.tokens_per_second is None else round(found.tokens_per_second, 2),
        "speed_from": found.speed or None,
        "cached_tokens": found.hit,
        "way": found.lane,
        "weight": found.weight,
        "rank": found.rank,
        "wait_seconds": None,
        "wait_terms": None,
        "not_now": found.why_not or None,
        "chosen": found.chosen,
    }
    if unfit is not None:
        gate = CONTEXT if unfit.lacks is None else ABILITIES
        return {**shown, "gate": gate, "reason": unfit.reason, "not_now": None}
    if (wait := found.wait) is not None:
        terms = {name: getattr(wait, name) for name in WEIGHTS}
        # What the client waits; what others lose by it counts for the choice alone.
        seconds = sum(terms.values()) - terms["crowd"]
        shown |= {"wait_seconds": round(seconds, 4), "wait_terms": {n: round(s, 4) for n, s in terms.items()}}
    return shown
