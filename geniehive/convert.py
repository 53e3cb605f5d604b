"""Messages of the contract <-> the shared nouns of `geniehive.rules.model`.

`x_to_proto` and `x_from_proto` for each noun. Unset fields become None and back. Numbers of enums that this version
does not know become the zero value, or are left out of lists.
"""

from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from geniehive.rules import model as m
from geniehive.rules.operations import Ability, Operation
from geniehive.v1 import credential_pb2, load_pb2, node_service_pb2, registry_pb2, request_pb2, routing_pb2

E = TypeVar("E", bound=IntEnum)

# A larger one is not remembered.
_USUAL_ASSET_BYTES = 1024


def _set(message: Message, **values: Any) -> None:
    """Sets the fields whose value is not None: unset is not zero."""
    for name, value in values.items():
        if value is not None:
            setattr(message, name, value)


def _get(message: Message, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


# Both look into the table that enums have anyway: to call the enum costs several times as much.
def _enum(kind: type[E], number: int) -> E:
    found: Any = kind._value2member_map_.get(number)
    return kind(0) if found is None else found


def _enums(kind: type[E], numbers: Iterable[int]) -> tuple[E, ...]:
    known: Any = kind._value2member_map_
    return tuple(known[n] for n in numbers if n in known)


def timestamp(seconds: float) -> Timestamp:
    # By parts: the whole in nanoseconds is more than a float can hold, and a time would not come back as it went.
    whole, fraction = divmod(seconds, 1)
    stamp = Timestamp()
    stamp.FromNanoseconds(int(whole) * 10**9 + round(fraction * 1e9))
    return stamp


def seconds(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos / 1e9


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
    return m.Condition(
        health=_enum(m.Health, p.health),
        availability=_enum(m.Availability, p.availability),
        reason=_enum(m.Reason, p.reason),
        detail=p.detail,
        since=seconds(p.since_time) if p.HasField("since_time") else None,
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
        labels=dict(p.labels),
        trust_tier=p.trust_tier,
        device_class=p.device_class,
        workload_classes=tuple(p.workload_classes),
        machine=_machine_from_proto(p.machine),
        condition=condition_from_proto(p.condition),
    )


def _machine_to_proto(machine: m.Machine) -> registry_pb2.Machine:
    message = registry_pb2.Machine(os=machine.os, architecture=machine.architecture, cpu_model=machine.cpu_model)
    _set(message, cpu_threads=machine.cpu_threads, memory_bytes=machine.memory_bytes, disk_bytes=machine.disk_bytes)
    for gpu in machine.gpus:
        added = message.gpus.add(index=gpu.index, name=gpu.name, unified_memory=gpu.unified_memory)
        _set(added, memory_bytes=gpu.memory_bytes)
    return message


def _machine_from_proto(p: registry_pb2.Machine) -> m.Machine:
    return m.Machine(
        os=p.os,
        architecture=p.architecture,
        cpu_model=p.cpu_model,
        cpu_threads=_get(p, "cpu_threads"),
        memory_bytes=_get(p, "memory_bytes"),
        disk_bytes=_get(p, "disk_bytes"),
        gpus=tuple(
            m.Gpu(index=g.index, name=g.name, memory_bytes=_get(g, "memory_bytes"), unified_memory=g.unified_memory)
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


def _ways_from_proto(ways: Iterable[registry_pb2.Way]) -> tuple[m.Way, ...]:
    return tuple(way for way in map(way_from_proto, ways) if way is not None)


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
    _set(
        message,
        context_tokens=a.context_tokens,
        max_context_tokens=a.max_context_tokens,
        parameter_count=a.parameter_count,
        size_bytes=a.size_bytes,
        slots=a.slots,
    )
    message.request_policies.extend(map(_policy_to_proto, a.request_policies))
    return message


def asset_from_proto(p: registry_pb2.Asset) -> m.Asset:
    serialized = p.SerializeToString()
    return _asset(serialized) if len(serialized) <= _USUAL_ASSET_BYTES else _asset.__wrapped__(serialized)


# Of a thousand machines many have the same models, which need be neither made nor kept a thousand times.
@lru_cache(maxsize=4096)
def _asset(serialized: bytes) -> m.Asset:
    p = registry_pb2.Asset.FromString(serialized)
    return m.Asset(
        asset_id=p.asset_id,
        upstream_name=p.upstream_name,
        operations=_enums(Operation, p.operations),
        abilities=_enums(Ability, p.abilities),
        lacking_abilities=_enums(Ability, p.lacking_abilities),
        context_tokens=_get(p, "context_tokens"),
        max_context_tokens=_get(p, "max_context_tokens"),
        family=p.family,
        quantization=p.quantization,
        digest=p.digest,
        parameter_count=_get(p, "parameter_count"),
        size_bytes=_get(p, "size_bytes"),
        load_state=_enum(m.LoadState, p.load_state),
        slots=_get(p, "slots"),
        request_policies=tuple(map(_policy_from_proto, p.request_policies)),
    )


def _policy_to_proto(policy: m.RequestPolicy) -> request_pb2.RequestPolicy:
    message = request_pb2.RequestPolicy(
        operations=policy.operations,  # type: ignore[arg-type]
        defaults_json=policy.defaults_json,
        overrides_json=policy.overrides_json,
    )
    _set(message, user_template=policy.user_template)
    if (prompt := policy.system_prompt) is not None:
        setattr(message.system_prompt, prompt.action.name.lower(), prompt.text)
    return message


def _policy_from_proto(p: request_pb2.RequestPolicy) -> m.RequestPolicy:
    prompt = None
    if (action := p.system_prompt.WhichOneof("action")) is not None:
        prompt = m.SystemPrompt(action=m.PromptAction[action.upper()], text=getattr(p.system_prompt, action))
    return m.RequestPolicy(
        operations=_enums(Operation, p.operations),
        defaults_json=p.defaults_json,
        overrides_json=p.overrides_json,
        system_prompt=prompt,
        user_template=_get(p, "user_template"),
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
    _set(message, slots=s.slots, concurrency_limit=s.concurrency_limit, accept_requests=s.accept_requests)
    return message


def service_from_proto(p: registry_pb2.Service) -> m.Service:
    return m.Service(
        service=p.service,
        runtime=p.runtime,
        runtime_version=p.runtime_version,
        labels=dict(p.labels),
        operations=_enums(Operation, p.operations),
        assets=tuple(map(asset_from_proto, p.assets)),
        omitted_asset_count=p.omitted_asset_count,
        ways=_ways_from_proto(p.ways),
        slots=_get(p, "slots"),
        concurrency_limit=_get(p, "concurrency_limit"),
        accept_requests=_get(p, "accept_requests"),
        hosted=p.hosted,
        demo=p.demo,
        can_load=p.can_load,
        can_unload=p.can_unload,
        loads_on_request=p.loads_on_request,
        condition=condition_from_proto(p.condition),
    )


def relay_to_proto(r: m.Relay) -> routing_pb2.Relay:
    message = routing_pb2.Relay(host_id=r.host_id, base_urls=r.base_urls)
    _set(message, token=r.token)
    return message


def relay_from_proto(p: routing_pb2.Relay) -> m.Relay:
    return m.Relay(host_id=p.host_id, base_urls=tuple(p.base_urls), token=_get(p, "token"))


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


_SERVICE_FIGURES = (
    "age_seconds",
    "running",
    "queued",
    "relayed",
    "tokens_per_second",
    "cache_used_fraction",
    "latency_p50_seconds",
    "latency_p95_seconds",
    "first_token_p50_seconds",
)
_ASSET_FIGURES = ("running", "queued", "memory_bytes", "idle_seconds")
_MACHINE_FIGURES = (
    "cpu_used_fraction",
    "load_average",
    "memory_used_bytes",
    "memory_engines_bytes",
    "disk_free_bytes",
)
_GPU_FIGURES = (
    "used_fraction",
    "memory_used_bytes",
    "memory_engines_bytes",
    "temperature_celsius",
    "power_watts",
)


def _figures_to(message: Message, value: m.Value, names: tuple[str, ...]) -> None:
    for name in names:
        figure = getattr(value, name)
        if figure is not None:
            setattr(message, name, figure)


def _figures_from(message: Message, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def service_load_to_proto(load: m.ServiceLoad) -> load_pb2.ServiceLoad:
    message = load_pb2.ServiceLoad(service=load.service)
    _figures_to(message, load, _SERVICE_FIGURES)
    for asset in load.assets:
        _figures_to(message.assets.add(upstream_name=asset.upstream_name), asset, _ASSET_FIGURES)
    return message


def service_load_from_proto(p: load_pb2.ServiceLoad) -> m.ServiceLoad:
    return m.ServiceLoad(
        service=p.service,
        assets=tuple(m.AssetLoad(upstream_name=a.upstream_name, **_figures_from(a, _ASSET_FIGURES)) for a in p.assets),
        **_figures_from(p, _SERVICE_FIGURES),
    )


def machine_load_to_proto(load: m.MachineLoad) -> load_pb2.MachineLoad:
    message = load_pb2.MachineLoad(host_id=load.host_id)
    _figures_to(message, load, _MACHINE_FIGURES)
    for gpu in load.gpus:
        _figures_to(message.gpus.add(index=gpu.index), gpu, _GPU_FIGURES)
    return message


def machine_load_from_proto(p: load_pb2.MachineLoad) -> m.MachineLoad:
    return m.MachineLoad(
        host_id=p.host_id,
        gpus=tuple(m.GpuLoad(index=g.index, **_figures_from(g, _GPU_FIGURES)) for g in p.gpus),
        **_figures_from(p, _MACHINE_FIGURES),
    )


def load_to_proto(load: m.Load) -> node_service_pb2.Load:
    message = node_service_pb2.Load(services=map(service_load_to_proto, load.services))
    if load.machine is not None:
        message.machine.CopyFrom(machine_load_to_proto(load.machine))
    return message


def load_from_proto(p: node_service_pb2.Load) -> m.Load:
    return m.Load(
        machine=machine_load_from_proto(p.machine) if p.HasField("machine") else None,
        services=tuple(map(service_load_from_proto, p.services)),
    )


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
        scopes=_enums(m.Scope, p.scopes),
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
    _set(message, slots=u.slots, concurrency_limit=u.concurrency_limit)
    return message


def upstream_from_proto(p: routing_pb2.Upstream) -> m.Upstream:
    return m.Upstream(
        service=p.service,
        runtime=p.runtime,
        routable=p.routable,
        condition=condition_from_proto(p.condition),
        ways=_ways_from_proto(p.ways),
        slots=_get(p, "slots"),
        concurrency_limit=_get(p, "concurrency_limit"),
        hosted=p.hosted,
        demo=p.demo,
    )


def endpoint_to_proto(e: m.Endpoint) -> routing_pb2.Endpoint:
    return routing_pb2.Endpoint(service=e.service, asset=asset_to_proto(e.asset))


def endpoint_from_proto(p: routing_pb2.Endpoint) -> m.Endpoint:
    return m.Endpoint(service=p.service, asset=asset_from_proto(p.asset))


def ruled_out_to_proto(r: m.RuledOut) -> routing_pb2.RuledOut:
    return routing_pb2.RuledOut(endpoint=r.endpoint, gate=r.gate, reason=r.reason)  # type: ignore[arg-type]


def _ruled_out_from_proto(p: routing_pb2.RuledOut) -> m.RuledOut:
    return m.RuledOut(endpoint=p.endpoint, gate=_enum(m.Gate, p.gate), reason=p.reason)


def route_to_proto(r: m.Route) -> routing_pb2.Route:
    return routing_pb2.Route(
        model=r.model,
        glob=r.glob,
        branches=map(_branch_to_proto, r.branches),
        shadows=r.shadows,  # type: ignore[arg-type]
        display_name=r.display_name,
        description=r.description,
    )


def _branch_to_proto(b: m.Branch) -> routing_pb2.Branch:
    return routing_pb2.Branch(
        operations=b.operations,  # type: ignore[arg-type]
        kind=b.kind,  # type: ignore[arg-type]
        target=b.target,
        choose_from=b.choose_from,
        tiers=(
            routing_pb2.Tier(
                label=t.label,
                strategy=t.strategy,  # type: ignore[arg-type]
                request_policy=None if t.request_policy is None else _policy_to_proto(t.request_policy),
                endpoints=(
                    routing_pb2.TierEndpoint(endpoint=e.endpoint, weight=e.weight, reason=e.reason) for e in t.endpoints
                ),
            )
            for t in b.tiers
        ),
        ruled_out=map(ruled_out_to_proto, b.ruled_out),
    )


def route_from_proto(p: routing_pb2.Route) -> m.Route:
    return m.Route(
        model=p.model,
        glob=p.glob,
        branches=tuple(map(_branch_from_proto, p.branches)),
        shadows=_enums(m.NameKind, p.shadows),
        display_name=p.display_name,
        description=p.description,
    )


def _branch_from_proto(p: routing_pb2.Branch) -> m.Branch:
    return m.Branch(
        operations=_enums(Operation, p.operations),
        kind=_enum(m.NameKind, p.kind),
        target=p.target,
        choose_from=tuple(p.choose_from),
        tiers=tuple(
            m.Tier(
                label=t.label,
                strategy=_enum(m.Strategy, t.strategy),
                request_policy=_policy_from_proto(t.request_policy) if t.HasField("request_policy") else None,
                endpoints=tuple(
                    m.TierEndpoint(endpoint=e.endpoint, weight=e.weight, reason=e.reason) for e in t.endpoints
                ),
            )
            for t in p.tiers
        ),
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
