"""`geniehive status`: how the cluster is."""

import argparse
from typing import TYPE_CHECKING, Any

from geniehive.cli import common, output
from geniehive.cli.output import Cell, Tone
from geniehive.kit.errors import EXIT_OK

if TYPE_CHECKING:
    from geniehive.cli.common import Commands

_MOST_EJECTED = 4
_TONES: dict[str, Tone] = {
    "healthy": "good",
    "available": "good",
    "busy": "warn",
    "degraded": "warn",
    "draining": "warn",
    "paused": "warn",
    "presumed": "warn",
    "unhealthy": "bad",
    "offline": "bad",
    "quarantined": "bad",
}


def add(commands: "Commands") -> None:
    made = common.add_command(
        commands,
        "status",
        "show hosts, services, gateways and warnings",
        run,
        "Show how the cluster is: hosts, their services and whether they are routed to, gateways, and what an\n"
        "operator should look at.",
    )
    common.add_control_options(made)


def run(given: argparse.Namespace) -> int:
    from geniehive.cli import views
    from geniehive.v1 import registry_service_pb2 as pb

    with common.connected(given) as hive:
        health = hive.registry.GetClusterHealth(pb.GetClusterHealthRequest()).health
        hosts = hive.list_hosts()
        services = hive.list_services()
    report = {
        "cluster": views.cluster(health),
        "hosts": [views.host(h) for h in hosts],
        "services": [views.service(s) for s in services],
        "gateways": [views.gateway(g) for g in health.gateways],
        "warnings": list(health.warnings),
    }
    if given.json:
        output.show_json(report)
    else:
        show(report)
    return EXIT_OK


def show(report: dict[str, Any]) -> None:
    from geniehive.cli import views

    _show_cluster(report["cluster"], report["gateways"])
    print()
    output.show_table(
        ("HOST", "STATE", "SINCE", "WHY", "SEEN", "VERSION"),
        [
            (
                h["host_id"],
                state_cell(h["condition"]),
                views.ago(h["condition"]["since"]),
                views.why(h["condition"]),
                views.ago(h["last_seen"]),
                h["agent_version"],
            )
            for h in report["hosts"]
        ],
    )
    print()
    output.show_table(
        ("SERVICE", "RUNTIME", "STATE", "ROUTED", "WHY", "WAY", "MODELS"),
        [
            (
                s["service"],
                " ".join(filter(None, (s["runtime"], s["runtime_version"]))) + _labels(s),
                state_cell(s["condition"]),
                Cell("yes", "good") if s["routable"] else Cell("no", "bad"),
                _why(s),
                _way(s),
                _models(s),
            )
            for s in report["services"]
        ],
    )
    for service in report["services"]:
        for refused in service["refused"]:
            output.warn(f"{service['service']}: refused: {refused['message']}")
    for warning in report["warnings"]:
        output.warn(warning)


def _show_cluster(cluster: dict[str, Any], gateways: list[dict[str, Any]]) -> None:
    lines = [
        ("cluster", f"{cluster['cluster_id']}, {cluster['health']}"),
        ("hosts", f"{cluster['hosts_online']} of {cluster['host_count']} online"),
        ("services", f"{cluster['services_routable']} of {cluster['service_count']} routed to"),
    ]
    if cluster["restart_grace_ends"]:
        lines.append(("restarted", f"hosts presumed alive until {cluster['restart_grace_ends']}"))
    if cluster["store"]:
        lines.append(("store", f"writes fail: {cluster['store']['message']}"))
    for gateway in gateways:
        if gateway["rejected"]:
            state = f"keeps an older table: {gateway['rejected']['message']}"
        elif not gateway["instance_id"]:
            state = "away"
        else:
            state = "current" if gateway["current"] else "behind"
        if ejected := gateway["ejected_endpoints"]:
            names = ", ".join(name.removeprefix("endpoint/") for name in ejected[:_MOST_EJECTED])
            more = f" and {len(ejected) - _MOST_EJECTED} more" if len(ejected) > _MOST_EJECTED else ""
            state += f", leaves out for now, since they failed: {names}{more}"
        lines.append(("gateway", f"{gateway['gateway_id']} {gateway['base_url']} {state}"))
    if not gateways:
        lines.append(("gateway", "none connected"))
    output.show_lines(lines)


def state_cell(condition: dict[str, Any]) -> Cell:
    """One word of two: availability where that keeps work away or is all there is, else health."""
    word = condition["availability"]
    if word in ("available", "unknown") and condition["health"] != "unknown":
        word = condition["health"]
    return Cell(word, _TONES.get(word, ""))


def _labels(service: dict[str, Any]) -> str:
    marks = [mark for mark in ("demo", "hosted") if service[mark]]
    return f" ({', '.join(marks)})" if marks else ""


def _why(service: dict[str, Any]) -> str:
    from geniehive.cli import views

    condition = service["condition"]
    if service["routable"] and condition["health"] == "healthy":
        return ""
    # What to do about that stands with the ways.
    if _is_cut_off(service):
        return str(condition["reason"])
    why = views.why(condition)
    # The other sides, control's probe and gateways' reports, name themselves.
    return f"its node says: {why}" if condition["reason"] == "engine" and condition["detail"] else why


def _is_cut_off(service: dict[str, Any]) -> bool:
    return not service["ways"] and service["condition"]["reason"] == "unreachable"


def _way(service: dict[str, Any]) -> str:
    """The way preferred, why, and what else there is; if there is none, what to do about it."""
    ways = service["ways"]
    if not ways:
        detail = service["condition"]["detail"]
        return f"none: {detail}" if detail and _is_cut_off(service) else "none"
    names = [w["kind"] + (" on its host" if w["same_host_only"] else "") for w in ways]
    reason = f" ({ways[0]['reason']})" if ways[0]["reason"] else ""
    return f"{names[0]}{reason}" + "".join(f", else {name}" for name in names[1:])


def _models(service: dict[str, Any], most: int = 4) -> str:
    names = [m["model"] for m in service["models"]]
    more = len(names) + service["omitted_model_count"] - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
