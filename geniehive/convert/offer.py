"""What a node offers: hosts, services, models with their policies, the ways to them, inventories."""

from collections.abc import Collection
from functools import lru_cache
from sys import intern

from geniehive.convert.fields import enum, enums, get, labels, put, seconds, timestamp
from geniehive.rules import model as m
from geniehive.rules.operations import Ability, Operation
from geniehive.v1 import node_service_pb2, registry_pb2, request_pb2, routing_pb2

# A larger one is not remembered.
_USUAL_BYTES = 1024


def condition_to_proto(c: m.Condition) -> registry_pb2.Condition:
    message = registry_pb2.Condition(
        health=c.health,  # type: ignore[arg-type]
        availability=c.availability,  # type: ignore[arg-type]
        reason=c.reason,  # type: ignore[arg-type]
        detail=c.detail,
    )
    if c.since is not None:
        message.since_time.CopyFrom(timestamp(c.since))
    return message


def condition_from_proto(p: registry_pb2.Condition) -> m.Condition:
    if p.HasField("since_time"):
        since, detail = seconds(p.since_time), p.detail
    elif not (detail := p.detail):
        return _plain_condition(p.health, p.availability, p.reason)
    else:
        since = None
    return m.Condition(
        health=enum(m.Health, p.health),
        availability=enum(m.Availability, p.availability),
        reason=enum(m.Reason, p.reason),
        detail=detail,
        since=since,
    )


@lru_cache(maxsize=256)
def _plain_condition(health: int, availability: int, reason: int) -> m.Condition:
    return m.Condition(
        health=enum(m.Health, health),
        availability=enum(m.Availability, availability),
        reason=enum(m.Reason, reason),
    )


def host_to_proto(h: m.Host) -> registry_pb2.Host:
    return registry_pb2.Host(
        host_id=h.host_id,
        display_name=h.display_name,
        labels=h.labels,
        trust_tier=h.trust_tier,
        device_class=h.device_class,
        workload_classes=h.workload_classes,
        machine=_machine_to_proto(h.machine),
        condition=condition_to_proto(h.condition),
    )


def host_from_proto(p: registry_pb2.Host) -> m.Host:
    return m.Host(
        host_id=p.host_id,
        display_name=p.display_name,
        labels=labels(p.labels),
        trust_tier=p.trust_tier,
        device_class=p.device_class,
        workload_classes=tuple(p.workload_classes),
        machine=_machine_from_proto(p.machine),
        condition=condition_from_proto(p.condition),
    )


def _machine_to_proto(machine: m.Machine) -> registry_pb2.Machine:
    message = registry_pb2.Machine(os=machine.os, architecture=machine.architecture, cpu_model=machine.cpu_model)
    put(message, cpu_threads=machine.cpu_threads, memory_bytes=machine.memory_bytes, disk_bytes=machine.disk_bytes)
    for gpu in machine.gpus:
        added = message.gpus.add(index=gpu.index, name=gpu.name, unified_memory=gpu.unified_memory)
        put(added, memory_bytes=gpu.memory_bytes)
    return message


def _machine_from_proto(p: registry_pb2.Machine) -> m.Machine:
    return m.Machine(
        os=intern(p.os),
        architecture=intern(p.architecture),
        cpu_model=intern(p.cpu_model),
        cpu_threads=get(p, "cpu_threads"),
        memory_bytes=get(p, "memory_bytes"),
        disk_bytes=get(p, "disk_bytes"),
        gpus=tuple(
            m.Gpu(index=g.index, name=g.name, memory_bytes=get(g, "memory_bytes"), unified_memory=g.unified_memory)
            for g in p.gpus
        ),
    )


def way_to_proto(w: m.Way) -> registry_pb2.Way:
    if w.direct_url is None:
        return registry_pb2.Way(relayed=registry_pb2.Way.Relayed(), reason=w.reason)
    direct = registry_pb2.Way.Direct(base_url=w.direct_url, same_host_only=w.same_host_only)
    return registry_pb2.Way(direct=direct, reason=w.reason)


def way_from_proto(p: registry_pb2.Way) -> m.Way | None:
    """None for a kind of way that this version does not know."""
    match p.WhichOneof("way"):
        case "direct":
            return m.Way(direct_url=p.direct.base_url, same_host_only=p.direct.same_host_only, reason=p.reason)
        case "relayed":
            return m.Way(reason=p.reason)
    return None


def ways_from_proto(ways: Collection[registry_pb2.Way]) -> tuple[m.Way, ...]:
    found = tuple(way for way in map(way_from_proto, ways) if way is not None)
    return _alike(found) if sum(way.ByteSize() for way in ways) <= _USUAL_BYTES else found


# The ways of the services of one machine are mostly the same, and so are those by loopback of many machines.
@lru_cache(maxsize=4096)
def _alike(ways: tuple[m.Way, ...]) -> tuple[m.Way, ...]:
    """Of equal ones the first."""
    return ways


def asset_to_proto(a: m.Asset) -> registry_pb2.Asset:
    message = registry_pb2.Asset(
        asset_id=a.asset_id,
        upstream_name=a.upstream_name,
        operations=a.operations,  # type: ignore[arg-type]
        abilities=a.abilities,  # type: ignore[arg-type]
        lacking_abilities=a.lacking_abilities,  # type: ignore[arg-type]
        family=a.family,
        quantization=a.quantization,
        digest=a.digest,
        load_state=a.load_state,  # type: ignore[arg-type]
    )
    put(
        message,
        context_tokens=a.context_tokens,
        max_context_tokens=a.max_context_tokens,
        parameter_count=a.parameter_count,
        size_bytes=a.size_bytes,
        slots=a.slots,
    )
    message.request_policies.extend(map(policy_to_proto, a.request_policies))
    return message


def asset_from_proto(p: registry_pb2.Asset) -> m.Asset:
    serialized = p.SerializeToString()
    return _asset(serialized) if len(serialized) <= _USUAL_BYTES else _asset.__wrapped__(serialized)


# Of a thousand machines many have the same models, which need be neither made nor kept a thousand times.
@lru_cache(maxsize=4096)
def _asset(serialized: bytes) -> m.Asset:
    p = registry_pb2.Asset.FromString(serialized)
    return m.Asset(
        asset_id=p.asset_id,
        upstream_name=p.upstream_name,
        operations=enums(Operation, p.operations),
        abilities=enums(Ability, p.abilities),
        lacking_abilities=enums(Ability, p.lacking_abilities),
        context_tokens=get(p, "context_tokens"),
        max_context_tokens=get(p, "max_context_tokens"),
        family=p.family,
        quantization=p.quantization,
        digest=p.digest,
        parameter_count=get(p, "parameter_count"),
        size_bytes=get(p, "size_bytes"),
        load_state=enum(m.LoadState, p.load_state),
        slots=get(p, "slots"),
        request_policies=tuple(map(policy_from_proto, p.request_policies)),
    )


def policy_to_proto(policy: m.RequestPolicy) -> request_pb2.RequestPolicy:
    message = request_pb2.RequestPolicy(
        operations=policy.operations,  # type: ignore[arg-type]
        defaults_json=policy.defaults_json,
        overrides_json=policy.overrides_json,
    )
    put(message, user_template=policy.user_template)
    if (prompt := policy.system_prompt) is not None:
        setattr(message.system_prompt, prompt.action.name.lower(), prompt.text)
    return message


def policy_from_proto(p: request_pb2.RequestPolicy) -> m.RequestPolicy:
    prompt = None
    if (action := p.system_prompt.WhichOneof("action")) is not None:
        prompt = m.SystemPrompt(action=m.PromptAction[action.upper()], text=getattr(p.system_prompt, action))
    return m.RequestPolicy(
        operations=enums(Operation, p.operations),
        defaults_json=p.defaults_json,
        overrides_json=p.overrides_json,
        system_prompt=prompt,
        user_template=get(p, "user_template"),
    )


def service_to_proto(s: m.Service) -> registry_pb2.Service:
    message = registry_pb2.Service(
        service=s.service,
        runtime=s.runtime,
        runtime_version=s.runtime_version,
        labels=s.labels,
        operations=s.operations,  # type: ignore[arg-type]
        assets=map(asset_to_proto, s.assets),
        omitted_asset_count=s.omitted_asset_count,
        ways=map(way_to_proto, s.ways),
        hosted=s.hosted,
        demo=s.demo,
        can_load=s.can_load,
        can_unload=s.can_unload,
        loads_on_request=s.loads_on_request,
        condition=condition_to_proto(s.condition),
    )
    put(message, slots=s.slots, concurrency_limit=s.concurrency_limit, accept_requests=s.accept_requests)
    return message


def service_from_proto(p: registry_pb2.Service) -> m.Service:
    return m.Service(
        service=p.service,
        runtime=intern(p.runtime),
        runtime_version=intern(p.runtime_version),
        labels=labels(p.labels),
        operations=enums(Operation, p.operations),
        assets=tuple(map(asset_from_proto, p.assets)),
        omitted_asset_count=p.omitted_asset_count,
        ways=ways_from_proto(p.ways),
        slots=get(p, "slots"),
        concurrency_limit=get(p, "concurrency_limit"),
        accept_requests=get(p, "accept_requests"),
        hosted=p.hosted,
        demo=p.demo,
        can_load=p.can_load,
        can_unload=p.can_unload,
        loads_on_request=p.loads_on_request,
        condition=condition_from_proto(p.condition),
    )


def relay_to_proto(r: m.Relay) -> routing_pb2.Relay:
    message = routing_pb2.Relay(host_id=r.host_id, base_urls=r.base_urls)
    put(message, token=r.token)
    return message


def relay_from_proto(p: routing_pb2.Relay) -> m.Relay:
    return m.Relay(host_id=p.host_id, base_urls=tuple(p.base_urls), token=get(p, "token"))


def inventory_to_proto(i: m.Inventory) -> node_service_pb2.Inventory:
    message = node_service_pb2.Inventory(
        revision=i.revision, host=host_to_proto(i.host), services=map(service_to_proto, i.services)
    )
    if i.relay is not None:
        message.relay.CopyFrom(relay_to_proto(i.relay))
    return message


def inventory_from_proto(p: node_service_pb2.Inventory) -> m.Inventory:
    return m.Inventory(
        revision=p.revision,
        host=host_from_proto(p.host),
        services=tuple(map(service_from_proto, p.services)),
        relay=relay_from_proto(p.relay) if p.HasField("relay") else None,
    )
