"""A routing table of control, compiled from nouns, and what its names lead to."""

from collections.abc import Iterable

from geniehive.rules.model import Alias, Host, Role, Route, Service, Upstream
from geniehive.rules.operations import Operation
from geniehive_control.core.defaults import RoutingDefaults
from geniehive_control.core.table import Table
from tests.support.cluster import CHAT


def table(
    *services: Service,
    aliases: Iterable[Alias] = (),
    roles: Iterable[Role] = (),
    hosts: Iterable[Host] = (),
    routing: RoutingDefaults | None = None,
) -> Table:
    made = Table(routing)
    for host in hosts:
        made.put_host(host)
    for of in services:
        made.put_service(of)
        made.put_upstream(Upstream(service=of.service, routable=True))
    made.set_profiles({role.role_id: role for role in roles}, {alias.alias: alias for alias in aliases})
    made.compile()
    return made


def route(of: Table, model: str) -> Route | None:
    found = of.content(f"route/{model}")
    assert found is None or isinstance(found, Route)
    return found


def endpoints(of: Table, model: str, operation: Operation = CHAT) -> list[list[str]]:
    """By tier, without "endpoint/"."""
    found = route(of, model)
    assert found is not None, model
    (branch,) = [branch for branch in found.branches if operation in branch.operations]
    return [[e.endpoint.removeprefix("endpoint/") for e in tier.endpoints] for tier in branch.tiers]
