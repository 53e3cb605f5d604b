"""Prints the hosts, services and models of a cluster: `python examples/inventory.py [HOST:PORT]`.

Uses nothing but `pip install geniehive`. On the machine of `geniehive up` address and key are found by themselves;
elsewhere give them by the environment: GENIEHIVE_CONTROL and GENIEHIVE_KEY.
"""

import sys
from collections import defaultdict

import geniehive
from geniehive.failures import Refused
from geniehive.kit.errors import UserError
from geniehive.v1.registry_pb2 import Asset, Availability, HealthState, LoadState
from geniehive.v1.registry_service_pb2 import HostView, ServiceView
from geniehive.v1.request_pb2 import Operation


def word(name: str, prefix: str) -> str:
    """ "AVAILABILITY_BUSY" -> "busy"."""
    short = name.removeprefix(prefix).lower()
    return "unknown" if short == "unspecified" else short


def host_line(view: HostView) -> str:
    availability = word(Availability.Name(view.condition.availability), "AVAILABILITY_")
    name = f" ({view.host.display_name})" if view.host.display_name not in ("", view.host.host_id) else ""
    machine = view.host.machine
    parts = [machine.os, machine.architecture]
    if machine.HasField("memory_bytes"):
        parts.append(f"{machine.memory_bytes / 2**30:.0f} GiB")
    parts += [gpu.name for gpu in machine.gpus]
    return f"{view.host.host_id}{name}: {availability}; {', '.join(filter(None, parts)) or 'unknown machine'}"


def service_line(view: ServiceView) -> str:
    health = word(HealthState.Name(view.upstream.condition.health), "HEALTH_STATE_")
    routable = "routable" if view.upstream.routable else f"not routable: {view.upstream.condition.detail or health}"
    demo = ", demo model" if view.service.demo else ""
    return f"  {view.service.service}: {view.service.runtime} {view.service.runtime_version}".rstrip() + (
        f", {routable}{demo}"
    )


def model_line(view: ServiceView, asset: Asset) -> str:
    operations = asset.operations or view.service.operations
    words = [word(Operation.Name(operation), "OPERATION_") for operation in operations]
    state = word(LoadState.Name(asset.load_state), "LOAD_STATE_")
    context = f", context {asset.context_tokens}" if asset.HasField("context_tokens") else ""
    return f"    {asset.asset_id}: {', '.join(words) or 'no operations'}; {state}{context}"


def print_inventory(hosts: list[HostView], services: list[ServiceView]) -> None:
    by_host: dict[str, list[ServiceView]] = defaultdict(list)
    for service in services:
        by_host[service.service.service.partition("/")[0]].append(service)
    for host in hosts:
        print(host_line(host))
        for service in by_host[host.host.host_id]:
            print(service_line(service))
            for asset in service.service.assets:
                print(model_line(service, asset))
    models = {asset.asset_id for service in services for asset in service.service.assets}
    print(f"{len(hosts)} hosts, {len(services)} services, {len(models)} models")


def main(control: str | None = None) -> int:
    try:
        with geniehive.connect_sync(control) as hive:
            print_inventory(hive.list_hosts(), hive.list_services())
    except (Refused, UserError) as error:
        print(f"inventory: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
