"""Roles: gates, tiers, fallbacks."""

from typing import Any

import pytest

from geniehive.rules.model import (
    Gate,
    Host,
    LoadState,
    NameKind,
    RequestPolicy,
    Role,
    RoutingPolicy,
    Rule,
    Strategy,
)
from geniehive.rules.operations import Ability, Operation
from geniehive_control.core.defaults import RoutingDefaults
from geniehive_control.core.table import Table
from tests.support.cluster import CHAT, EMBEDDINGS, asset, service
from tests.support.routing import endpoints, route, table


def role(role_id: str, operation: Operation = CHAT, **policy: Any) -> Role:
    return Role(role_id=role_id, operation=operation, routing_policy=RoutingPolicy(**policy))


def labels(of: Table, model: str, operation: Operation = CHAT) -> list[str]:
    found = route(of, model)
    assert found is not None
    return [tier.label for branch in found.branches if operation in branch.operations for tier in branch.tiers]


def test_preferred_families_are_tiers_and_all_others_the_last() -> None:
    of = service("a/x", "gemma3:4b", "qwen3:8b", "llama3.2:1b", "Qwen3.5-9B", "odd")
    found = table(of, roles=[role("coder", preferred_families=("qwen3", "mistral", "llama"))])
    assert endpoints(found, "coder") == [
        ["a/x/Qwen3.5-9B", "a/x/qwen3:8b"],
        ["a/x/llama3.2:1b"],
        ["a/x/gemma3:4b", "a/x/odd"],
    ]
    assert labels(found, "coder") == ["coder"] * 3


@pytest.mark.parametrize(
    ("policy", "gate", "reason"),
    [
        ({"trust_tiers": Rule(allowed=("own",))}, Gate.TRUST_TIER, "trust tier guest is not one of own"),
        ({"trust_tiers": Rule(denied=("guest",))}, Gate.TRUST_TIER, "trust tier guest is denied"),
        (
            {"device_classes": Rule(allowed=("server",))},
            Gate.DEVICE_CLASS,
            "its device class is not known, and not one of server",
        ),
        ({"workload_classes": Rule(allowed=("chat",))}, Gate.WORKLOAD_CLASS, "workload class batch is not one of chat"),
        ({"workload_classes": Rule(denied=("batch",))}, Gate.WORKLOAD_CLASS, "workload class batch is denied"),
        ({"min_context_tokens": 8192}, Gate.MIN_CONTEXT, "context 2048 < 8192"),
        ({"required_abilities": (Ability.TOOLS,)}, Gate.ABILITIES, "it lacks tools"),
        ({"required_abilities": (Ability.VISION,)}, Gate.ABILITIES, "it is not known to have vision"),
        ({"require_loaded": True}, Gate.REQUIRE_LOADED, "not known whether it is in memory"),
    ],
)
def test_each_gate(policy: dict[str, Any], gate: Gate, reason: str) -> None:
    host = Host(host_id="a", trust_tier="guest", workload_classes=("batch",))
    of = service("a/x", asset("m", context_tokens=2048, lacking_abilities=(Ability.TOOLS,)))
    found = route(table(of, roles=[role("r", **policy)], hosts=(host,)), "r")
    assert found is not None
    (branch,) = found.branches
    assert branch.tiers == ()
    (out,) = branch.ruled_out
    assert (out.endpoint, out.gate, out.reason) == ("endpoint/a/x/m", gate, reason)


def test_who_passes_every_gate() -> None:
    host = Host(host_id="a", trust_tier="own", device_class="server", workload_classes=("chat", "batch"))
    of = service(
        "a/x",
        asset("m", context_tokens=8192, abilities=(Ability.TOOLS, Ability.VISION), load_state=LoadState.SLEEPING),
    )
    demanding = role(
        "r",
        trust_tiers=Rule(allowed=("own",), denied=("guest",)),
        device_classes=Rule(allowed=("server",)),
        workload_classes=Rule(allowed=("chat",), denied=("night",)),
        min_context_tokens=8192,
        required_abilities=(Ability.TOOLS,),
        require_loaded=True,
    )
    assert endpoints(table(of, roles=[demanding], hosts=(host,)), "r") == [["a/x/m"]]
    # A host that says nothing of what it is for is for anything.
    anything = Host(host_id="a", trust_tier="own", device_class="server")
    assert endpoints(table(of, roles=[demanding], hosts=(anything,)), "r") == [["a/x/m"]]


def test_a_role_for_chat_covers_what_is_like_it_where_it_is_served() -> None:
    plain, rich = service("a/x", "m"), service("b/y", asset("n", CHAT, Operation.RESPONSES, EMBEDDINGS))
    found = table(plain, rich, roles=[role("r"), role("e", EMBEDDINGS)])
    assert endpoints(found, "r", CHAT) == [["a/x/m", "b/y/n"]]
    assert endpoints(found, "r", Operation.RESPONSES) == [["b/y/n"]]
    assert endpoints(found, "e", EMBEDDINGS) == [["b/y/n"]]
    made = route(found, "r")
    assert made is not None
    # Nobody at all serves messages.
    assert {operation for branch in made.branches for operation in branch.operations} == {CHAT, Operation.RESPONSES}


def test_nobody_serves_the_operation() -> None:
    found = route(table(service("a/x", "m"), roles=[role("e", EMBEDDINGS)]), "e")
    assert found is not None
    (out,) = found.branches[0].ruled_out
    assert (out.endpoint, out.gate) == ("", Gate.OPERATION)


def test_providers_serve_roles_that_allow_it() -> None:
    services = [service("a/cloud", "m", hosted=True), service("b/x", "n")]
    roles = [role("asks", allow_hosted=True), role("silent"), role("local", allow_hosted=False)]
    found = table(*services, roles=roles)
    assert endpoints(found, "asks") == [["a/cloud/m", "b/x/n"]]
    assert endpoints(found, "silent") == endpoints(found, "local") == [["b/x/n"]]
    found = table(*services, roles=roles, routing=RoutingDefaults(allow_hosted=True))
    assert endpoints(found, "silent") == [["a/cloud/m", "b/x/n"]]
    assert endpoints(found, "local") == [["b/x/n"]]
    (out,) = route(table(services[0], roles=roles), "local").branches[0].ruled_out  # type: ignore[union-attr]
    assert out.gate is Gate.HOSTED


def test_fallbacks_come_after_all_tiers_each_with_its_own_ways() -> None:
    of = service("a/x", asset("big", context_tokens=32768), asset("small", context_tokens=2048), asset("e", EMBEDDINGS))
    policy = RequestPolicy(defaults_json='{"temperature":0}')
    mentor = role("mentor", min_context_tokens=9999, fallback_role_ids=("embedder", "helper", "gone"))
    helper = Role(
        role_id="helper",
        operation=CHAT,
        request_policy=policy,
        routing_policy=RoutingPolicy(strategy=Strategy.ROUND_ROBIN, fallback_role_ids=("mentor",)),
    )
    found = table(of, roles=[mentor, helper, role("embedder", EMBEDDINGS)])
    # An endpoint that was asked already is not asked again under another label.
    assert endpoints(found, "mentor") == [["a/x/big"], ["a/x/small"]]
    made = route(found, "mentor")
    assert made is not None
    first, second = made.branches[0].tiers
    assert (first.label, first.strategy, first.request_policy) == ("mentor", Strategy.SOONEST, None)
    assert (second.label, second.strategy, second.request_policy) == ("mentor>helper", Strategy.ROUND_ROBIN, policy)
    assert made.branches[0].kind is NameKind.ROLE


def test_fallbacks_of_fallbacks_come_last_and_each_role_once() -> None:
    services = [service(f"{name}/x", "m") for name in "abcd"]
    hosts = tuple(Host(host_id=name, trust_tier=name) for name in "abcd")
    roles = [
        role("a", trust_tiers=Rule(allowed=("a",)), fallback_role_ids=("b", "c")),
        role("b", trust_tiers=Rule(allowed=("b",)), fallback_role_ids=("d", "a")),
        role("c", trust_tiers=Rule(allowed=("c",)), fallback_role_ids=("d", "b")),
        role("d", trust_tiers=Rule(allowed=("d",)), fallback_role_ids=("a",)),
    ]
    found = table(*services, roles=roles, hosts=hosts)
    assert labels(found, "a") == ["a", "a>b", "a>c", "a>b>d"]
    assert labels(found, "d") == ["d", "d>a", "d>a>b", "d>a>c"]


def test_a_role_that_is_local_only_stays_so_in_its_fallbacks() -> None:
    cloud = service("a/cloud", "m", hosted=True)
    roles = [
        role("local", allow_hosted=False, fallback_role_ids=("open",)),
        role("silent", fallback_role_ids=("open",)),
        role("open", allow_hosted=True),
    ]
    found = table(cloud, roles=roles)
    assert labels(found, "silent") == ["silent>open"]
    assert labels(found, "local") == []


def test_weights_of_a_scored_role() -> None:
    of = service("a/x", asset("qwen3:8b", load_state=LoadState.LOADED), "llama3.2:1b")
    found = table(of, roles=[role("r", strategy=Strategy.SCORED, preferred_labels={"zone": "a"})])
    made = route(found, "r")
    assert made is not None
    (tier,) = made.branches[0].tiers
    assert {e.endpoint: e.weight for e in tier.endpoints} == {
        "endpoint/a/x/qwen3:8b": round((0.30 * 0.35 + 0.15 * 0.5) * 100) * 10,
        "endpoint/a/x/llama3.2:1b": 80,
    }
    assert "in memory" in {e.endpoint: e.reason for e in tier.endpoints}["endpoint/a/x/qwen3:8b"]


def test_display_names_are_for_lists() -> None:
    made = Role(role_id="r", display_name="The R", description="for all", operation=CHAT)
    found = route(table(service("a/x", "m"), roles=[made]), "r")
    assert found is not None
    assert (found.display_name, found.description) == ("The R", "for all")
