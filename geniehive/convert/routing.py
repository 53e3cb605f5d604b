"""The routing table: its resources, routes, upstreams, endpoints and client keys."""

from geniehive.convert.fields import enum, enums, get, put, seconds, timestamp
from geniehive.convert.offer import (
    asset_from_proto,
    asset_to_proto,
    condition_from_proto,
    condition_to_proto,
    policy_from_proto,
    policy_to_proto,
    relay_from_proto,
    relay_to_proto,
    way_to_proto,
    ways_from_proto,
)
from geniehive.rules import model as m
from geniehive.rules.operations import Operation
from geniehive.v1 import credential_pb2, routing_pb2, routing_service_pb2


def client_key_to_proto(k: m.ClientKey) -> credential_pb2.ClientKey:
    message = credential_pb2.ClientKey(
        key_id=k.key_id,
        key_sha256=k.sha256,
        display_name=k.display_name,
        scopes=k.scopes,  # type: ignore[arg-type]
        configured=k.configured,
    )
    if k.expires is not None:
        message.expire_time.CopyFrom(timestamp(k.expires))
    return message


def client_key_from_proto(p: credential_pb2.ClientKey) -> m.ClientKey:
    return m.ClientKey(
        key_id=p.key_id,
        sha256=p.key_sha256,
        display_name=p.display_name,
        scopes=enums(m.Scope, p.scopes),
        expires=seconds(p.expire_time) if p.HasField("expire_time") else None,
        configured=p.configured,
    )


def upstream_to_proto(u: m.Upstream) -> routing_pb2.Upstream:
    message = routing_pb2.Upstream(
        service=u.service,
        runtime=u.runtime,
        routable=u.routable,
        condition=condition_to_proto(u.condition),
        ways=map(way_to_proto, u.ways),
        hosted=u.hosted,
        demo=u.demo,
    )
    put(message, slots=u.slots, concurrency_limit=u.concurrency_limit)
    return message


def upstream_from_proto(p: routing_pb2.Upstream) -> m.Upstream:
    return m.Upstream(
        service=p.service,
        runtime=p.runtime,
        routable=p.routable,
        condition=condition_from_proto(p.condition),
        ways=ways_from_proto(p.ways),
        slots=get(p, "slots"),
        concurrency_limit=get(p, "concurrency_limit"),
        hosted=p.hosted,
        demo=p.demo,
    )


_SPEEDS = ("prefill_tokens_per_second", "decode_tokens_per_second", "load_seconds", "cold_cost_seconds")


def speed_to_proto(s: m.Speed) -> routing_pb2.Speed:
    message = routing_pb2.Speed()
    put(message, **{name: getattr(s, name) for name in _SPEEDS})
    return message


def speed_from_proto(p: routing_pb2.Speed) -> m.Speed:
    return m.Speed(**{name: get(p, name) for name in _SPEEDS})


def endpoint_to_proto(e: m.Endpoint) -> routing_pb2.Endpoint:
    return routing_pb2.Endpoint(
        service=e.service,
        asset=asset_to_proto(e.asset),
        speed=None if e.speed is None else speed_to_proto(e.speed),
    )


def endpoint_from_proto(p: routing_pb2.Endpoint) -> m.Endpoint:
    return m.Endpoint(
        service=p.service,
        asset=asset_from_proto(p.asset),
        speed=speed_from_proto(p.speed) if p.HasField("speed") else None,
    )


def score_term_to_proto(t: m.ScoreTerm) -> routing_service_pb2.ScoreTerm:
    return routing_service_pb2.ScoreTerm(
        name=t.name, weight=t.weight, value=t.value, signals=t.signals, reasons=t.reasons
    )


def score_term_from_proto(p: routing_service_pb2.ScoreTerm) -> m.ScoreTerm:
    return m.ScoreTerm(name=p.name, weight=p.weight, value=p.value, signals=dict(p.signals), reasons=tuple(p.reasons))


def ruled_out_to_proto(r: m.RuledOut) -> routing_pb2.RuledOut:
    return routing_pb2.RuledOut(endpoint=r.endpoint, gate=r.gate, reason=r.reason)  # type: ignore[arg-type]


def _ruled_out_from_proto(p: routing_pb2.RuledOut) -> m.RuledOut:
    return m.RuledOut(endpoint=p.endpoint, gate=enum(m.Gate, p.gate), reason=p.reason)


def route_to_proto(r: m.Route) -> routing_pb2.Route:
    hint = r.offload_hint
    return routing_pb2.Route(
        offload_hint=None if hint is None else routing_pb2.OffloadHint(suitability=hint.suitability, basis=hint.basis),
        model=r.model,
        glob=r.glob,
        branches=map(_branch_to_proto, r.branches),
        shadows=r.shadows,  # type: ignore[arg-type]
        display_name=r.display_name,
        description=r.description,
    )


def _branch_to_proto(b: m.Branch) -> routing_pb2.Branch:
    message = routing_pb2.Branch(
        operations=b.operations,  # type: ignore[arg-type]
        kind=b.kind,  # type: ignore[arg-type]
        target=b.target,
        choose_from=b.choose_from,
        tiers=(
            routing_pb2.Tier(
                label=t.label,
                strategy=t.strategy,  # type: ignore[arg-type]
                request_policy=None if t.request_policy is None else policy_to_proto(t.request_policy),
                endpoints=(
                    routing_pb2.TierEndpoint(endpoint=e.endpoint, weight=e.weight, reason=e.reason) for e in t.endpoints
                ),
            )
            for t in b.tiers
        ),
        ruled_out=map(ruled_out_to_proto, b.ruled_out),
    )
    put(message, expected_completion_tokens=b.expected_completion_tokens)
    return message


def route_from_proto(p: routing_pb2.Route) -> m.Route:
    hint = p.offload_hint
    return m.Route(
        offload_hint=m.OffloadHint(suitability=hint.suitability, basis=hint.basis)
        if p.HasField("offload_hint")
        else None,
        model=p.model,
        glob=p.glob,
        branches=tuple(map(_branch_from_proto, p.branches)),
        shadows=enums(m.NameKind, p.shadows),
        display_name=p.display_name,
        description=p.description,
    )


def _branch_from_proto(p: routing_pb2.Branch) -> m.Branch:
    return m.Branch(
        operations=enums(Operation, p.operations),
        kind=enum(m.NameKind, p.kind),
        target=p.target,
        choose_from=tuple(p.choose_from),
        tiers=tuple(
            m.Tier(
                label=t.label,
                strategy=enum(m.Strategy, t.strategy),
                request_policy=policy_from_proto(t.request_policy) if t.HasField("request_policy") else None,
                endpoints=tuple(
                    m.TierEndpoint(endpoint=e.endpoint, weight=e.weight, reason=e.reason) for e in t.endpoints
                ),
            )
            for t in p.tiers
        ),
        expected_completion_tokens=get(p, "expected_completion_tokens"),
        ruled_out=tuple(map(_ruled_out_from_proto, p.ruled_out)),
    )


def resource_to_proto(r: m.Resource) -> routing_pb2.Resource:
    message = routing_pb2.Resource(name=r.name, version=r.version)
    match r.content:
        case m.Route():
            message.route.CopyFrom(route_to_proto(r.content))
        case m.Endpoint():
            message.endpoint.CopyFrom(endpoint_to_proto(r.content))
        case m.Upstream():
            message.upstream.CopyFrom(upstream_to_proto(r.content))
        case m.Relay():
            message.relay.CopyFrom(relay_to_proto(r.content))
        case m.ClientKey():
            message.client_key.CopyFrom(client_key_to_proto(r.content))
    return message


def resource_from_proto(p: routing_pb2.Resource) -> m.Resource:
    content: m.Content | None
    match p.WhichOneof("resource"):
        case "route":
            content = route_from_proto(p.route)
        case "endpoint":
            content = endpoint_from_proto(p.endpoint)
        case "upstream":
            content = upstream_from_proto(p.upstream)
        case "relay":
            content = relay_from_proto(p.relay)
        case "client_key":
            content = client_key_from_proto(p.client_key)
        case _:
            content = None
    return m.Resource(name=p.name, version=p.version, content=content)
