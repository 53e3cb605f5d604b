"""The routing table of this gateway.

Its one door is `apply`, which takes a whole update or leaves everything as it was. Look-ups give compiled plans, which
are kept until the next update.
"""

import re
from collections.abc import Collection

import msgspec

from gateway.core.near import near_matches
from gateway.core.plan import Limits, Plan, Standpoint, compile_plan
from geniehive.rules import names
from geniehive.rules.model import (
    Availability,
    Branch,
    ClientKey,
    Content,
    Endpoint,
    NameKind,
    Reason,
    Relay,
    Resource,
    Route,
    Upstream,
)
from geniehive.rules.operations import Ability, Operation

_PLANS_KEPT = 4096


class Rejected(Exception):
    """An update that can't be applied; the text says what is wrong with which resource."""


class NotFound(msgspec.Struct, frozen=True):
    """No such name. `near`: names that resemble it."""

    near: tuple[str, ...] = ()


class OtherOperations(msgspec.Struct, frozen=True):
    """The name exists, for these operations only."""

    operations: tuple[Operation, ...]


class ChooseFrom(msgspec.Struct, frozen=True):
    """The name is a service with several models for the operation: one of these must be named."""

    names: tuple[str, ...]


Found = Plan | NotFound | OtherOperations | ChooseFrom


class _Entry:
    """A route with its branches by operation."""

    __slots__ = ("branches", "route")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.branches: dict[Operation, Branch] = {}
        for branch in route.branches:
            for operation in branch.operations:
                self.branches.setdefault(operation, branch)


class Table:
    """gateway_id, far, limits: as of `plan.Standpoint`."""

    def __init__(self, gateway_id: str, far: bool = False, limits: Limits | None = None) -> None:
        self.gateway_id = gateway_id
        self._far = far
        self._limits = limits if limits is not None else Limits()
        # Some update has been applied; before that nothing is known, not even that a name is unknown.
        self.ready = False
        self.cluster_id = ""
        # Grows with each update that changed more than keys.
        self.generation = 0
        self._versions: dict[str, str] = {}
        self._contents: dict[str, Content | None] = {}
        self._routes: dict[str, _Entry] = {}
        self._globs: list[tuple[re.Pattern[str], _Entry]] = []
        self._keys: dict[bytes, ClientKey] = {}
        self._plans: dict[tuple[str, Operation], Found] = {}
        self._trials: list[str] = []

    def blank(self) -> "Table":
        """One that knows nothing, at the same standpoint."""
        return Table(self.gateway_id, self._far, self._limits)

    @property
    def versions(self) -> dict[str, str]:
        """Name to version of every resource held."""
        return dict(self._versions)

    def forget(self) -> None:
        """Back to the beginning: nothing is known, not even that a name is unknown."""
        self._versions.clear()
        self._contents.clear()
        self._routes.clear()
        self._globs.clear()
        self._keys.clear()
        self._plans.clear()
        self.ready = False
        self.cluster_id = ""
        self.generation += 1

    def apply(
        self, changed: tuple[Resource, ...], removed: tuple[str, ...] = (), cluster_id: str = ""
    ) -> tuple[str, ...]:
        """Takes all of an update, or raises Rejected and takes nothing. Redundant ones are fine.

        Gives the services whose relay is not where it was: their host went offline by it, or has another address. A
        resource of a kind that is not known (content None) is held, and not used.
        """
        for resource in changed:
            _check(resource)
        touched = {name: self._contents.get(name) for name in removed}
        for name in removed:
            self._versions.pop(name, None)
            self._contents.pop(name, None)
        for resource in changed:
            touched.setdefault(resource.name, self._contents.get(resource.name))
            self._versions[resource.name] = resource.version
            self._contents[resource.name] = resource.content
        self.ready = True
        if cluster_id and cluster_id != self.cluster_id:
            self.cluster_id = cluster_id
            self._plans.clear()  # the names of relays have it
        self._reindex(touched)
        self._note_trials(touched)
        moved = {b.host_id for name, b in touched.items() if isinstance(b, Relay) and self._has_moved(name, b)}
        gone = [b.service for name, b in touched.items() if isinstance(b, Upstream) and self._went_offline(name, b)]
        if moved:
            upstreams = (c.service for c in self._contents.values() if isinstance(c, Upstream))
            gone += [service for service in upstreams if names.split_service(service)[0] in moved]
        return tuple(dict.fromkeys(gone))

    def take_trials(self) -> list[str]:
        """Endpoints that control has let back on trial since this was asked last."""
        taken, self._trials = self._trials, []
        return taken

    def _note_trials(self, touched: dict[str, Content | None]) -> None:
        services = set()
        for name, before in touched.items():
            now = self._contents.get(name)
            if isinstance(now, Upstream) and _is_on_trial(now) and not _is_on_trial(before):
                services.add(now.service)
        if services:
            endpoints = ((name, c) for name, c in self._contents.items() if isinstance(c, Endpoint))
            self._trials += [name for name, endpoint in endpoints if endpoint.service in services]

    def _went_offline(self, name: str, before: Upstream) -> bool:
        return not _is_offline(before) and _is_offline(self._contents.get(name))

    def _has_moved(self, name: str, before: Relay) -> bool:
        now = self._contents.get(name)
        return isinstance(now, Relay) and not set(before.base_urls) & set(now.base_urls)

    def _reindex(self, touched: dict[str, Content | None]) -> None:
        """touched: what each name that the update spoke of meant before."""
        keys = routes = globs = False
        for name, before in touched.items():
            now = self._contents.get(name)
            if isinstance(before, ClientKey) or isinstance(now, ClientKey):
                keys = True
                continue
            routes = True
            if isinstance(before, Route):
                globs = globs or before.glob
                self._routes.pop(before.model, None)
            if isinstance(now, Route):
                globs = globs or now.glob
                self._routes[now.model] = _Entry(now)
        if keys:
            self._keys = {c.sha256: c for c in self._contents.values() if isinstance(c, ClientKey)}
        if globs:
            entries = sorted((e for e in self._routes.values() if e.route.glob), key=_longest_first)
            self._globs = [(names.glob_pattern(e.route.model), e) for e in entries]
        if routes:
            self._plans.clear()
            self.generation += 1

    def find(self, model: str, operation: Operation) -> Found:
        """What the name means for the operation: exact names first, then globs, the longest first."""
        key = (model, operation)
        found = self._plans.get(key)
        if found is None:
            found = self._find(model, operation)
            # Unknown names are not kept, and globs have no end of names: clients must not fill the memory.
            if not isinstance(found, NotFound):
                if len(self._plans) >= _PLANS_KEPT:
                    self._plans.clear()
                self._plans[key] = found
        return found

    def _find(self, model: str, operation: Operation) -> Found:
        entry = self._entry(model)
        if entry is None:
            return NotFound(near_matches(model, (n for n, e in self._routes.items() if not e.route.glob)))
        branch = entry.branches.get(operation)
        if branch is None:
            return OtherOperations(tuple(sorted(entry.branches)))
        if branch.choose_from:
            return ChooseFrom(branch.choose_from)
        here = Standpoint(self.gateway_id, self.cluster_id, self._far, self._limits)
        return compile_plan(entry.route.model, branch, operation, self._contents, here)

    def _entry(self, model: str) -> _Entry | None:
        entry = self._routes.get(model)
        if entry is not None and not entry.route.glob:
            return entry
        for pattern, globbed in self._globs:
            if pattern.match(model):
                return globbed
        return None

    def has_model(self, name: str) -> bool:
        """Whether a route has exactly this name."""
        return name in self._routes

    def knows(self, model: str) -> bool:
        return self._entry(model) is not None

    def route(self, model: str) -> Route | None:
        """The route that the name leads to; None if there is none."""
        entry = self._entry(model)
        return entry.route if entry else None

    def routes(self) -> list[Route]:
        """Every route, globs too, in no order."""
        return [entry.route for entry in self._routes.values()]

    def able(self, operation: Operation, abilities: Collection[Ability], most: int = 5) -> list[str]:
        """Names of models, some of them, that are known to be able to do all of that."""
        found: list[str] = []
        for name, entry in self._routes.items():
            branch = entry.branches.get(operation)
            if branch is None or branch.choose_from or entry.route.glob:
                continue
            contents = (self._contents.get(e.endpoint) for tier in branch.tiers for e in tier.endpoints)
            if any(isinstance(c, Endpoint) and set(abilities) <= set(c.asset.abilities) for c in contents):
                found.append(name)
                if len(found) == most:
                    break
        return sorted(found)

    def endpoint(self, name: str) -> tuple[Endpoint, Upstream] | None:
        """An endpoint with its upstream; None if the table lacks either."""
        endpoint = self._contents.get(name)
        if not isinstance(endpoint, Endpoint):
            return None
        upstream = self._contents.get(names.upstream_resource(endpoint.service))
        return (endpoint, upstream) if isinstance(upstream, Upstream) else None

    def key(self, digest: bytes) -> ClientKey | None:
        """The key with this SHA-256."""
        return self._keys.get(digest)


def _is_offline(content: Content | None) -> bool:
    """Without a word. A node that was stopped lets its relay's last answers end, and then ends the relay itself."""
    if not isinstance(content, Upstream):
        return False
    condition = content.condition
    return condition.availability is Availability.OFFLINE and condition.reason is not Reason.STOPPING


def _is_on_trial(content: Content | None) -> bool:
    return isinstance(content, Upstream) and content.routable and content.condition.reason is Reason.OUTCOMES


def _longest_first(entry: _Entry) -> tuple[int, str]:
    return names.longest_first(entry.route.model)


def _check(resource: Resource) -> None:
    """Rejected if the resource is not what its name says, since half-understood routes would misroute silently."""
    if not resource.name or not resource.version:
        raise Rejected(f"a resource without name or version: {resource.name!r}")
    content = resource.content
    match content:
        case None:
            return
        case Route():
            expected = names.route_resource(content.model)
            if any(branch.kind is NameKind.UNSPECIFIED for branch in content.branches):
                raise Rejected(f"{resource.name}: a branch of a kind that this gateway does not know")
        case Endpoint():
            _service(resource.name, content.service)
            expected = names.endpoint_resource(content.service, content.asset.upstream_name)
        case Upstream():
            _service(resource.name, content.service)
            expected = names.upstream_resource(content.service)
        case Relay():
            expected = names.relay_resource(content.host_id)
        case ClientKey():
            expected = names.key_resource(content.key_id)
            if len(content.sha256) != 32:
                raise Rejected(f"{resource.name}: no SHA-256 digest")
    if resource.name != expected:
        raise Rejected(f"{resource.name}: its content calls itself {expected}")


def _service(resource: str, service: str) -> None:
    try:
        names.split_service(service)
    except ValueError as error:
        raise Rejected(f"{resource}: {error}") from error
