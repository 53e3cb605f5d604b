"""How the cluster is, and what an operator should look at."""

import msgspec

from geniehive.rules.model import Health, NameKind
from geniehive_control.core.registry import LONGEST_SKEW, Registry
from geniehive_control.core.table import Table
from geniehive_control.core.verdict import Life

_MOST_WARNINGS = 20
_MOST_HIDDEN = 5
_KINDS = {
    NameKind.ASSET: "a model",
    NameKind.SERVICE: "a service",
    NameKind.ROLE: "a role",
}


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    state: Health
    hosts: int
    hosts_online: int
    services: int
    services_routable: int
    warnings: tuple[str, ...]


def summarize(registry: Registry) -> Summary:
    """A presumed host counts as online."""
    hosts = list(registry.hosts())
    online = sum(host.life is not Life.OFFLINE for host in hosts)
    upstreams = list(registry.table.upstreams())
    routable = sum(upstream.routable for upstream in upstreams)
    rejecting = [s for s in registry.subscribers if s.rejected is not None]
    if upstreams and not routable:
        state = Health.UNHEALTHY
    elif online < len(hosts) or routable < len(upstreams) or rejecting or registry.store_failure is not None:
        state = Health.DEGRADED
    else:
        state = Health.HEALTHY
    warnings = [] if hosts else ["no host has registered: is a node running?"]
    warnings += registry.catalogue.warnings
    warnings += _shadows(registry.table)
    warnings += [
        f"the clock of host {host.host_id} is {host.clock_skew:+.0f} s off; set it by NTP"
        for host in hosts
        if host.clock_skew is not None and abs(host.clock_skew) > LONGEST_SKEW
    ]
    warnings += [
        f"gateway {subscriber.gateway_id} refused its new table: {subscriber.rejected}" for subscriber in rejecting
    ]
    if len(warnings) > _MOST_WARNINGS:
        warnings = [*warnings[:_MOST_WARNINGS], f"and {len(warnings) - _MOST_WARNINGS} more"]
    return Summary(
        state=state,
        hosts=len(hosts),
        hosts_online=online,
        services=len(upstreams),
        services_routable=routable,
        warnings=tuple(warnings),
    )


def _shadows(table: Table) -> list[str]:
    """Names that hide others; those that a glob hides in one line."""
    found = []
    by_glob: dict[str, list[str]] = {}
    for route in table.routes():
        if not route.shadows:
            continue
        alias = table.naming.aliases.of(route.model)
        if alias is not None and alias.alias != route.model:
            by_glob.setdefault(alias.alias, []).append(route.model)
            continue
        kinds = ", ".join(_KINDS[kind] for kind in route.shadows)
        found.append(f"the name {route.model} also stands for {kinds}, which it hides; rename one of them")
    for glob, hidden in sorted(by_glob.items()):
        shown = ", ".join(sorted(hidden)[:_MOST_HIDDEN])
        more = f" and {len(hidden) - _MOST_HIDDEN} more" if len(hidden) > _MOST_HIDDEN else ""
        found.append(f"alias {glob} hides what is called {shown}{more}; narrow it if that is not meant")
    return found
