"""Who can serve a name for an operation: candidates in tiers, each with the lanes by which this gateway reaches it."""

import sys
from collections.abc import Mapping
from math import ceil

import msgspec

from gateway.core import shape
from gateway.core.shape import Shaper
from geniehive.rules.identity import relay_name
from geniehive.rules.model import (
    Availability,
    Branch,
    Content,
    Endpoint,
    Health,
    LoadState,
    Reason,
    Relay,
    RequestPolicy,
    Speed,
    Strategy,
    Tier,
    TierEndpoint,
    Upstream,
)
from geniehive.rules.names import relay_resource, split_service, upstream_resource
from geniehive.rules.operations import Ability, Operation

# Runtimes whose forms for audio are to name the model in `model_name`, too. faster-whisper-server reads nothing else,
# and nothing tells it from other engines that merely speak OpenAI's API; these pass over a field that they don't know.
_ALSO_NAMED = frozenset({"openai"})
# Runtimes whose streams tell tokens unasked. If asked they would tell them, and more that clients want, in an event
# that these don't get.
_TIMED = frozenset({"llamacpp"})

# How many requests engines run at once that don't say so: as their makers set it, or as many as it is worth telling
# apart. Load samples correct it.
_ASSUMED_SLOTS = {"ollama": 1, "vllm": 64, "sglang": 64, "tei": 64}
_SLOTS_OF_HOSTED = 64
_SLOTS_OF_OTHERS = 4

_LOADED = {
    LoadState.LOADED: True,
    LoadState.LOADING: True,
    LoadState.UNLOADED: False,
    LoadState.SLEEPING: False,
    LoadState.FAILED: False,
}


# What tokens are estimated by.
BYTES_PER_TOKEN = 4

_FOLLOWING = ("chooses", "tightest", "lacking", "carefree")


class Lane(msgspec.Struct, frozen=True, gc=False):
    """One way to a service that this gateway can use.

    base_url: what the client's path is appended to. token: of a relay without TLS, a secret. tls_name: of a relay with
    TLS, that its certificate must have. None: neither.
    """

    service: str
    base_url: str
    token: str | None = None
    relayed: bool = False
    tls_name: str | None = None

    def __repr__(self) -> str:
        return f"Lane({self.service!r}, {self.base_url!r}, relayed={self.relayed})"


class Limits(msgspec.Struct, frozen=True):
    """How many requests this worker sends at once.

    per_slot: to a service that says how many it runs at once, for each of those; None: no limit by that. services: by
    "host/service", before all else; None: no limit.
    """

    per_slot: float | None = None
    services: Mapping[str, int | None] = {}


class Pool(msgspec.Struct, frozen=True, gc=False):
    """What shares one limit. key: a service, or an endpoint that has slots of its own."""

    key: str
    limit: int

    @property
    def name(self) -> str:
        """For people."""
        return _short(self.key)


class Standpoint(msgspec.Struct, frozen=True):
    """Where this gateway is, which decides what ways are open to it; and its limits.

    far: on another machine than control, so that relays of other hosts without TLS are on loopbacks that are not ours.
    """

    gateway_id: str
    cluster_id: str = ""
    far: bool = False
    limits: Limits = Limits()

    def reaches(self, relay: Relay) -> bool:
        return relay.token is None or not self.far or relay.host_id == self.gateway_id


class Candidate(msgspec.Struct, frozen=True):
    """A model on a service. `lanes` in order of preference, at least one. pool: what its requests count in; None: they
    have no limit. also_named: its engine is to be told the model in a form's field `model_name`, too. timed: streams of
    its engine tell tokens unasked. shaper: changes bodies that are JSON; None: nothing does.

    load_key: what its load counts under: the service, or the endpoint if it has slots of its own. slots: how many
    requests run there at once; slots_known: somebody said so, else it is a guess. loaded: the model is in memory, or is
    being brought there; None: the engine doesn't say. weight: its score, as control has it. context_tokens: the most
    that the model takes now; None: not known. lacking: what it is known not to be able to.
    """

    endpoint: str
    service: str
    host: str
    asset_id: str
    upstream_name: str
    lanes: tuple[Lane, ...]
    pool: Pool | None = None
    also_named: bool = False
    timed: bool = False
    shaper: Shaper | None = None
    load_key: str = ""
    slots: int = _SLOTS_OF_OTHERS
    slots_known: bool = False
    loaded: bool | None = None
    speed: Speed | None = None
    weight: int = 0
    context_tokens: int | None = None
    lacking: tuple[Ability, ...] = ()

    @property
    def name(self) -> str:
        """For people: "gpu-1/ollama/qwen3:8b"."""
        return f"{self.service}/{self.upstream_name}"


class Choice(msgspec.Struct, frozen=True, gc=False):
    """Ask this candidate, by this lane. `label` is the tier's."""

    candidate: Candidate
    lane: Lane
    label: str


class TierPlan(msgspec.Struct, frozen=True, eq=False):
    """`key` is the same for the same tier of a later table, so that turns survive updates. expected: tokens of an
    answer under this name, as control has learned; None: it has not.
    """

    key: tuple[str, int, int]
    label: str
    candidates: tuple[Candidate, ...]
    strategy: Strategy = Strategy.ROUND_ROBIN
    expected: int | None = None


class Unusable(msgspec.Struct, frozen=True):
    """An endpoint that can't serve now, and why, in words. loading: it will by itself, once it has loaded the model."""

    name: str
    reason: str
    loading: bool = False


class Plan(msgspec.Struct, frozen=True, eq=False):
    """Tiers with nobody in them are left out.

    What follows from them: chooses: there is a choice that hangs on what a request is like. tightest: the least of the
    contexts that are known. lacking: what some candidate can't do. carefree: nothing need be known of a request whose
    body is no larger.
    """

    model: str
    tiers: tuple[TierPlan, ...]
    unusable: tuple[Unusable, ...] = ()
    chooses: bool = False
    tightest: int = sys.maxsize
    lacking: frozenset[Ability] = frozenset()
    carefree: int = sys.maxsize

    def __post_init__(self) -> None:
        candidates = [c for tier in self.tiers for c in tier.candidates]
        chooses = any(len(tier.candidates) > 1 and tier.strategy is Strategy.SOONEST for tier in self.tiers)
        tightest = min((c.context_tokens for c in candidates if c.context_tokens), default=sys.maxsize)
        lacking = frozenset(ability for c in candidates for ability in c.lacking)
        minded = chooses or Ability.TOOLS in lacking or Ability.VISION in lacking
        carefree = -1 if minded else min(tightest * BYTES_PER_TOKEN + BYTES_PER_TOKEN - 1, sys.maxsize)
        for name, value in zip(_FOLLOWING, (chooses, tightest, lacking, carefree), strict=True):
            msgspec.structs.force_setattr(self, name, value)


def compile_plan(
    route: str,
    branch: Branch,
    operation: Operation,
    contents: Mapping[str, Content | None],
    here: Standpoint,
) -> Plan:
    """The plan of one branch of the route named `route`.

    contents: by resource name. What a branch names and the table lacks is passed over.
    """
    tiers = []
    unusable = [Unusable(_short(r.endpoint), r.reason, _is_loading(r.endpoint, contents)) for r in branch.ruled_out]
    for index, tier in enumerate(branch.tiers):
        candidates = []
        for member in tier.endpoints:
            made = _candidate(member, contents, here, operation, tier.request_policy)
            if isinstance(made, Candidate):
                candidates.append(made)
            else:
                unusable.append(Unusable(_short(member.endpoint), made, _is_loading(member.endpoint, contents)))
        if candidates:
            label, expected = tier.label or route, branch.expected_completion_tokens
            tiers.append(TierPlan((route, operation, index), label, tuple(candidates), _strategy(tier), expected))
    return Plan(route, tuple(tiers), tuple(unusable))


def _is_loading(name: str, contents: Mapping[str, Content | None]) -> bool:
    """Whether that is what keeps the endpoint from serving: its engine says so itself."""
    endpoint = contents.get(name)
    if not isinstance(endpoint, Endpoint) or endpoint.asset.load_state is not LoadState.LOADING:
        return False
    upstream = contents.get(upstream_resource(endpoint.service))
    return isinstance(upstream, Upstream) and upstream.condition.reason is Reason.ENGINE


def _strategy(tier: Tier) -> Strategy:
    """A newer control's, which is not known here, is as none."""
    return Strategy.SOONEST if tier.strategy is Strategy.UNSPECIFIED else tier.strategy


def _candidate(
    member: TierEndpoint,
    contents: Mapping[str, Content | None],
    here: Standpoint,
    operation: Operation,
    policy: RequestPolicy | None,
) -> Candidate | str:
    """The candidate, or why there is none. policy: of its tier."""
    name = member.endpoint
    endpoint = contents.get(name)
    if not isinstance(endpoint, Endpoint):
        return "its service no longer offers the model"
    upstream = contents.get(upstream_resource(endpoint.service))
    if not isinstance(upstream, Upstream):
        return "its service is gone"
    if not upstream.routable:
        return condition_words(upstream)
    host, _ = split_service(endpoint.service)
    relay = contents.get(relay_resource(host))
    lanes: list[Lane] = []
    for way in upstream.ways:
        if way.direct_url is not None:
            if not way.same_host_only or here.gateway_id == host:
                lanes.append(Lane(upstream.service, way.direct_url))
        elif isinstance(relay, Relay) and here.reaches(relay):
            lanes += [_relayed(upstream.service, relay, base_url, here.cluster_id) for base_url in relay.base_urls]
    if not lanes:
        return "no way leads to it from this gateway"
    try:
        shaper = shape.shaper(operation, policy, endpoint.asset.request_policies)
    except ValueError as error:
        return f"its request policy makes no sense: {error}"
    asset = endpoint.asset
    slots = asset.slots or upstream.slots or upstream.concurrency_limit
    return Candidate(
        shaper=shaper,
        endpoint=name,
        service=endpoint.service,
        host=host,
        asset_id=asset.asset_id,
        upstream_name=asset.upstream_name,
        lanes=tuple(lanes),
        pool=_pool(name, endpoint, upstream, here.limits),
        also_named=upstream.runtime in _ALSO_NAMED and not upstream.hosted,
        timed=upstream.runtime in _TIMED,
        load_key=name if asset.slots else endpoint.service,
        slots=slots or _assumed_slots(upstream),
        slots_known=bool(slots),
        loaded=_LOADED.get(asset.load_state),
        speed=endpoint.speed,
        weight=member.weight,
        context_tokens=asset.context_tokens,
        lacking=asset.lacking_abilities,
    )


def _assumed_slots(upstream: Upstream) -> int:
    return _SLOTS_OF_HOSTED if upstream.hosted else _ASSUMED_SLOTS.get(upstream.runtime, _SLOTS_OF_OTHERS)


def _pool(name: str, endpoint: Endpoint, upstream: Upstream, limits: Limits) -> Pool | None:
    """What was set for the service, here or at its node, counts for all its models together; else slots do."""
    service = upstream.service
    limit = limits.services.get(service, upstream.concurrency_limit)
    if limit is not None:
        return Pool(service, max(1, limit))
    if limits.per_slot is None or service in limits.services:
        return None
    if endpoint.asset.slots:
        return Pool(name, ceil(endpoint.asset.slots * limits.per_slot))
    return Pool(service, ceil(upstream.slots * limits.per_slot)) if upstream.slots else None


def _relayed(service: str, relay: Relay, base_url: str, cluster_id: str) -> Lane:
    if base_url.startswith("https://"):
        return Lane(service, f"{base_url}/{service}", None, True, relay_name(cluster_id, relay.host_id))
    return Lane(service, f"{base_url}/{service}", relay.token, True)


def condition_words(upstream: Upstream) -> str:
    """Why a service takes no work: "offline: the node's stream closed"."""
    condition = upstream.condition
    if condition.availability not in (Availability.UNKNOWN, Availability.AVAILABLE, Availability.BUSY):
        state = condition.availability.name.lower()
    elif condition.health is Health.UNHEALTHY:
        state = "unhealthy"
    else:
        state = "takes no requests"
    reason = "" if condition.reason is Reason.UNSPECIFIED else condition.reason.name.lower().replace("_", " ")
    why = condition.detail or reason
    return f"{state}: {why}" if why else state


def _short(endpoint: str) -> str:
    return endpoint.removeprefix("endpoint/")
