"""One name, for whoever asks: what it means, what it leads to, and what is near it."""

import difflib
from collections.abc import Iterator

import msgspec

from geniehive.rules import names
from geniehive.rules.model import NameKind, Resource, Route
from geniehive.rules.operations import Operation
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.table import Table, version

# Comparing is slow; beyond this many names only those that contain one another are near.
_MOST_COMPARED = 2000
_MOST_NEAR = 5


def resolve(table: Table, model: str, operation: Operation | None, with_relays: bool) -> list[Resource]:
    """The route of `model`, and every endpoint, upstream and relay that it leads to.

    With `operation` the route has that branch only. Refusal: ROUTE_NOT_FOUND, OPERATION_NOT_SERVED, NAME_AMBIGUOUS.
    """
    resource = table.get(names.route_resource(model))
    if resource is None and (alias := table.naming.aliases.of(model)) is not None:
        # Nothing has the very name; a glob has.
        resource = table.get(names.route_resource(alias.alias))
    if resource is None or not isinstance(resource.content, Route):
        near = near_matches(table, model)
        hint = f"; near it are {', '.join(near)}" if near else ""
        raise Refusal(Why.ROUTE_NOT_FOUND, f"no model is called {model!r}{hint}", near_matches="\n".join(near))
    route = resource.content
    if operation is not None:
        route = _narrow(route, operation)
        resource = Resource(name=resource.name, version=version(route), content=route)
    found = {resource.name: resource}
    for name in _led_to(route, with_relays):
        if (other := table.get(name)) is not None:
            found[name] = other
    return list(found.values())


def near_matches(table: Table, model: str) -> list[str]:
    """Names that somebody who wrote `model` may have meant, nearest first."""
    known = [route.model for route in table.routes() if not route.glob]
    wanted = model.casefold()
    near = sorted((name for name in known if wanted in name.casefold() or name.casefold() in wanted), key=len)
    if len(near) < _MOST_NEAR and len(known) <= _MOST_COMPARED:
        by_fold = {name.casefold(): name for name in known}
        near += [by_fold[match] for match in difflib.get_close_matches(wanted, by_fold, _MOST_NEAR)]
    return list(dict.fromkeys(near))[:_MOST_NEAR]


def matches(route: Route, kind: NameKind | None, operation: Operation | None) -> bool:
    """Whether any branch is of this kind and serves this operation; None: any."""
    return any(
        (kind is None or branch.kind is kind) and (operation is None or operation in branch.operations)
        for branch in route.branches
    ) or (kind is None and operation is None)


def _narrow(route: Route, operation: Operation) -> Route:
    for branch in route.branches:
        if operation not in branch.operations:
            continue
        if branch.choose_from:
            text = (
                f"{route.model} has several models for {operation.word}: choose one of {', '.join(branch.choose_from)}"
            )
            raise Refusal(Why.NAME_AMBIGUOUS, text, names="\n".join(branch.choose_from))
        return msgspec.structs.replace(route, branches=(branch,))
    words = [o.word for branch in route.branches for o in branch.operations]
    text = f"{route.model} does not serve {operation.word}; it serves {', '.join(words) or 'nothing now'}"
    raise Refusal(Why.OPERATION_NOT_SERVED, text, operations="\n".join(words))


def _led_to(route: Route, with_relays: bool) -> Iterator[str]:
    for branch in route.branches:
        for tier in branch.tiers:
            for endpoint in tier.endpoints:
                yield endpoint.endpoint
                # "endpoint/host/service/model": an upstream and a relay have parts of the same name.
                _, host_id, service_id, _ = endpoint.endpoint.split("/", 3)
                yield names.upstream_resource(names.join_service(host_id, service_id))
                if with_relays:
                    yield names.relay_resource(host_id)
