"""Which roles and services fit a task: candidates with their scores, best first."""

from collections.abc import Callable, Iterable

from geniehive.rules.model import (
    Availability,
    NameKind,
    Role,
    ScoreTerm,
    Service,
    ServiceLoad,
    Upstream,
    Value,
)
from geniehive.rules.names import endpoint_resource, upstream_resource
from geniehive.rules.operations import Ability, Operation
from geniehive_control.core import scoring
from geniehive_control.core.facts import Facts
from geniehive_control.core.merits import service_of
from geniehive_control.core.refusal import field_invalid
from geniehive_control.core.scoring import Runtime
from geniehive_control.core.table import Table
from geniehive_control.core.tiers import covers

MODALITIES = ("text", "image", "audio")
_IMAGE = frozenset({Operation.IMAGES})
_AUDIO = frozenset({Operation.TRANSCRIPTION, Operation.TRANSLATION, Operation.SPEECH})
_MOST_BYTES = 64 * 1024
_MOST_WORKLOADS = 100
_USUAL, _MOST = 10, 100


class Query(Value, frozen=True, kw_only=True):
    """operation None, modality "": any. workloads: as in BenchmarkSample, or without their version."""

    tasks: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    operation: Operation | None = None
    modality: str = ""
    include_services: bool = False
    limit: int = 0


class Match(Value, frozen=True, kw_only=True):
    """endpoint: whose runtime counts; "" if none is usable."""

    model: str
    kind: NameKind
    score: float
    terms: tuple[ScoreTerm, ...]
    endpoint: str = ""


# An endpoint with all terms but that of the text.
_Rated = tuple[float, str, tuple[ScoreTerm, ...]]


def match(table: Table, query: Query, load: Callable[[str], ServiceLoad | None]) -> list[Match]:
    """load: of a service, as last seen. Refusal: FIELD_INVALID."""
    _check(query, table)
    found = _Matching(table, query, load)
    matches = [found.role(role) for role in found.roles()]
    if query.include_services:
        services: dict[str, Match] = {}
        for service in found.services():
            made = found.service(service)
            # A service of several models is called by one of theirs, which others may have, too.
            if made.model not in services or services[made.model].score < made.score:
                services[made.model] = made
        matches += services.values()
    matches.sort(key=lambda made: (-made.score, made.model))
    return matches[: min(query.limit or _USUAL, _MOST)]


def _check(query: Query, table: Table) -> None:
    if query.limit < 0:
        raise field_invalid("limit", f"{query.limit} is negative; 1 to {_MOST}, or 0 for {_USUAL}")
    size = sum(len(text.encode()) for text in query.tasks)
    if size > _MOST_BYTES:
        raise field_invalid("tasks", f"{size} bytes together; at most {_MOST_BYTES} are compared")
    if query.modality and query.modality not in MODALITIES:
        raise field_invalid(
            "modality", f"{query.modality[:80]!r} is none; allowed: {', '.join(MODALITIES)}, or nothing"
        )
    if len(query.workloads) > _MOST_WORKLOADS:
        raise field_invalid("workloads", f"are {len(query.workloads)}; at most {_MOST_WORKLOADS}")
    known = table.merits.workloads()
    for workload in query.workloads:
        if workload not in known and not any(name.rpartition("/")[0] == workload for name in known):
            measured = f"; there are samples of {', '.join(sorted(known)[:20])}" if known else "; there are no samples"
            raise field_invalid("workloads", f"nothing was measured by {workload[:80]!r}{measured}")
    asked = scoring.words(query.tasks) or query.workloads or query.operation or query.modality
    if not asked:
        raise field_invalid("tasks", "nothing is asked: give a task, a workload, an operation or a modality")


class _Matching:
    """One question."""

    def __init__(self, table: Table, query: Query, load: Callable[[str], ServiceLoad | None]) -> None:
        self._table = table
        self._query = query
        self._load = load
        self._asked = scoring.words(query.tasks)
        self._weights = table.routing.weights
        self._groups = table.naming.groups()
        self._runtimes: dict[str, Runtime | None] = {}

    def roles(self) -> Iterable[Role]:
        operation, modality = self._query.operation, self._query.modality
        for role in self._table.naming.roles.all():
            if operation is not None and not covers(role, operation):
                continue
            if modality and modality != (role.modality or _modality(role.operation)):
                continue
            yield role

    def role(self, role: Role) -> Match:
        weights = self._weights
        operation = self._query.operation or role.operation
        best: _Rated = (0.0, "", self._without(role))
        # As a request would: nobody of a later tier while an earlier one has somebody.
        for place in self._table.naming.roles.places(role, operation, self._groups):
            rated = [
                rated
                for facts in place.facts
                for endpoint in self._groups[facts]
                if (rated := self._rate_for(place.link.role, endpoint, facts)) is not None
            ]
            if rated:
                best = min(rated, key=lambda rated: (-rated[0], rated[1]))
                break
        text = scoring.text(
            weights.role_text, self._asked, scoring.words((role.role_id, role.display_name, role.description))
        )
        return _made(role.role_id, NameKind.ROLE, text, best)

    def _without(self, role: Role) -> tuple[ScoreTerm, ...]:
        weights = self._weights
        return (
            scoring.runtime(weights.role_runtime, None),
            scoring.benchmark(weights.role_benchmark, ()),
            scoring.family(weights.role_family, role.routing_policy, None),
        )

    def _rate_for(self, role: Role, endpoint: str, facts: Facts) -> _Rated | None:
        runtime = self._runtime(endpoint, facts)
        if runtime is None:
            return None
        weights = self._weights
        terms = (
            scoring.runtime(weights.role_runtime, runtime),
            self._benchmark(weights.role_benchmark, endpoint),
            scoring.family(weights.role_family, role.routing_policy, facts),
        )
        return scoring.score(terms), endpoint, terms

    def services(self) -> Iterable[Service]:
        operation, modality = self._query.operation, self._query.modality
        for service in self._table.offers.services.values():
            offered = {o for asset in service.assets for o in service.operations_of(asset)}
            if operation is not None and operation not in offered:
                continue
            if modality and not (
                any(_modality(o) == modality for o in offered)
                or (modality == "image" and any(Ability.VISION in asset.abilities for asset in service.assets))
            ):
                continue
            yield service

    def service(self, service: Service) -> Match:
        weights = self._weights
        operation = self._query.operation
        offered = [a for a in service.assets if operation is None or operation in service.operations_of(a)]
        rated: list[tuple[_Rated, str]] = []
        for asset in offered:
            endpoint = endpoint_resource(service.service, asset.upstream_name)
            runtime = self._runtime(endpoint, self._table.offers.facts(endpoint))
            if runtime is not None:
                terms = (
                    scoring.runtime(weights.service_runtime, runtime),
                    self._benchmark(weights.service_benchmark, endpoint),
                )
                rated.append(((scoring.score(terms), endpoint, terms), asset.asset_id))
        without: _Rated = (
            0.0,
            "",
            (scoring.runtime(weights.service_runtime, None), scoring.benchmark(weights.service_benchmark, ())),
        )
        best, asset_id = min(rated, key=lambda pair: (-pair[0][0], pair[0][1]), default=(without, ""))
        text = scoring.text(weights.service_text, self._asked, _words_of(service))
        if asset_id and len({asset.asset_id for asset in offered}) > 1:
            return _made(asset_id, NameKind.ASSET, text, best)
        return _made(service.service, NameKind.SERVICE, text, best)

    def _benchmark(self, weight: float, endpoint: str) -> ScoreTerm:
        asset = self._table.offers.assets[endpoint]
        samples = self._table.merits.samples(service_of(endpoint), asset.asset_id)
        return scoring.benchmark(weight, samples, self._query.workloads)

    def _runtime(self, endpoint: str, facts: Facts) -> Runtime | None:
        """None: it is not usable."""
        if endpoint not in self._runtimes:
            self._runtimes[endpoint] = self._observed(endpoint, facts)
        return self._runtimes[endpoint]

    def _observed(self, endpoint: str, facts: Facts) -> Runtime | None:
        service = service_of(endpoint)
        upstream = self._table.content(upstream_resource(service))
        if not isinstance(upstream, Upstream) or not upstream.routable:
            return None
        asset = self._table.offers.assets[endpoint]
        slow = self._table.merits.runtime(endpoint, asset.asset_id, facts)
        load = self._load(service)
        queued = p50 = None
        if load is not None:
            own = next((found for found in load.assets if found.upstream_name == asset.upstream_name), None)
            queued = load.queued if own is None or own.queued is None else own.queued
            p50 = load.latency_p50_seconds
        return Runtime(
            loaded=slow.loaded,
            p50_seconds=p50 if slow.p50_seconds is None else slow.p50_seconds,
            tokens_per_second=slow.tokens_per_second,
            queued=queued,
            busy=upstream.condition.availability is Availability.BUSY,
        )


def _made(model: str, kind: NameKind, text: ScoreTerm, best: _Rated) -> Match:
    _, endpoint, others = best
    terms = (text, *others)
    return Match(model=model, kind=kind, score=scoring.score(terms), terms=terms, endpoint=endpoint)


def _words_of(service: Service) -> frozenset[str]:
    texts: list[str] = [service.service, service.runtime, *service.labels.values()]
    for asset in service.assets:
        texts += [asset.asset_id, asset.family]
        texts += [operation.word for operation in service.operations_of(asset)]
        texts += [ability.name.lower() for ability in asset.abilities]
    return scoring.words(texts)


def _modality(operation: Operation) -> str:
    return "image" if operation in _IMAGE else "audio" if operation in _AUDIO else "text"
