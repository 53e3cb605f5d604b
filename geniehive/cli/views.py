"""Messages of the contract as plain objects: the stable shapes of `--json`.

Keys are never renamed or dropped, only added. What is not known is null. Times are ISO 8601 in UTC; enum values are
their names in lower case without prefix.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from geniehive.v1 import (
    admin_service_pb2,
    benchmark_pb2,
    credential_pb2,
    failure_pb2,
    registry_pb2,
    registry_service_pb2,
    request_pb2,
    routing_pb2,
)

View = dict[str, Any]


class _Enum(Protocol):
    def Name(self, number: Any) -> str: ...


def word(enum: _Enum, prefix: str, number: int) -> str:
    """ "healthy" for HEALTH_STATE_HEALTHY; "unknown" for the unspecified one, the number for one that is too new."""
    try:
        name = enum.Name(number).removeprefix(prefix + "_").lower()
    except ValueError:
        return str(number)
    return "unknown" if name == "unspecified" else name


def time(message: Message, field: str) -> str | None:
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def maybe(message: Message, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def operations(numbers: Iterable[int]) -> list[str]:
    return [word(request_pb2.Operation, "OPERATION", n) for n in numbers]


def failure(message: failure_pb2.Failure) -> View:
    return {
        "reason": word(failure_pb2.FailureReason, "FAILURE_REASON", message.reason),
        "message": message.message,
    }


def condition(message: registry_pb2.Condition) -> View:
    reason = word(registry_pb2.ConditionReason, "CONDITION_REASON", message.reason)
    return {
        "health": word(registry_pb2.HealthState, "HEALTH_STATE", message.health),
        "availability": word(registry_pb2.Availability, "AVAILABILITY", message.availability),
        "reason": None if reason == "unknown" else reason,
        "detail": message.detail,
        "since": time(message, "since_time"),
    }


def sample(message: benchmark_pb2.BenchmarkSample) -> View:
    return {
        "sample_id": message.sample_id,
        "service": message.service,
        "asset_id": message.asset_id,
        "workload": message.workload,
        "measure_time": time(message, "measure_time"),
        "request_count": message.request_count,
        "correctness": maybe(message, "correctness"),
        "first_token_seconds": maybe(message, "first_token_seconds"),
        "prefill_tokens_per_second": maybe(message, "prefill_tokens_per_second"),
        "decode_tokens_per_second": maybe(message, "decode_tokens_per_second"),
    }


def why(state: View) -> str:
    """A condition's reason in words; empty if it gives none."""
    return state["detail"] or (state["reason"] or "").replace("_", " ")


def host(view: registry_service_pb2.HostView) -> View:
    load = view.load
    return {
        "host_id": view.host.host_id,
        "display_name": view.host.display_name,
        "labels": dict(view.host.labels),
        "condition": condition(view.condition),
        "agent_version": view.agent_version,
        "joined": time(view, "join_time"),
        "last_seen": time(view, "last_seen_time"),
        "clock_skew_seconds": maybe(view, "clock_skew_seconds"),
        "drained": view.drained,
        "os": view.host.machine.os,
        "architecture": view.host.machine.architecture,
        "cpu_threads": maybe(view.host.machine, "cpu_threads"),
        "memory_bytes": maybe(view.host.machine, "memory_bytes"),
        "cpu_used_fraction": maybe(load, "cpu_used_fraction"),
        "memory_used_bytes": maybe(load, "memory_used_bytes"),
    }


def way(message: registry_pb2.Way) -> View:
    direct = message.WhichOneof("way") == "direct"
    return {
        "kind": "direct" if direct else "relay",
        "url": message.direct.base_url if direct else None,
        "same_host_only": message.direct.same_host_only if direct else False,
        "reason": message.reason,
    }


def asset(message: registry_pb2.Asset, service: registry_pb2.Service) -> View:
    return {
        "model": message.asset_id,
        "upstream_name": message.upstream_name,
        "operations": operations(message.operations or service.operations),
        "load_state": word(registry_pb2.LoadState, "LOAD_STATE", message.load_state),
        "context_tokens": maybe(message, "context_tokens"),
        "max_context_tokens": maybe(message, "max_context_tokens"),
        "family": message.family,
        "quantization": message.quantization,
    }


def service(view: registry_service_pb2.ServiceView) -> View:
    sent = view.service
    judged = view.HasField("upstream")
    return {
        "service": sent.service,
        "host_id": sent.service.partition("/")[0],
        "runtime": sent.runtime,
        "runtime_version": sent.runtime_version,
        "operations": operations(sent.operations),
        "routable": view.upstream.routable if judged else False,
        "condition": condition(view.upstream.condition if judged else sent.condition),
        "ways": [way(w) for w in (view.upstream.ways if judged else sent.ways)],
        "models": [asset(a, sent) for a in sent.assets],
        "omitted_model_count": sent.omitted_asset_count,
        "hosted": sent.hosted,
        "demo": sent.demo,
        "running": maybe(view.load, "running"),
        "queued": maybe(view.load, "queued"),
        "refused": [failure(f) for f in view.refused],
    }


def gateway(status: registry_service_pb2.GatewayStatus) -> View:
    return {
        "gateway_id": status.gateway_id,
        "instance_id": status.instance_id,
        "version": status.gateway_version,
        "base_url": status.base_url,
        "connected": time(status, "connect_time"),
        "current": status.current,
        "rejected": failure(status.rejected) if status.HasField("rejected") else None,
        "ejected_endpoints": list(status.ejected_endpoints),
    }


def cluster(health: registry_service_pb2.ClusterHealth) -> View:
    return {
        "health": word(registry_pb2.HealthState, "HEALTH_STATE", health.state),
        "cluster_id": health.cluster_id,
        "control_id": health.control_id,
        "started": time(health, "start_time"),
        "restart_grace_ends": time(health, "restart_grace_end_time"),
        "store": failure(health.store) if health.HasField("store") else None,
        "host_count": health.host_count,
        "hosts_online": health.hosts_online,
        "service_count": health.service_count,
        "services_routable": health.services_routable,
    }


def key(message: credential_pb2.ClientKey) -> View:
    return {
        "key_id": message.key_id,
        "name": message.display_name,
        "scopes": [word(credential_pb2.Scope, "SCOPE", s) for s in message.scopes],
        "expires": time(message, "expire_time"),
        "configured": message.configured,
    }


def join_token(message: admin_service_pb2.JoinToken) -> View:
    return {
        "token_id": message.token_id,
        "kinds": [word(credential_pb2.PeerKind, "PEER_KIND", k) for k in message.peer_kinds],
        "uses_left": message.uses_left,
        "expires": time(message, "expire_time"),
    }


# Best first: what a name that several services have is as a whole.
_LOADED = ("loaded", "sleeping", "loading", "unloaded", "failed", "unknown")


def model(route: routing_pb2.Route, services: dict[str, View]) -> View:
    """A name that clients may write. `services`: views of `service` by name."""
    offers = [_offer(name, services) for name in _endpoints(route)]
    contexts = [o["context_tokens"] for o in offers if o["context_tokens"] is not None]
    states = [o["load_state"] for o in offers]
    return {
        "model": route.model,
        "kinds": list(dict.fromkeys(word(routing_pb2.NameKind, "NAME_KIND", b.kind) for b in route.branches)),
        "operations": list(dict.fromkeys(o for b in route.branches for o in operations(b.operations))),
        "usable": any(o["routable"] for o in offers),
        "load_state": min(states, key=_LOADED.index, default="unknown"),
        "context_tokens": max(contexts, default=None),
        "demo": bool(offers) and all(o["demo"] for o in offers),
        "hosted": bool(offers) and all(o["hosted"] for o in offers),
        "choose_from": list(dict.fromkeys(name for b in route.branches for name in b.choose_from)),
        "services": offers,
    }


def _endpoints(route: routing_pb2.Route) -> Sequence[str]:
    found: dict[str, None] = {}
    for branch in route.branches:
        for tier in branch.tiers:
            found.update((e.endpoint, None) for e in tier.endpoints)
        found.update((r.endpoint, None) for r in branch.ruled_out)
    return list(found)


def _offer(endpoint: str, services: dict[str, View]) -> View:
    """endpoint: "endpoint/HOST/SERVICE/UPSTREAM NAME"; the last part may hold slashes."""
    _, host_id, service_id, upstream_name = [*endpoint.split("/", 3), "", "", ""][:4]
    name = f"{host_id}/{service_id}"
    held = services.get(name)
    offered = next((m for m in held["models"] if m["upstream_name"] == upstream_name), None) if held else None
    state = offered["load_state"] if offered else "unknown"
    return {
        "service": name,
        "upstream_name": upstream_name,
        "routable": bool(held and held["routable"]),
        "why": why(held["condition"]) if held and not held["routable"] else "",
        "load_state": state if state in _LOADED else "unknown",
        "context_tokens": offered["context_tokens"] if offered else None,
        "demo": bool(held and held["demo"]),
        "hosted": bool(held and held["hosted"]),
    }


def ago(moment: str | None, now: datetime | None = None) -> str:
    """ "3 min" since a time of a view."""
    if moment is None:
        return ""
    seconds = max(0.0, ((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
