"""What /v1/models shows: names that can be called, in OpenAI's shape with our words under "geniehive"."""

from typing import Any

import msgspec

from gateway.core.table import Table
from geniehive.rules.model import Endpoint, NameKind, Route, Upstream

_ORDER = {NameKind.ALIAS: 0, NameKind.ASSET: 1, NameKind.ROLE: 2}


def models(table: Table) -> bytes:
    """The body of GET /v1/models. Globs are not listed, nor names of services: these stand for models that are."""
    routes = [r for r in table.routes() if not r.glob and any(b.kind in _ORDER for b in r.branches)]
    routes.sort(key=lambda r: (_ORDER.get(r.branches[0].kind, 9), r.model))
    return msgspec.json.encode({"object": "list", "data": [_entry(table, r.model, r) for r in routes]})


def model(table: Table, name: str) -> bytes | None:
    """The body of GET /v1/models/{name}; None if there is no such name."""
    route = table.route(name)
    return None if route is None else msgspec.json.encode(_entry(table, name, route))


def _entry(table: Table, name: str, route: Route) -> dict[str, Any]:
    # "created" must be there and an integer; a table does not know when a model came to be.
    return {"id": name, "object": "model", "created": 0, "owned_by": "geniehive", "geniehive": _ours(table, route)}


def _ours(table: Table, route: Route) -> dict[str, Any]:
    """demo: served by the embedded demonstration engine alone. available: somebody takes requests for it now.

    context_tokens: the largest context in force of any endpoint; left out where nobody knows, as is every text that is
    empty.
    """
    endpoints = _endpoints(table, route)
    contexts = [e.asset.context_tokens for e, _ in endpoints if e.asset.context_tokens is not None]
    ours: dict[str, Any] = {
        "kind": route.branches[0].kind.name.lower() if route.branches else "",
        "operations": sorted({o.word for b in route.branches for o in b.operations}),
        "demo": bool(endpoints) and all(u.demo for _, u in endpoints),
        "available": any(u.routable for _, u in endpoints),
        "endpoints": len(endpoints),
    }
    if contexts:
        ours["context_tokens"] = max(contexts)
    if route.display_name:
        ours["display_name"] = route.display_name
    if route.description:
        ours["description"] = route.description
    if choose := sorted({n for b in route.branches for n in b.choose_from}):
        ours["choose_from"] = choose
    return ours


def _endpoints(table: Table, route: Route) -> list[tuple[Endpoint, Upstream]]:
    names = {e.endpoint for b in route.branches for t in b.tiers for e in t.endpoints}
    names |= {r.endpoint for b in route.branches for r in b.ruled_out}
    return [found for n in sorted(names) if (found := table.endpoint(n)) is not None]
