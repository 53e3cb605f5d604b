"""POST /v1/cluster/routes/explain: why a name leads where it does, and where a request would go now.

Control tells who has the name, the gate that ruled each out, tiers and scores; this gateway tells the waits, by the
functions that a request asks. While control is away the gateway's part is shown alone.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.core import body as bodies
from gateway.core import errors, explaining, needs
from gateway.core.balance import Balance
from gateway.core.needs import Needs
from gateway.core.plan import Plan
from gateway.core.questions import Absent, Away, Inquiry, Wrong
from gateway.core.table import Found, NotFound, Table
from gateway.http.calls import LookUp
from gateway.http.cluster import reading
from gateway.http.exchange import Refusal
from geniehive.kit.clock import Clock
from geniehive.rules.names import is_model_name
from geniehive.rules.operations import Operation

Ask = Callable[[Inquiry, str], Awaitable[dict[str, Any]]]

_NONE = msgspec.Raw(b"")
_Tokens = Annotated[int, Meta(ge=0, le=10**9)]
# What a request is like that nothing is said of.
_USUAL_PROMPT = 500


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """kind, operation: the same. request: a whole body, as it would be sent; else the figures say what it is like.
    session: as clients name theirs in a header.
    """

    model: str = ""
    kind: str = ""
    operation: str = ""
    request: msgspec.Raw = _NONE
    prompt_tokens: _Tokens | None = None
    max_tokens: _Tokens | None = None
    tools: bool = False
    images: bool = False
    session: str = ""


class Explain:
    """ask: asks control, in the name of a key. The others are those that requests are served by."""

    def __init__(self, ask: Ask, table: Table, look_up: LookUp, balance: Balance, clock: Clock) -> None:
        self._ask = ask
        self._table = table
        self._look_up = look_up
        self._balance = balance
        self._clock = clock

    async def answer(self, content: bytes, key_id: str) -> dict[str, Any]:
        """key_id: of the client, "" where authentication is off. Refusal, or as of `ask`."""
        asked = reading.body(content, Asked)
        word = asked.operation or asked.kind or "chat"
        operation = reading.operation(word, "operation" if asked.operation else "kind")
        named = _named(asked)
        model = asked.model or (named.model if named is not None else "")
        if not model:
            raise reading.bad("Say which name is meant, by model", "model")
        told, why = await self._control(model, operation, key_id)
        live = await self._live(asked, named, model, operation, key_id)
        return {"object": "explanation", "model": model, "operation": operation.word, **_merged(told, live, why)}

    async def _control(self, model: str, operation: Operation, key_id: str) -> tuple[dict[str, Any] | None, str]:
        """Control's part; or None, and why."""
        inquiry = Inquiry("ExplainRoute", {"model": model, "operation": f"OPERATION_{operation.name}"})
        try:
            return await self._ask(inquiry, key_id), ""
        except Away as away:
            return None, str(away)
        except (Absent, Wrong) as error:
            # The gateway tells of near names, and of others to choose from.
            return None, str(error)

    async def _live(
        self, asked: Asked, named: bodies.Named | None, model: str, operation: Operation, key_id: str
    ) -> dict[str, Any]:
        plan = await self._find(model, operation, key_id)
        if not isinstance(plan, Plan):
            raise Refusal(errors.unresolved(model, operation, plan))
        return explaining.explain(plan, _needs(asked, named, plan, operation), self._balance, self._clock.now())

    async def _find(self, model: str, operation: Operation, key_id: str) -> Found:
        if not self._table.ready:
            raise Refusal(errors.not_ready())
        found = self._table.find(model, operation)
        if isinstance(found, NotFound) and is_model_name(model):
            learned = await self._look_up(model, key_id)
            if learned is not None:
                return learned.find(model, operation)
        return found


def _named(asked: Asked) -> bodies.Named | None:
    if asked.request is _NONE:
        return None
    try:
        return bodies.read(bytes(asked.request))
    except bodies.BodyProblem as problem:
        raise reading.bad(f"request: {problem.message}", problem.param or "request") from None


def _needs(asked: Asked, named: bodies.Named | None, plan: Plan, operation: Operation) -> Needs:
    if named is not None:
        return needs.read(plan, operation, named, asked.session)
    tokens = _USUAL_PROMPT if asked.prompt_tokens is None else asked.prompt_tokens
    return explaining.needs_of(plan, tokens, asked.tools, asked.images, asked.max_tokens, asked.session)


def _merged(told: dict[str, Any] | None, live: dict[str, Any], why: str) -> dict[str, Any]:
    """One list of endpoints: those of the tiers, in their order, and those that are ruled out."""
    route = told["route"] if told is not None else {}
    branch: dict[str, Any] = next(iter(route.get("branches") or ()), {})
    by_control = {one["endpoint"]: one for one in told["candidates"]} if told is not None else {}
    names = dict.fromkeys([*by_control, *live["endpoints"]])
    endpoints = [_endpoint(name, by_control.get(name), live["endpoints"].get(name)) for name in names]
    endpoints.sort(key=_place)
    chosen = live["chosen"]
    return {
        "kind": branch.get("kind"),
        "target": branch.get("target") or None,
        "shadows": route.get("shadows") or [],
        "prompt_tokens": live["prompt_tokens"],
        "outcome": live["outcome"],
        "chosen": None if chosen is None else _short(chosen),
        "tiers": live["tiers"],
        "endpoints": endpoints,
        "weights": live["weights"],
        "control_unavailable": why or None,
    }


def _endpoint(name: str, told: dict[str, Any] | None, live: dict[str, Any] | None) -> dict[str, Any]:
    """told: control's part. live: this gateway's; None if it lacks the endpoint."""
    shown: dict[str, Any] = {
        "endpoint": _short(name), "tier": None, "chosen": False, "gate": None, "reason": None, "decided_by": None,
        "wait_seconds": None, "wait_terms": None, "not_now": None, "match_score": None, "match_terms": [],
    }  # fmt: skip
    if told is not None:
        shown |= {"tier": told["tier"], "match_score": told["score"], "match_terms": told["terms"]}
        if (out := told["ruled_out"]) is not None:
            shown |= {"gate": out["gate"], "reason": out["reason"], "decided_by": "control"}
    if live is None:
        if shown["gate"] is None:
            shown |= {"gate": "unusable", "reason": "this gateway does not know it yet", "decided_by": "gateway"}
        return shown
    by_control = shown["gate"] is not None
    shown |= {key: value for key, value in live.items() if not (by_control and key in ("gate", "reason"))}
    if not by_control and "gate" in live:
        shown["decided_by"] = "gateway"
    return shown


def _short(endpoint: str) -> str:
    return endpoint.removeprefix("endpoint/")


def _place(shown: dict[str, Any]) -> tuple[Any, ...]:
    """Tiers in order, the shortest wait first; who is ruled out comes last."""
    tier, seconds = shown["tier"], shown["wait_seconds"]
    return (
        shown["gate"] is not None,
        tier if tier is not None else 1000,
        seconds if seconds is not None else 0.0,
        shown["endpoint"],
    )
