"""What operators and measurements say of models: roles, aliases, benchmark samples."""

from geniehive.convert.fields import enum, enums, get, put, seconds, timestamp
from geniehive.convert.offer import policy_from_proto, policy_to_proto
from geniehive.rules import model as m
from geniehive.rules.operations import Ability, Operation
from geniehive.v1 import benchmark_pb2, role_pb2

_MEASURED = ("correctness", "first_token_seconds", "prefill_tokens_per_second", "decode_tokens_per_second")


def role_to_proto(r: m.Role) -> role_pb2.Role:
    return role_pb2.Role(
        role_id=r.role_id,
        display_name=r.display_name,
        description=r.description,
        operation=r.operation,  # type: ignore[arg-type]
        modality=r.modality,
        request_policy=None if r.request_policy is None else policy_to_proto(r.request_policy),
        routing_policy=_routing_policy_to_proto(r.routing_policy),
        owner=r.owner,  # type: ignore[arg-type]
        etag=r.etag,
    )


def role_from_proto(p: role_pb2.Role) -> m.Role:
    """ValueError for an operation that this version does not know."""
    return m.Role(
        role_id=p.role_id,
        display_name=p.display_name,
        description=p.description,
        operation=Operation(p.operation),
        modality=p.modality,
        request_policy=policy_from_proto(p.request_policy) if p.HasField("request_policy") else None,
        routing_policy=_routing_policy_from_proto(p.routing_policy),
        owner=enum(m.Owner, p.owner),
        etag=p.etag,
    )


def _rule_to_proto(r: m.Rule) -> role_pb2.RoutingPolicy.Rule | None:
    return None if r == m.Rule() else role_pb2.RoutingPolicy.Rule(allowed=r.allowed, denied=r.denied)


def _rule_from_proto(p: role_pb2.RoutingPolicy.Rule) -> m.Rule:
    return m.Rule(allowed=tuple(p.allowed), denied=tuple(p.denied))


def _routing_policy_to_proto(r: m.RoutingPolicy) -> role_pb2.RoutingPolicy:
    message = role_pb2.RoutingPolicy(
        preferred_families=r.preferred_families,
        preferred_labels=r.preferred_labels,
        require_loaded=r.require_loaded,
        required_abilities=r.required_abilities,  # type: ignore[arg-type]
        trust_tiers=_rule_to_proto(r.trust_tiers),
        device_classes=_rule_to_proto(r.device_classes),
        workload_classes=_rule_to_proto(r.workload_classes),
        fallback_role_ids=r.fallback_role_ids,
        strategy=r.strategy,  # type: ignore[arg-type]
    )
    put(message, min_context_tokens=r.min_context_tokens, allow_hosted=r.allow_hosted)
    return message


def _routing_policy_from_proto(p: role_pb2.RoutingPolicy) -> m.RoutingPolicy:
    return m.RoutingPolicy(
        preferred_families=tuple(p.preferred_families),
        preferred_labels=dict(p.preferred_labels),
        min_context_tokens=get(p, "min_context_tokens"),
        require_loaded=p.require_loaded,
        required_abilities=enums(Ability, p.required_abilities),
        trust_tiers=_rule_from_proto(p.trust_tiers),
        device_classes=_rule_from_proto(p.device_classes),
        workload_classes=_rule_from_proto(p.workload_classes),
        allow_hosted=get(p, "allow_hosted"),
        fallback_role_ids=tuple(p.fallback_role_ids),
        strategy=enum(m.Strategy, p.strategy),
    )


def alias_to_proto(a: m.Alias) -> role_pb2.Alias:
    return role_pb2.Alias(alias=a.alias, target=a.target, owner=a.owner, etag=a.etag)  # type: ignore[arg-type]


def alias_from_proto(p: role_pb2.Alias) -> m.Alias:
    return m.Alias(alias=p.alias, target=p.target, owner=enum(m.Owner, p.owner), etag=p.etag)


def sample_to_proto(s: m.BenchmarkSample) -> benchmark_pb2.BenchmarkSample:
    message = benchmark_pb2.BenchmarkSample(
        sample_id=s.sample_id,
        service=s.service,
        asset_id=s.asset_id,
        workload=s.workload,
        measure_time=timestamp(s.measured),
        request_count=s.request_count,
    )
    put(message, **{name: getattr(s, name) for name in _MEASURED})
    return message


def sample_from_proto(p: benchmark_pb2.BenchmarkSample) -> m.BenchmarkSample:
    return m.BenchmarkSample(
        sample_id=p.sample_id,
        service=p.service,
        asset_id=p.asset_id,
        workload=p.workload,
        measured=seconds(p.measure_time),
        request_count=p.request_count,
        **{name: get(p, name) for name in _MEASURED},
    )
