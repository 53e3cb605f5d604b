import json
from typing import Any

import pytest

from gateway.core.listing import Listing
from gateway.core.table import Table
from geniehive.rules.model import (
    Asset,
    Branch,
    Condition,
    Endpoint,
    Health,
    LoadState,
    NameKind,
    OffloadHint,
    PromptAction,
    RequestPolicy,
    Resource,
    Route,
    Speed,
    SystemPrompt,
    Tier,
    TierEndpoint,
)
from geniehive.rules.operations import Ability, Operation
from tests.unit.gateway.builders import OFFLINE, endpoint, resource, route, served, table, upstream


def listed(t: Table) -> dict[str, Any]:
    body = json.loads(Listing(t).models(0.0))
    assert body["object"] == "list"
    return {entry["id"]: entry for entry in body["data"]}


def test_openais_shape_and_ours() -> None:
    t = table(route("m", "a/e/m"), endpoint("a/e", "m", context=2048), upstream("a/e"))
    assert listed(t)["m"] == {
        "id": "m",
        "object": "model",
        "created": 0,
        "owned_by": "geniehive",
        "geniehive": {
            "kind": "asset",
            "operations": ["chat", "completions"],
            "demo": False,
            "hosted": False,
            "available": True,
            "health": "unknown",
            "endpoints": 1,
            "loaded": 0,
            "hosts": ["a"],
            "abilities": [],
            "context_tokens": 2048,
        },
    }


def test_a_demo_model_is_labelled_so_unless_a_real_engine_has_it_too() -> None:
    t = table(route("m", "a/e/m"), endpoint("a/e", "m"), upstream("a/e", demo=True))
    assert listed(t)["m"]["geniehive"]["demo"] is True
    t.apply((route("m", "a/e/m", "b/e/m"), endpoint("b/e", "m"), upstream("b/e")))
    assert listed(t)["m"]["geniehive"]["demo"] is False


def test_who_is_away_is_listed_as_such() -> None:
    t = table(*served("m", a="http://x:1"))
    t.apply((upstream("a/e", routable=False, condition=OFFLINE),))
    assert listed(t)["m"]["geniehive"]["available"] is False


def test_aliases_first_and_neither_services_nor_globs() -> None:
    t = table(
        *served("m", a="http://x:1"),
        route("a/e", "a/e/m", kind=NameKind.SERVICE),
        route("b/e", kind=NameKind.SERVICE, choose_from=("x", "y")),
        route("gpt-*", "a/e/m", kind=NameKind.ALIAS, glob=True),
        route("zz", "a/e/m", kind=NameKind.ALIAS, operations=(Operation.EMBEDDINGS,)),
    )
    assert list(listed(t)) == ["zz", "m"]


def test_one_model() -> None:
    t = table(*served("org/m:8b", a="http://x:1"), route("b/e", kind=NameKind.SERVICE, choose_from=("x", "y")))
    found = Listing(t).model("org/m:8b")
    assert found is not None
    assert json.loads(found)["id"] == "org/m:8b"
    assert Listing(t).model("nope") is None
    service = Listing(t).model("b/e")
    assert service is not None
    assert json.loads(service)["geniehive"]["choose_from"] == ["x", "y"]


def test_all_operations_are_listed() -> None:
    t = table(
        *served("m", a="http://x:1"),
        route("m", "a/e/m", operations=(Operation.CHAT, Operation.RESPONSES)),
    )
    assert listed(t)["m"]["geniehive"]["operations"] == ["chat", "responses"]


def offer(host: str, model: str = "m", speed: float | None = None, **asset: Any) -> Resource:
    made = Asset(**{"asset_id": model, "upstream_name": model, **asset})
    known = None if speed is None else Speed(decode_tokens_per_second=speed)
    return resource(Endpoint(service=f"{host}/e", asset=made, speed=known))


def ours(*resources: Resource, name: str = "m") -> dict[str, Any]:
    found: dict[str, Any] = listed(table(*resources))[name]["geniehive"]
    return found


def test_what_is_known_of_a_model_on_two_hosts() -> None:
    found = ours(
        route("m", "a/e/m", "b/e/m"),
        offer("a", speed=40.0, family="qwen3", quantization="Q4_K_M", parameter_count=8_000_000_000, size_bytes=5,
              abilities=(Ability.TOOLS,), load_state=LoadState.LOADED, context_tokens=4096),
        offer("b", speed=60.0, family="qwen3", quantization="Q8_0", abilities=(Ability.REASONING, Ability.TOOLS),
              context_tokens=8192),
        upstream("a/e", condition=Condition(health=Health.DEGRADED)),
        upstream("b/e", condition=Condition(health=Health.HEALTHY)),
    )  # fmt: skip
    assert found["hosts"] == ["a", "b"]
    assert found["health"] == "healthy"
    assert (found["loaded"], found["endpoints"], found["context_tokens"]) == (1, 2, 8192)
    assert found["abilities"] == ["tools", "reasoning"]
    assert (found["family"], found["parameter_count"], found["size_bytes"]) == ("qwen3", 8_000_000_000, 5)
    assert "quantization" not in found, "the two don't agree in it"
    assert found["tokens_per_second"] == 60.0


def test_who_is_away_is_not_fast() -> None:
    found = ours(route("m", "a/e/m"), offer("a", speed=40.0), upstream("a/e", routable=False, condition=OFFLINE))
    assert "tokens_per_second" not in found


def test_roles_and_aliases_say_what_they_are() -> None:
    role = Route(
        model="coder",
        display_name="Coder",
        description="writes code",
        branches=(Branch(operations=(Operation.CHAT,), kind=NameKind.ROLE, tiers=()),),
        offload_hint=OffloadHint(suitability=0.75, basis="45 tok/s"),
    )
    alias = Route(model="claude", branches=(Branch(operations=(Operation.CHAT,), kind=NameKind.ALIAS, target="coder"),))
    found = listed(table(resource(role), resource(alias)))
    assert list(found) == ["claude", "coder"]
    assert found["claude"]["geniehive"]["target"] == "coder"
    shown = found["coder"]["geniehive"]
    assert (shown["kind"], shown["display_name"], shown["description"]) == ("role", "Coder", "writes code")
    assert shown["offload"] == {"suitability": 0.75, "basis": "45 tok/s"}
    assert (shown["available"], shown["hosts"], shown["endpoints"]) == (False, [], 0)


def in_tier(*hosts: str, policy: RequestPolicy | None = None) -> Resource:
    members = tuple(TierEndpoint(endpoint=f"endpoint/{host}/e/m") for host in hosts)
    branch = Branch(
        operations=(Operation.CHAT,), kind=NameKind.ROLE, tiers=(Tier(endpoints=members, request_policy=policy),)
    )
    return resource(Route(model="m", branches=(branch,)))


def test_the_policy_in_force_without_its_words() -> None:
    own = RequestPolicy(defaults_json='{"n":4096}')
    prompt = SystemPrompt(action=PromptAction.PREPEND, text="a secret of the house")
    role = RequestPolicy(overrides_json='{"temperature":0}', system_prompt=prompt, user_template="Q: {{ user_input }}")
    found = ours(in_tier("a", policy=role), offer("a", request_policies=(own,)), upstream("a/e"))
    assert found["request_policy"] == {
        "defaults": {"n": 4096},
        "overrides": {"temperature": 0},
        "system_prompt": "prepend",
        "user_template": True,
    }


@pytest.mark.parametrize("other", ['{"n":1}', "", "{"])
def test_a_policy_that_only_one_has_is_not_the_models(other: str) -> None:
    policies = (RequestPolicy(defaults_json=other),) if other else ()
    own = RequestPolicy(defaults_json='{"n":4096}')
    resources = [in_tier("a", "b"), upstream("a/e"), upstream("b/e")]
    found = ours(*resources, offer("a", request_policies=(own,)), offer("b", request_policies=policies))
    assert "request_policy" not in found


def test_latency_is_put_in_again_after_a_second() -> None:
    seconds: dict[str, float] = {}
    shown = Listing(table(*served("m", a="http://x:1"), *served("n", b="http://x:2")), seconds.get)

    def now(moment: float) -> list[float | None]:
        return [e["geniehive"].get("latency_p50_seconds") for e in json.loads(shown.models(moment))["data"]]

    assert now(0.0) == [None, None]
    seconds["m"] = 0.5
    assert now(0.9) == [None, None]
    assert now(1.1) == [0.5, None]
    del seconds["m"]
    assert now(2.2) == [None, None]
    seconds["n"] = 2.0
    one = shown.model("n")
    assert one is not None
    assert json.loads(one)["geniehive"]["latency_p50_seconds"] == 2.0


def test_a_change_of_the_table_is_seen_at_once() -> None:
    t = table(*served("m", a="http://x:1"), *served("n", b="http://x:2"))
    shown = Listing(t)

    def available() -> dict[str, bool]:
        return {e["id"]: e["geniehive"]["available"] for e in json.loads(shown.models(0.0))["data"]}

    assert available() == {"m": True, "n": True}
    t.apply((upstream("a/e", routable=False, condition=OFFLINE),))
    assert available() == {"m": False, "n": True}
    t.apply((), ("route/n",))
    assert available() == {"m": False}
