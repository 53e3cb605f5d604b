"""Looks in, the whole offer of this host out.

A service is listed from the first good look at it. Those that an operator configured are listed before that too, so
that a wrong address can be seen in the cluster's status. A service that goes away stays listed as unhealthy, because
its models' names still exist; one that was found by chance is forgotten after `FORGET_AFTER`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec
from msgspec.structs import replace

from geniehive.rules import names
from geniehive.rules.model import (
    Asset,
    Availability,
    Condition,
    Health,
    Host,
    Inventory,
    LoadState,
    Reason,
    Relay,
    Service,
    ServiceLoad,
    Value,
)
from geniehive.rules.operations import Operation
from geniehive_node.core import budget, guess, ways
from geniehive_node.core.looks import Figures, Snapshot, Source, Trouble

FORGET_AFTER = 600.0
# Looks that may time out one after another before an engine counts as down: a busy one answers late.
SLOW_LOOKS = 3
_DETAIL_LIMIT = 500
_NO_FIGURES = Figures()


class Looked(Value, frozen=True, kw_only=True):
    """A look at a source went well."""

    source: str
    snapshot: Snapshot
    figures: Figures = Figures()


class Missed(Value, frozen=True, kw_only=True):
    """A look at a source failed."""

    source: str
    trouble: Trouble
    detail: str
    runtime: str | None = None


class FirstLooksDone(Value, frozen=True):
    """Every source was looked at once, or the time for that is over. Nothing is offered before."""


class Joined(Value, frozen=True, kw_only=True):
    """Control's word on who this host is."""

    cluster_id: str
    host_id: str


class Placed(Value, frozen=True, kw_only=True):
    """How this machine's engines can be reached has changed. `relay` None: not by a relay."""

    reach: ways.Reach
    relay: Relay | None = None


class Seen(Value, frozen=True, kw_only=True):
    """Whether an engine on loopback answers at this machine's own address too. `url` None: it does not."""

    source: str
    url: str | None


class TooMuch(Value, frozen=True):
    """Control refused an offer for its size."""


class Stopping(Value, frozen=True):
    """The daemon is about to end."""


Event = Looked | Missed | FirstLooksDone | Joined | Placed | Seen | TooMuch | Stopping


class Found(Value, frozen=True, kw_only=True):
    """What the first looks gave, demonstration engines aside: chat models, and names of engines at work.

    An engine that is still loading counts as one chat model: it may well have one in a moment.
    troubles: what keeps configured engines from being used, by their address.
    """

    chat_models: int
    engines: tuple[str, ...]
    troubles: dict[str, str] = msgspec.field(default_factory=dict)


class Offer(Value, frozen=True, kw_only=True):
    """The offer changed. `sources`: the source behind each service, by the second half of its name; `paths`: those of
    the API that it has elsewhere, of services that have such."""

    inventory: Inventory
    sources: dict[str, str]
    paths: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)


Effect = Found | Offer


@dataclass
class _State:
    """Of one source."""

    source: Source
    snapshot: Snapshot | None = None
    figures: Figures = _NO_FIGURES
    # When these were seen.
    looked: float = 0.0
    trouble: Trouble | None = None
    detail: str = ""
    runtime: str | None = None  # known from a failed look, before there was a good one
    count: int = 0  # failed looks in a row
    since: float = 0.0  # the first of them
    service_id: str | None = None
    named_for: str | None = None  # the runtime it was named after; another engine gets another name
    outside: str | None = None  # the URL at which it answers other machines

    @property
    def down(self) -> bool:
        return self.trouble is not None and (self.trouble is not Trouble.SLOW or self.count >= SLOW_LOOKS)


class Catalog:
    """What this host offers. Changes through `handle` alone."""

    def __init__(self, host: Host, sources: Sequence[Source], placed: Placed) -> None:
        self._host = host
        self._placed = placed
        self._states = {source.key: _State(source) for source in sources}
        self._reserved = {s.name for s in sources if s.name is not None}
        self._cluster_id: str | None = None
        self._limit = budget.DEFAULT_BYTES
        self._open = False
        self._offered: Offer | None = None

    def handle(self, event: Event, now: float) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Looked():
                self._looked(self._states[event.source], event, now)
            case Missed():
                self._missed(self._states[event.source], event, now)
            case Joined():
                self._cluster_id = event.cluster_id
                self._host = replace(self._host, host_id=event.host_id)
            case Placed():
                self._placed = event
            case Seen():
                self._states[event.source].outside = event.url
            case TooMuch():
                self._limit = max(budget.LEAST_BYTES, self._limit // 2)
            case Stopping():
                stopping = Condition(availability=Availability.DRAINING, reason=Reason.STOPPING)
                self._host = replace(self._host, condition=stopping)
            case FirstLooksDone():
                self._open = True
        if not self._open:
            return effects
        offer = self._offer(now)
        if isinstance(event, FirstLooksDone):
            effects.append(self._found(offer))
        if offer != self._offered:
            self._offered = offer
            effects.append(offer)
        return effects

    def load(self, relayed: Mapping[str, int], now: float) -> list[ServiceLoad]:
        """Figures of all listed services. `relayed`: requests passing through the relay, by service id."""
        loads = []
        for state in self._states.values():
            if state.service_id is None:
                continue
            figures = _NO_FIGURES if state.down else state.figures
            loads.append(
                ServiceLoad(
                    service=names.join_service(self._host.host_id, state.service_id),
                    age_seconds=None if figures == _NO_FIGURES else max(0.0, now - state.looked),
                    running=figures.running,
                    queued=figures.queued,
                    relayed=relayed.get(state.service_id, 0),
                )
            )
        return loads

    # Events.

    def _looked(self, state: _State, event: Looked, now: float) -> None:
        state.snapshot = event.snapshot
        state.figures = event.figures
        state.looked = now
        state.trouble = None
        state.count = 0

    def _missed(self, state: _State, event: Missed, now: float) -> None:
        if state.trouble is None:
            state.since = now
        state.count = state.count + 1 if state.trouble == event.trouble else 1
        state.trouble = event.trouble
        state.detail = event.detail[:_DETAIL_LIMIT]
        state.runtime = event.runtime or state.runtime
        if event.trouble is Trouble.STRANGE and not state.source.configured:
            # Another program has the port now; what was known is about nothing any more.
            state.snapshot = None
            state.runtime = None

    # The offer.

    def _found(self, offer: Offer) -> Found:
        real = [s for s in offer.inventory.services if not s.demo and _works(s.condition)]
        chat = {a.asset_id for s in real for a in s.assets if Operation.CHAT in s.operations_of(a)}
        loading = sum(s.trouble is Trouble.LOADING and not s.source.demo for s in self._states.values())
        return Found(
            chat_models=len(chat) + loading,
            engines=tuple(names.split_service(s.service)[1] for s in real),
            troubles={
                s.source.key: s.detail
                for s in self._states.values()
                if s.source.expected and s.trouble not in (None, Trouble.LOADING)
            },
        )

    def _offer(self, now: float) -> Offer:
        services = []
        sources = {}
        paths = {}
        for state in self._states.values():
            if not self._listed(state, now):
                state.service_id = None
                continue
            self._name(state)
            assert state.service_id is not None
            services.append(self._service(state, state.service_id))
            sources[state.service_id] = state.source.key
            if state.snapshot is not None and state.snapshot.paths:
                paths[state.service_id] = dict(state.snapshot.paths)
        relay = self._placed.relay
        if relay is not None:
            relay = replace(relay, host_id=self._host.host_id)
        # The session counts revisions; here the offer is what it says.
        inventory = Inventory(revision=0, host=self._host, services=budget.fit(services, self._limit), relay=relay)
        return Offer(inventory=inventory, sources=sources, paths=paths)

    def _listed(self, state: _State, now: float) -> bool:
        if state.source.expected:
            return True
        if state.down and state.snapshot is not None and now - state.since >= FORGET_AFTER:
            state.snapshot = None
        if state.snapshot is not None:
            return True
        # An engine that was recognised, but wants a key or still loads.
        return state.trouble in (Trouble.REFUSED, Trouble.LOADING) and state.runtime is not None

    def _name(self, state: _State) -> None:
        runtime = state.snapshot.runtime if state.snapshot else state.source.runtime or state.runtime
        if state.service_id is not None and (state.named_for == runtime or runtime is None):
            return
        state.named_for = runtime
        if state.source.name is not None:
            state.service_id = state.source.name
            return
        taken = self._reserved | {s.service_id for s in self._states.values() if s is not state and s.service_id}
        wanted = names.to_id(runtime or state.source.url.rpartition("//")[2], "engine")
        number = 1
        state.service_id = wanted
        while state.service_id in taken:
            number += 1
            state.service_id = f"{wanted[:58]}-{number}"

    def _service(self, state: _State, service_id: str) -> Service:
        source, snapshot = state.source, state.snapshot
        found, trouble = ways.of(source, self._placed.reach, state.outside, bool(snapshot and snapshot.paths))
        service = Service(
            service=names.join_service(self._host.host_id, service_id),
            runtime=(snapshot.runtime if snapshot else source.runtime or state.runtime or "")[:100],
            ways=found,
            hosted=source.hosted,
            demo=source.demo,
            concurrency_limit=source.concurrency_limit,
            condition=self._condition(state, trouble),
        )
        if snapshot is None:
            return replace(service, operations=source.operations)
        if snapshot.cluster is not None and snapshot.cluster == self._cluster_id:
            detail = (
                f"{source.key} is a gateway of this cluster itself, whose requests would go in a circle; "
                "take it out of the node's engines"
            )
            return replace(service, ways=(), condition=Condition(health=Health.UNHEALTHY, detail=detail))
        return replace(
            service,
            runtime_version=snapshot.version[:100],
            operations=source.operations or snapshot.operations,
            assets=self._assets(state, snapshot),
            slots=snapshot.slots,
            loads_on_request=snapshot.loads_on_request,
        )

    def _assets(self, state: _State, snapshot: Snapshot) -> tuple[Asset, ...]:
        source = state.source
        told = {a.upstream_name: a for a in snapshot.assets}
        if source.models:
            told = {name: told.get(name) or _declared(name) for name in source.models}
        assets = []
        for asset in told.values():
            if not names.is_model_name(asset.asset_id) or not names.is_model_name(asset.upstream_name):
                continue
            if source.operations:
                asset = replace(asset, operations=())
            if state.trouble is Trouble.LOADING:
                asset = replace(asset, load_state=LoadState.LOADING)
            if source.policies:
                fitting = [p.policy for p in source.policies if any(fnmatchcase(asset.asset_id, m) for m in p.models)]
                asset = replace(asset, request_policies=tuple(fitting))
            assets.append(asset)
        return tuple(assets)

    def _condition(self, state: _State, trouble: str) -> Condition:
        if state.down:
            return Condition(health=Health.UNHEALTHY, reason=Reason.ENGINE, detail=state.detail)
        if state.snapshot is None:
            return Condition(detail="not looked at yet")
        if trouble:
            return Condition(health=Health.UNHEALTHY, reason=Reason.UNREACHABLE, detail=trouble[:_DETAIL_LIMIT])
        return Condition(health=Health.HEALTHY, availability=Availability.AVAILABLE)


def _works(condition: Condition) -> bool:
    """Whether the engine does, whoever may reach it: that can change in a moment."""
    return condition.health is Health.HEALTHY or condition.reason is Reason.UNREACHABLE


def _declared(name: str) -> Asset:
    """A model of which only the configuration knows."""
    return Asset(asset_id=name, upstream_name=name, operations=guess.by_name(name))
