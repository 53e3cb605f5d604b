"""The nouns that control, nodes and gateways share, as plain frozen values.

They mirror the messages of geniehive.v1 (registry, load, routing, credential), whose comments are the specification;
`geniehive.convert` translates. Enums have the contract's numbers. None means "not known" or "not set", never zero.
Times are seconds since the epoch, for people only.
"""

from enum import IntEnum

import msgspec

from geniehive.rules.operations import Ability, Operation


class Health(IntEnum):
    UNKNOWN = 0
    HEALTHY = 1
    DEGRADED = 2
    UNHEALTHY = 3


class Availability(IntEnum):
    UNKNOWN = 0
    AVAILABLE = 1
    BUSY = 2
    DRAINING = 3
    PAUSED = 4
    OFFLINE = 5
    QUARANTINED = 6


class Reason(IntEnum):
    """What led to a condition."""

    UNSPECIFIED = 0
    ENGINE = 1
    PROBE = 2
    OUTCOMES = 3
    UNREACHABLE = 4
    STREAM_CLOSED = 5
    LEASE_EXPIRED = 6
    PRESUMED = 7
    OPERATOR = 8
    OWNER = 9
    NOT_IDLE = 10
    ON_BATTERY = 11
    MEMORY = 12
    STOPPING = 13


class LoadState(IntEnum):
    UNKNOWN = 0
    UNLOADED = 1
    LOADING = 2
    LOADED = 3
    SLEEPING = 4
    FAILED = 5


class NameKind(IntEnum):
    UNSPECIFIED = 0
    ALIAS = 1
    ASSET = 2
    SERVICE = 3
    ROLE = 4


class Strategy(IntEnum):
    UNSPECIFIED = 0
    SOONEST = 1
    SCORED = 2
    LOADED_FIRST = 3
    LEAST_LOADED = 4
    ROUND_ROBIN = 5


class Gate(IntEnum):
    UNSPECIFIED = 0
    OPERATION = 1
    HEALTH = 2
    ACCEPT_REQUESTS = 3
    AVAILABILITY = 4
    HOSTED = 5
    TRUST_TIER = 6
    DEVICE_CLASS = 7
    WORKLOAD_CLASS = 8
    MIN_CONTEXT = 9
    ABILITIES = 10
    REQUIRE_LOADED = 11


class Owner(IntEnum):
    """Who owns a role or an alias, and so where it is changed."""

    UNSPECIFIED = 0
    FILE = 1
    API = 2
    FOUND = 3


class Scope(IntEnum):
    INFER = 1
    READ = 2
    OPERATE = 3
    ADMIN = 4

    @property
    def word(self) -> str:
        return self.name.lower()


# Frozen values are in no cycles, so that the garbage collector need not look at them; control may have a million.
class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A frozen value; equal when its fields are."""


class Condition(Value, frozen=True, kw_only=True):
    health: Health = Health.UNKNOWN
    availability: Availability = Availability.UNKNOWN
    reason: Reason = Reason.UNSPECIFIED
    detail: str = ""
    since: float | None = None


class Gpu(Value, frozen=True, kw_only=True):
    index: int = 0
    name: str = ""
    memory_bytes: int | None = None
    unified_memory: bool = False


class Machine(Value, frozen=True, kw_only=True):
    os: str = ""
    architecture: str = ""
    cpu_model: str = ""
    cpu_threads: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    gpus: tuple[Gpu, ...] = ()


class Host(Value, frozen=True, kw_only=True):
    host_id: str
    display_name: str = ""
    labels: dict[str, str] = {}
    trust_tier: str = ""
    device_class: str = ""
    workload_classes: tuple[str, ...] = ()
    machine: Machine = Machine()
    condition: Condition = Condition()


class Way(Value, frozen=True, kw_only=True):
    """Straight to the engine at `direct_url`, or, where that is None, through the host's relay."""

    direct_url: str | None = None
    same_host_only: bool = False
    reason: str = ""


class PromptAction(IntEnum):
    """What becomes of the client's system prompt; the numbers are those of the contract's fields."""

    PREPEND = 1
    APPEND = 2
    REPLACE = 3


class SystemPrompt(Value, frozen=True, kw_only=True):
    action: PromptAction
    text: str


class RequestPolicy(Value, frozen=True, kw_only=True):
    """How to shape a request's body. operations empty: for all. defaults_json, overrides_json: a JSON object, or ""."""

    operations: tuple[Operation, ...] = ()
    defaults_json: str = ""
    overrides_json: str = ""
    system_prompt: SystemPrompt | None = None
    user_template: str | None = None


class Rule(Value, frozen=True, kw_only=True):
    """What may and what may not. `allowed` empty: any. `denied` wins."""

    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()


class RoutingPolicy(Value, frozen=True, kw_only=True):
    """Whom a role asks. Never sent to a gateway: control compiles it."""

    preferred_families: tuple[str, ...] = ()
    preferred_labels: dict[str, str] = {}
    min_context_tokens: int | None = None
    require_loaded: bool = False
    required_abilities: tuple[Ability, ...] = ()
    trust_tiers: Rule = Rule()
    device_classes: Rule = Rule()
    workload_classes: Rule = Rule()
    allow_hosted: bool | None = None
    fallback_role_ids: tuple[str, ...] = ()
    strategy: Strategy = Strategy.UNSPECIFIED


class Role(Value, frozen=True, kw_only=True):
    """A task profile: how to ask, and whom. `modality` empty: any."""

    role_id: str
    display_name: str = ""
    description: str = ""
    operation: Operation
    modality: str = ""
    request_policy: RequestPolicy | None = None
    routing_policy: RoutingPolicy = RoutingPolicy()
    owner: Owner = Owner.UNSPECIFIED
    etag: str = ""


class Alias(Value, frozen=True, kw_only=True):
    """Another name, or a glob, for a name."""

    alias: str
    target: str
    owner: Owner = Owner.UNSPECIFIED
    etag: str = ""

    @property
    def glob(self) -> bool:
        return "*" in self.alias


class BenchmarkSample(Value, frozen=True, kw_only=True):
    """One measured run of a workload ("chat.short_reasoning/2") on one model of one service."""

    sample_id: str
    service: str
    asset_id: str
    workload: str
    measured: float
    request_count: int = 0
    correctness: float | None = None
    first_token_seconds: float | None = None
    prefill_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None


class Asset(Value, frozen=True, kw_only=True):
    """A model as one service offers it. `operations` empty: the service's."""

    asset_id: str
    upstream_name: str
    operations: tuple[Operation, ...] = ()
    abilities: tuple[Ability, ...] = ()
    lacking_abilities: tuple[Ability, ...] = ()
    context_tokens: int | None = None
    max_context_tokens: int | None = None
    family: str = ""
    quantization: str = ""
    digest: str = ""
    parameter_count: int | None = None
    size_bytes: int | None = None
    load_state: LoadState = LoadState.UNKNOWN
    slots: int | None = None
    request_policies: tuple[RequestPolicy, ...] = ()


class Service(Value, frozen=True, kw_only=True):
    """One engine or provider on a host; `service` is "host/service"."""

    service: str
    runtime: str = ""
    runtime_version: str = ""
    labels: dict[str, str] = {}
    operations: tuple[Operation, ...] = ()
    assets: tuple[Asset, ...] = ()
    omitted_asset_count: int = 0
    ways: tuple[Way, ...] = ()
    slots: int | None = None
    concurrency_limit: int | None = None
    accept_requests: bool | None = None
    hosted: bool = False
    demo: bool = False
    can_load: bool = False
    can_unload: bool = False
    loads_on_request: bool = False
    condition: Condition = Condition()

    def operations_of(self, asset: Asset) -> tuple[Operation, ...]:
        return asset.operations or self.operations


class Relay(Value, frozen=True, kw_only=True):
    """Where gateways reach a host's relay. `token` is a secret: never log or list it."""

    host_id: str
    base_urls: tuple[str, ...] = ()
    token: str | None = None


class Inventory(Value, frozen=True, kw_only=True):
    """Everything a node offers. Replaces what it offered before."""

    revision: int
    host: Host
    services: tuple[Service, ...] = ()
    relay: Relay | None = None


class AssetLoad(Value, frozen=True, kw_only=True):
    upstream_name: str
    running: int | None = None
    queued: int | None = None
    memory_bytes: int | None = None
    idle_seconds: float | None = None


class ServiceLoad(Value, frozen=True, kw_only=True):
    service: str
    age_seconds: float | None = None
    running: int | None = None
    queued: int | None = None
    relayed: int | None = None
    tokens_per_second: float | None = None
    cache_used_fraction: float | None = None
    latency_p50_seconds: float | None = None
    latency_p95_seconds: float | None = None
    first_token_p50_seconds: float | None = None
    assets: tuple[AssetLoad, ...] = ()


class GpuLoad(Value, frozen=True, kw_only=True):
    index: int = 0
    used_fraction: float | None = None
    memory_used_bytes: int | None = None
    memory_engines_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None


class MachineLoad(Value, frozen=True, kw_only=True):
    host_id: str
    cpu_used_fraction: float | None = None
    load_average: float | None = None
    memory_used_bytes: int | None = None
    memory_engines_bytes: int | None = None
    disk_free_bytes: int | None = None
    gpus: tuple[GpuLoad, ...] = ()


class Load(Value, frozen=True, kw_only=True):
    """Figures of a machine and its services. Whole: what is not in it is not known."""

    machine: MachineLoad | None = None
    services: tuple[ServiceLoad, ...] = ()


class TierEndpoint(Value, frozen=True, kw_only=True):
    """`endpoint` is a resource name, "endpoint/..."."""

    endpoint: str
    weight: int = 0
    reason: str = ""


class Tier(Value, frozen=True, kw_only=True):
    """Endpoints as good as one another. `label` is what x-geniehive-route says."""

    label: str = ""
    strategy: Strategy = Strategy.ROUND_ROBIN
    request_policy: RequestPolicy | None = None
    endpoints: tuple[TierEndpoint, ...] = ()


class RuledOut(Value, frozen=True, kw_only=True):
    endpoint: str
    gate: Gate = Gate.UNSPECIFIED
    reason: str = ""


class Branch(Value, frozen=True, kw_only=True):
    """What a name means for some operations."""

    operations: tuple[Operation, ...]
    kind: NameKind = NameKind.UNSPECIFIED
    target: str = ""
    choose_from: tuple[str, ...] = ()
    tiers: tuple[Tier, ...] = ()
    expected_completion_tokens: int | None = None
    ruled_out: tuple[RuledOut, ...] = ()


class OffloadHint(Value, frozen=True, kw_only=True):
    """Whether to hand simple subtasks to a name. suitability: 0 to 1. basis: in words."""

    suitability: float
    basis: str = ""


class Route(Value, frozen=True, kw_only=True):
    """What a client may write in "model", fully compiled."""

    model: str
    glob: bool = False
    branches: tuple[Branch, ...] = ()
    shadows: tuple[NameKind, ...] = ()
    display_name: str = ""
    description: str = ""
    offload_hint: OffloadHint | None = None


class Speed(Value, frozen=True, kw_only=True):
    """How fast a model is on its host, in bands. decode: of one request alone."""

    prefill_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    load_seconds: float | None = None
    cold_cost_seconds: float | None = None


class Endpoint(Value, frozen=True, kw_only=True):
    """A model on an upstream."""

    service: str
    asset: Asset
    speed: Speed | None = None


class ScoreTerm(Value, frozen=True, kw_only=True):
    """One summand of a match score: `name` is "text", "runtime", "benchmark" or "family"; `value` 0 to 1."""

    name: str
    weight: float
    value: float
    signals: dict[str, float] = {}
    reasons: tuple[str, ...] = ()


class Upstream(Value, frozen=True, kw_only=True):
    """A service as gateways see it."""

    service: str
    runtime: str = ""
    routable: bool = False
    condition: Condition = Condition()
    ways: tuple[Way, ...] = ()
    slots: int | None = None
    concurrency_limit: int | None = None
    hosted: bool = False
    demo: bool = False


class ClientKey(Value, frozen=True, kw_only=True):
    """A client key, never the key itself; `sha256` are the 32 bytes of its digest."""

    key_id: str
    sha256: bytes = b""
    display_name: str = ""
    scopes: tuple[Scope, ...] = ()
    expires: float | None = None
    configured: bool = False


Content = Route | Endpoint | Upstream | Relay | ClientKey


class Resource(Value, frozen=True, kw_only=True):
    """One named, versioned thing in the routing table. `content` None: of a kind not known here; kept, not used."""

    name: str
    version: str
    content: Content | None = None
