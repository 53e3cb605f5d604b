"""Hosts, services, gateways and the cluster as the contract shows them."""

from google.protobuf.duration_pb2 import Duration

from geniehive import convert, failures
from geniehive.failures import Refused
from geniehive.rules import names
from geniehive.rules.model import Service
from geniehive.v1 import failure_pb2, registry_service_pb2
from geniehive_control.core.effects import Refused as RefusedItem
from geniehive_control.core.events import Now
from geniehive_control.core.figures import Figures
from geniehive_control.core.hosts import HostState
from geniehive_control.core.registry import Registry
from geniehive_control.core.subscriber import Subscriber
from geniehive_control.core.summary import summarize
from geniehive_control.core.verdict import Life
from geniehive_control.rpc.errors import to_refused


def duration(seconds: float) -> Duration:
    made = Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


def refused_item(item: RefusedItem) -> failure_pb2.Failure:
    return failures.to_failure(to_refused(item.refusal))


def host_view(host: HostState, now: Now | None) -> registry_service_pb2.HostView:
    """`now` None: without its load."""
    assert host.info is not None
    view = registry_service_pb2.HostView(
        host=convert.host_to_proto(host.info),
        condition=convert.condition_to_proto(host.condition),
        agent_version=host.agent_version,
        join_time=convert.timestamp(host.joined),
        last_seen_time=convert.timestamp(host.last_seen),
    )
    if host.clock_skew is not None:
        view.clock_skew_seconds = host.clock_skew
    if now is not None and host.machine_load is not None:
        view.load.CopyFrom(convert.machine_load_to_proto(host.machine_load))
    return view


def service_view(
    host: HostState, service: Service, figures: Figures, now: Now | None
) -> registry_service_pb2.ServiceView:
    """`now` None: without its load."""
    view = registry_service_pb2.ServiceView(
        service=convert.service_to_proto(service),
        upstream=convert.upstream_to_proto(host.upstream(service)),
        refused=(refused_item(item) for item in host.refused.get(service.service, ())),
    )
    for asset in service.assets:
        speed = figures.speed(names.endpoint_resource(service.service, asset.upstream_name))
        if speed is not None:
            view.speeds[asset.upstream_name].CopyFrom(convert.speed_to_proto(speed))
    if now is not None and (load := host.load_of(service.service, now)) is not None:
        view.load.CopyFrom(convert.service_load_to_proto(load))
    return view


def gateway_status(subscriber: Subscriber) -> registry_service_pb2.GatewayStatus:
    rejected = None
    if subscriber.rejected is not None:
        refused = Refused(failure_pb2.FAILURE_REASON_TABLE_REJECTED, subscriber.rejected)
        rejected = failures.to_failure(refused)
    return registry_service_pb2.GatewayStatus(
        gateway_id=subscriber.gateway_id,
        instance_id=subscriber.instance_id,
        gateway_version=subscriber.gateway_version,
        base_url=subscriber.base_url,
        connect_time=convert.timestamp(subscriber.connected),
        current=subscriber.current,
        rejected=rejected,
        ejected_endpoints=subscriber.ejected,
    )


def cluster_health(registry: Registry, control_id: str) -> registry_service_pb2.ClusterHealth:
    summary = summarize(registry)
    health = registry_service_pb2.ClusterHealth(
        state=summary.state,  # type: ignore[arg-type]
        cluster_id=registry.cluster_id,
        control_id=control_id,
        start_time=convert.timestamp(registry.started.wall),
        host_count=summary.hosts,
        hosts_online=summary.hosts_online,
        service_count=summary.services,
        services_routable=summary.services_routable,
        gateways=map(gateway_status, sorted(registry.subscribers, key=lambda s: (s.gateway_id, s.instance_id))),
        warnings=summary.warnings,
    )
    if registry.grace_ends is not None and any(host.life is Life.PRESUMED for host in registry.hosts()):
        end = registry.started.wall + registry.grace_ends - registry.started.mono
        health.restart_grace_end_time.CopyFrom(convert.timestamp(end))
    if registry.store_failure is not None:
        refused = Refused(failure_pb2.FAILURE_REASON_STORE_UNAVAILABLE, registry.store_failure)
        health.store.CopyFrom(failures.to_failure(refused))
    return health
