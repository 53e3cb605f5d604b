"""Small tables and plans for the gateway's tests, and waiting."""

import asyncio
from collections.abc import Callable
from hashlib import sha256

from gateway.core.plan import Candidate, Lane, Plan, Pool, TierPlan
from gateway.core.table import Table
from geniehive.rules import names
from geniehive.rules.model import (
    Asset,
    Availability,
    Branch,
    ClientKey,
    Condition,
    Content,
    Endpoint,
    NameKind,
    Reason,
    Relay,
    Resource,
    Route,
    Scope,
    Tier,
    TierEndpoint,
    Upstream,
    Way,
)
from geniehive.rules.operations import Operation

CHAT = (Operation.CHAT, Operation.COMPLETIONS)
OFFLINE = Condition(availability=Availability.OFFLINE, reason=Reason.STREAM_CLOSED, detail="the node's stream closed")


def resource(content: Content, version: str = "1") -> Resource:
    match content:
        case Route():
            name = names.route_resource(content.model)
        case Endpoint():
            name = names.endpoint_resource(content.service, content.asset.upstream_name)
        case Upstream():
            name = names.upstream_resource(content.service)
        case Relay():
            name = names.relay_resource(content.host_id)
        case ClientKey():
            name = names.key_resource(content.key_id)
    return Resource(name=name, version=version, content=content)


def key(secret: str, *scopes: Scope, key_id: str = "k1") -> Resource:
    digest = sha256(secret.encode()).digest()
    return resource(ClientKey(key_id=key_id, sha256=digest, scopes=scopes or (Scope.INFER,)))


def upstream(service: str, url: str = "http://127.0.0.1:1", **fields: object) -> Resource:
    given = {"routable": True, "ways": (Way(direct_url=url),), **fields}
    return resource(Upstream(service=service, **given))  # type: ignore[arg-type]


def endpoint(service: str, model: str, upstream_name: str = "", context: int | None = None) -> Resource:
    asset = Asset(asset_id=model, upstream_name=upstream_name or model, context_tokens=context)
    return resource(Endpoint(service=service, asset=asset))


def route(
    model: str,
    *endpoints: str,
    operations: tuple[Operation, ...] = CHAT,
    kind: NameKind = NameKind.ASSET,
    choose_from: tuple[str, ...] = (),
    glob: bool = False,
) -> Resource:
    """endpoints: "service/upstream_name"."""
    members = tuple(TierEndpoint(endpoint=f"endpoint/{e}") for e in endpoints)
    tiers = (Tier(label=model, endpoints=members),) if members else ()
    branch = Branch(operations=operations, kind=kind, tiers=tiers, choose_from=choose_from)
    return resource(Route(model=model, glob=glob, branches=(branch,)))


def served(model: str, **urls: str) -> tuple[Resource, ...]:
    """A model at `{host: url}`, one service "host/e" on each."""
    made = [route(model, *(f"{host}/e/{model}" for host in urls))]
    for host, url in urls.items():
        made += [upstream(f"{host}/e", url), endpoint(f"{host}/e", model)]
    return tuple(made)


def table(*resources: Resource, gateway_id: str = "here", cluster_id: str = "c-1") -> Table:
    made = Table(gateway_id)
    made.apply(resources, cluster_id=cluster_id)
    return made


def candidate(host: str, lanes: int = 1, limit: int | None = None) -> Candidate:
    return Candidate(
        endpoint=f"endpoint/{host}/e/m",
        service=f"{host}/e",
        host=host,
        asset_id="m",
        upstream_name="m",
        lanes=tuple(Lane(f"{host}/e", f"http://{host}:{n}") for n in range(1, lanes + 1)),
        pool=Pool(f"{host}/e", limit) if limit is not None else None,
    )


def plan(*tiers: tuple[Candidate, ...]) -> Plan:
    return Plan("m", tuple(TierPlan(("m", 1, n), f"tier{n}", members) for n, members in enumerate(tiers)))


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Waits for what no event tells; TimeoutError if it does not come."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
