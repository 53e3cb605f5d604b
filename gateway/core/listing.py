"""What /v1/models shows: names that can be called, in OpenAI's shape with our words under "geniehive".

What follows from the table is made again where the table has changed; how long answers take is put in every second.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec

from gateway.core import shape
from gateway.core.table import Table
from geniehive.rules.model import Asset, Branch, Endpoint, Health, LoadState, NameKind, RequestPolicy, Route, Upstream

_ORDER = {NameKind.ALIAS: 0, NameKind.ASSET: 1, NameKind.ROLE: 2}
# Best first: what a name that several services have is as a whole.
_HEALTH = (Health.HEALTHY, Health.UNKNOWN, Health.DEGRADED, Health.UNHEALTHY)
# Seconds that a list is given out again.
_FRESH = 1.0

T = TypeVar("T")


_Offers = list[tuple[Endpoint, Upstream]]


class _Listed(NamedTuple):
    """entry: as it is shown. ours: its part under "geniehive". route, offers: what it was made of."""

    name: str
    route: Route
    offers: _Offers
    entry: dict[str, Any]
    ours: dict[str, Any]


class Listing:
    """latency: seconds that half of a name's answers take at most; None: not known."""

    def __init__(self, table: Table, latency: Callable[[str], float | None] = lambda name: None) -> None:
        self._table = table
        self._latency = latency
        self._generation = -1
        self._entries: dict[str, _Listed] = {}
        self._body = b""
        self._until = 0.0

    def models(self, now: float) -> bytes:
        """The body of GET /v1/models. Globs are not listed, nor names of services: these stand for models that are."""
        table = self._table
        if self._generation != table.generation:
            routes = [r for r in table.routes() if not r.glob and any(b.kind in _ORDER for b in r.branches)]
            routes.sort(key=lambda r: (_ORDER.get(r.branches[0].kind, 9), r.model))
            before = self._entries
            self._entries = {
                route.model: _listed(table, route.model, route, before.get(route.model)) for route in routes
            }
            self._generation = table.generation
        elif now < self._until:
            return self._body
        entries = self._entries.values()
        for listed in entries:
            self._put_latency(listed)
        self._body = msgspec.json.encode({"object": "list", "data": [listed.entry for listed in entries]})
        self._until = now + _FRESH
        return self._body

    def model(self, name: str, table: Table | None = None) -> bytes | None:
        """The body of GET /v1/models/{name}; None if there is no such name. table: another one, that has it."""
        known = table if table is not None else self._table
        route = known.route(name)
        if route is None:
            return None
        listed = _listed(known, name, route)
        self._put_latency(listed)
        return msgspec.json.encode(listed.entry)

    def _put_latency(self, listed: _Listed) -> None:
        if (seconds := self._latency(listed.name)) is not None:
            listed.ours["latency_p50_seconds"] = seconds
        else:
            listed.ours.pop("latency_p50_seconds", None)


def _listed(table: Table, name: str, route: Route, before: _Listed | None = None) -> _Listed:
    """before: as it was, to be kept if nothing of it has changed."""
    offers = _endpoints(table, route)
    if before is not None and before.route is route and _same(before.offers, offers):
        return before
    ours = _ours(table, route, offers)
    # "created" must be there and an integer; a table does not know when a model came to be.
    entry = {"id": name, "object": "model", "created": 0, "owned_by": "geniehive", "geniehive": ours}
    return _Listed(name, route, offers, entry, ours)


def _same(some: _Offers, others: _Offers) -> bool:
    """Whether it is the very same, since the table keeps what has not changed."""
    return len(some) == len(others) and all(
        one[0] is other[0] and one[1] is other[1] for one, other in zip(some, others, strict=True)
    )


def _ours(table: Table, route: Route, endpoints: _Offers) -> dict[str, Any]:
    """demo: served by the embedded demonstration engine alone. available: somebody takes requests for it now. loaded:
    endpoints that have it in memory.

    context_tokens: the largest context in force of any endpoint. tokens_per_second: of one request, at the fastest.
    What nobody knows, or what is empty, is left out; so is what endpoints don't agree in.
    """
    assets = [endpoint.asset for endpoint, _ in endpoints]
    ours: dict[str, Any] = {
        "kind": route.branches[0].kind.name.lower() if route.branches else "",
        "operations": sorted({o.word for b in route.branches for o in b.operations}),
        "demo": bool(endpoints) and all(u.demo for _, u in endpoints),
        "hosted": bool(endpoints) and all(u.hosted for _, u in endpoints),
        "available": any(u.routable for _, u in endpoints),
        "health": min(
            (u.condition.health for _, u in endpoints), key=_HEALTH.index, default=Health.UNKNOWN
        ).name.lower(),
        "endpoints": len(endpoints),
        "loaded": sum(asset.load_state is LoadState.LOADED for asset in assets),
        "hosts": sorted({e.service.partition("/")[0] for e, _ in endpoints}),
        "abilities": [a.name.lower() for a in sorted({a for asset in assets for a in asset.abilities})],
    }
    known: dict[str, Any] = {
        "context_tokens": max((a.context_tokens for a in assets if a.context_tokens is not None), default=None),
        **_described(assets),
        "tokens_per_second": max(_speeds(endpoints), default=None),
        "target": next((b.target for b in route.branches if b.target), ""),
        "display_name": route.display_name,
        "description": route.description,
        "choose_from": sorted({n for b in route.branches for n in b.choose_from}),
        "request_policy": _policy(table, route.branches),
    }
    ours |= {name: value for name, value in known.items() if value}
    if (hint := route.offload_hint) is not None:
        ours["offload"] = {"suitability": hint.suitability, "basis": hint.basis}
    return ours


def _described(assets: Collection[Asset]) -> dict[str, Any]:
    return {
        "family": _agreed(asset.family for asset in assets),
        "parameter_count": _agreed(asset.parameter_count for asset in assets),
        "quantization": _agreed(asset.quantization for asset in assets),
        "size_bytes": _agreed(asset.size_bytes for asset in assets),
    }


def _agreed(values: Iterable[T]) -> T | None:
    """What all who know say."""
    found = {value for value in values if value}
    return found.pop() if len(found) == 1 else None


def _speeds(endpoints: Iterable[tuple[Endpoint, Upstream]]) -> list[float]:
    found = (e.speed.decode_tokens_per_second for e, u in endpoints if e.speed is not None and u.routable)
    return [speed for speed in found if speed is not None]


def _policy(table: Table, branches: tuple[Branch, ...]) -> dict[str, Any] | None:
    """What becomes of a request's body, in the first tier. Of prompts only that there are some: they may be nobody's
    business."""
    for branch in branches:
        for tier in branch.tiers:
            members = [found for e in tier.endpoints if (found := table.endpoint(e.endpoint)) is not None]
            if not members:
                continue
            if tier.request_policy is None and not any(e.asset.request_policies for e, _ in members):
                return None
            shown = [_shown(branch, tier.request_policy, e.asset.request_policies) for e, _ in members]
            return shown[0] if all(one == shown[0] for one in shown) else None
    return None


def _shown(branch: Branch, tier: RequestPolicy | None, own: tuple[RequestPolicy, ...]) -> dict[str, Any]:
    try:
        shaper = shape.shaper(branch.operations[0], tier, own)
    except ValueError:
        return {}
    if shaper is None:
        return {}
    policy = shaper.policy()
    if "system_prompt" in policy:
        policy["system_prompt"] = policy["system_prompt"]["action"]
    if "user_template" in policy:
        policy["user_template"] = True
    return policy


def _endpoints(table: Table, route: Route) -> _Offers:
    names = {e.endpoint for b in route.branches for t in b.tiers for e in t.endpoints}
    names |= {r.endpoint for b in route.branches for r in b.ruled_out}
    return [found for n in sorted(names) if (found := table.endpoint(n)) is not None]
