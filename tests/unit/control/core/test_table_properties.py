"""Whatever changes in whatever order: the table is as if it were made anew, and says what became other."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from geniehive.rules.model import (
    Alias,
    Asset,
    BenchmarkSample,
    Content,
    Host,
    LoadState,
    Role,
    RoutingPolicy,
    Rule,
    Service,
    Speed,
    Strategy,
)
from geniehive.rules.operations import Ability, Operation
from geniehive_control.core.defaults import RoutingDefaults
from geniehive_control.core.table import Table

HOSTS = st.sampled_from(["a", "b"])
SERVICES = st.sampled_from(["a/x", "a/y", "b/x"])
MODELS = st.sampled_from(["qwen3:8b", "Qwen/Qwen3-8B", "qwen3-8b", "m", "a/x", "r1"])
OPERATIONS = st.sampled_from([(), (Operation.CHAT, Operation.RESPONSES), (Operation.EMBEDDINGS,)])
ROLES = st.sampled_from(["r1", "r2", "r3", "m"])
ALIASES = st.sampled_from(["q*", "qwen3-8b", "*", "m", "al", "r2"])
TARGETS = st.sampled_from(["qwen3:8b", "a/x", "r1", "r3", "gone"])

ASSETS = st.builds(
    lambda name, upstream, operations, context, loaded, quantization, tools: Asset(
        asset_id=name,
        upstream_name=upstream,
        operations=operations,
        context_tokens=context,
        load_state=loaded,
        quantization=quantization,
        abilities=(Ability.TOOLS,) if tools else (),
    ),
    MODELS,
    st.sampled_from(["u1", "u2", "u3"]),
    OPERATIONS,
    st.sampled_from([None, 2048, 8192]),
    st.sampled_from([LoadState.UNKNOWN, LoadState.LOADED, LoadState.UNLOADED]),
    st.sampled_from(["", "Q4_K_M", "Q8_0"]),
    st.booleans(),
)
OFFERS = st.builds(
    lambda name, assets, hosted, operations: Service(
        service=name,
        runtime="ollama",
        operations=operations,
        assets=tuple({asset.upstream_name: asset for asset in assets}.values()),
        hosted=hosted,
    ),
    SERVICES,
    st.lists(ASSETS, max_size=3),
    st.booleans(),
    OPERATIONS,
)
POLICIES = st.builds(
    RoutingPolicy,
    preferred_families=st.sampled_from([(), ("qwen3",)]),
    min_context_tokens=st.sampled_from([None, 4096]),
    require_loaded=st.booleans(),
    required_abilities=st.sampled_from([(), (Ability.TOOLS,)]),
    trust_tiers=st.sampled_from([Rule(), Rule(allowed=("own",))]),
    allow_hosted=st.sampled_from([None, True, False]),
    fallback_role_ids=st.lists(ROLES, max_size=2).map(tuple),
    strategy=st.sampled_from([Strategy.UNSPECIFIED, Strategy.SCORED]),
)


class Changes(RuleBasedStateMachine):
    routing = RoutingDefaults()

    def __init__(self) -> None:
        super().__init__()
        self.table = Table(self.routing)
        self.services: dict[str, Service] = {}
        self.hosts: dict[str, Host] = {}
        self.roles: dict[str, Role] = {}
        self.aliases: dict[str, Alias] = {}
        self.speeds: dict[str, Speed] = {}
        self.latencies: dict[str, float] = {}
        self.samples: dict[tuple[str, str], BenchmarkSample] = {}
        self.held: dict[str, Content | None] = {}

    @rule(service=OFFERS)
    def put(self, service: Service) -> None:
        self.services[service.service] = service
        self.check(self.table.put_service(service))

    @rule(name=SERVICES)
    def drop(self, name: str) -> None:
        self.services.pop(name, None)
        self.check(self.table.drop_service(name))

    @rule(host_id=HOSTS, tier=st.sampled_from(["", "own"]), labels=st.sampled_from([{}, {"zone": "z"}]))
    def put_host(self, host_id: str, tier: str, labels: dict[str, str]) -> None:
        self.hosts[host_id] = Host(host_id=host_id, trust_tier=tier, labels=labels)
        self.table.put_host(self.hosts[host_id])
        self.check(set())

    @rule(role_id=ROLES, operation=st.sampled_from([Operation.CHAT, Operation.EMBEDDINGS]), policy=POLICIES)
    def put_role(self, role_id: str, operation: Operation, policy: RoutingPolicy) -> None:
        self.roles[role_id] = Role(role_id=role_id, operation=operation, routing_policy=policy)
        self.profiles()

    @rule(role_id=ROLES)
    def no_role(self, role_id: str) -> None:
        self.roles.pop(role_id, None)
        self.profiles()

    @rule(name=ALIASES, other=TARGETS)
    def alias(self, name: str, other: str) -> None:
        self.aliases[name] = Alias(alias=name, target=other)
        self.profiles()

    @rule(name=ALIASES)
    def no_alias(self, name: str) -> None:
        self.aliases.pop(name, None)
        self.profiles()

    def profiles(self) -> None:
        self.table.set_profiles(dict(self.roles), dict(self.aliases))
        self.check(set())

    @rule(service=SERVICES, upstream=st.sampled_from(["u1", "u2"]), rate=st.sampled_from([None, 10.0, 50.0]))
    def speed(self, service: str, upstream: str, rate: float | None) -> None:
        endpoint = f"endpoint/{service}/{upstream}"
        self.speeds.pop(endpoint, None)
        if rate is not None:
            self.speeds[endpoint] = Speed(decode_tokens_per_second=rate)
        self.check(self.table.put_speed(endpoint, self.speeds.get(endpoint)))

    @rule(service=SERVICES, upstream=st.sampled_from(["u1", "u2"]), seconds=st.sampled_from([None, 1.0, 9.0]))
    def latency(self, service: str, upstream: str, seconds: float | None) -> None:
        endpoint = f"endpoint/{service}/{upstream}"
        self.latencies.pop(endpoint, None)
        if seconds is not None:
            self.latencies[endpoint] = seconds
        self.table.put_latency(endpoint, seconds)
        self.check(set())

    @rule(service=SERVICES, model=MODELS, correctness=st.sampled_from([0.0, 1.0]))
    def benchmark(self, service: str, model: str, correctness: float) -> None:
        sample = BenchmarkSample(
            sample_id="s", service=service, asset_id=model, workload="chat.x/1", measured=1.0, correctness=correctness
        )
        self.samples[service, model] = sample
        self.table.put_benchmarks(service, model, [sample])
        self.check(set())

    def check(self, changed: set[str]) -> None:
        changed = changed | self.table.compile()
        now = {name: self.table.content(name) for name in self.table}
        assert now == self.anew()
        assert {name for name in now.keys() | self.held.keys() if now.get(name) != self.held.get(name)} <= changed
        self.held = now

    def anew(self) -> dict[str, Content | None]:
        fresh = Table(self.routing)
        fresh.set_profiles(self.roles, self.aliases)
        for host in self.hosts.values():
            fresh.put_host(host)
        for endpoint, speed in self.speeds.items():
            fresh.put_speed(endpoint, speed)
        for endpoint, seconds in self.latencies.items():
            fresh.put_latency(endpoint, seconds)
        for service in self.services.values():
            fresh.put_service(service)
        for (name, model), sample in self.samples.items():
            fresh.put_benchmarks(name, model, [sample])
        fresh.compile()
        return {name: fresh.content(name) for name in fresh}


class ScoredChanges(Changes):
    routing = RoutingDefaults(strategy=Strategy.SCORED, allow_hosted=True, thinking_off=False)


TestChanges = Changes.TestCase
TestChanges.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestScored = ScoredChanges.TestCase
TestScored.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
