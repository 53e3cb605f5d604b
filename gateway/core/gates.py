"""Who of a plan can't serve a request, by what that needs; and what the client is told when nobody can.

A prompt is held against the context in force twice. By the usual estimate candidates are passed over while others are
left, whichever tier they are of. Where nobody is left the low one counts: what may fit is asked, since its engine knows
better.
"""

from collections.abc import Sequence

import msgspec

from gateway.core.api import Dialect
from gateway.core.errors import ApiError, listed, shown
from gateway.core.needs import Needs
from gateway.core.plan import Candidate, Plan
from geniehive.rules.model import Asset
from geniehive.rules.operations import Ability, Operation

# How the context in force is made larger, by runtime.
_RAISING = {
    "llamacpp": "start llama-server with a larger -c (its slots, -np, share it)",
    "ollama": "set OLLAMA_CONTEXT_LENGTH for its server, or num_ctx in the model's Modelfile",
    "vllm": "start it with a larger --max-model-len",
    "sglang": "start it with a larger --context-length",
    "lmstudio": "load the model with a larger context length (lms load -c)",
    "llama-swap": "give the model's command in its configuration a larger -c",
    "localai": "set a larger context_size in the model's configuration",
}
_RAISING_OTHERS = "set a larger context at its engine"

_PARAMS = {Operation.COMPLETIONS: "prompt", Operation.EMBEDDINGS: "input", Operation.RESPONSES: "input"}
_SENT = {Ability.TOOLS: "tools", Ability.VISION: "images"}


class PassedOver(msgspec.Struct, frozen=True, gc=False):
    """lacks: what the request needs and the candidate can't do; None: its context is too small."""

    candidate: Candidate
    lacks: Ability | None
    reason: str


def passed_over(plan: Plan, needs: Needs) -> tuple[PassedOver, ...]:
    """Those who can't serve; all of the plan's candidates if nobody can."""
    lacking = plan.lacking
    wanted = [
        ability
        for ability, sent in ((Ability.TOOLS, needs.tools), (Ability.VISION, needs.images))
        if sent and ability in lacking
    ]
    tokens = needs.tokens
    if not wanted and tokens <= plan.tightest:
        return ()
    over = _over(plan, wanted, tokens, tokens)
    if tokens and len(over) == _count(plan):
        over = _over(plan, wanted, needs.surely, tokens)
    return over


def nobody_is_left(plan: Plan, over: Sequence[PassedOver]) -> bool:
    return bool(over) and len(over) == _count(plan)


def _count(plan: Plan) -> int:
    return sum(len(tier.candidates) for tier in plan.tiers)


def _over(plan: Plan, wanted: Sequence[Ability], tokens: int, estimate: int) -> tuple[PassedOver, ...]:
    found = []
    for tier in plan.tiers:
        for candidate in tier.candidates:
            lacks = next((ability for ability in wanted if ability in candidate.lacking), None)
            context = candidate.context_tokens
            if lacks is not None:
                found.append(PassedOver(candidate, lacks, f"the model takes no {_SENT[lacks]}"))
            elif context and tokens > context:
                reason = f"the prompt has about {estimate} tokens, and its context is {context}"
                found.append(PassedOver(candidate, None, reason))
    return tuple(found)


def would_fit(asset: Asset, needs: Needs) -> bool:
    """Whether it is known to, if only it were there."""
    can = not (needs.tools and Ability.TOOLS in asset.lacking_abilities) and not (
        needs.images and Ability.VISION in asset.lacking_abilities
    )
    return can and (needs.surely == 0 or (asset.context_tokens or 0) >= needs.surely)


def largest(over: Sequence[PassedOver]) -> Candidate | None:
    """Of those whose context is too small, the one with the largest."""
    small = [one.candidate for one in over if one.lacks is None]
    return max(small, key=lambda candidate: candidate.context_tokens or 0, default=None)


def too_long(
    model: str, needs: Needs, candidate: Candidate, runtime: str, operation: Operation, dialect: Dialect
) -> ApiError:
    """The prompt fits nowhere. candidate: with the largest context. In words that clients know, and shorten by."""
    tokens, limit = needs.tokens, candidate.context_tokens or 0
    if dialect is Dialect.ANTHROPIC:
        known = f"prompt is too long: {tokens} tokens > {limit} maximum"
    else:
        known = (
            f"This model's maximum context length is {limit} tokens. However, your messages resulted in {tokens} "
            "tokens. Please reduce the length of the messages"
        )
    raising = _RAISING.get(runtime, _RAISING_OTHERS)
    message = (
        f"{known}. {tokens} is an estimate; {limit} is the largest context of {shown(model)}, in force at "
        f"{candidate.name}. To raise it, {raising}"
    )
    return ApiError(400, message, "context_length_exceeded", param=_PARAMS.get(operation, "messages"))


def not_taken(model: str, over: Sequence[PassedOver], able: Sequence[str], operation: Operation) -> ApiError:
    """Nobody takes the tools or images that were sent. able: names of models that do."""
    lacks = next(one.lacks for one in over if one.lacks is not None)
    sent = _SENT[lacks]
    others = f"these do: {listed(able)}" if able else "no model here is known to take them"
    places = listed([one.candidate.name for one in over])
    message = f"The model {shown(model)} takes no {sent} ({places}). Leave them out, or name another model; {others}"
    param = "tools" if lacks is Ability.TOOLS else _PARAMS.get(operation, "messages")
    return ApiError(400, message, f"{sent}_not_supported", param=param)
