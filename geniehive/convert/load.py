"""What is going on: the load of services and machines."""

from typing import Any

from google.protobuf.message import Message

from geniehive.rules import model as m
from geniehive.v1 import load_pb2, node_service_pb2

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


def brief_load_from_proto(p: load_pb2.ServiceLoad) -> m.ServiceLoad:
    """What requests are balanced by, and nothing else: these come by the thousand a second."""
    assets = [
        m.AssetLoad(
            upstream_name=a.upstream_name,
            running=a.running if a.HasField("running") else None,
            queued=a.queued if a.HasField("queued") else None,
        )
        for a in p.assets
    ]
    return m.ServiceLoad(
        service=p.service,
        age_seconds=p.age_seconds if p.HasField("age_seconds") else None,
        running=p.running if p.HasField("running") else None,
        queued=p.queued if p.HasField("queued") else None,
        relayed=p.relayed if p.HasField("relayed") else None,
        assets=tuple(a for a in assets if a.running is not None or a.queued is not None),
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
