"""What a plan says of endpoints, for whoever chooses among them."""

import msgspec
import pytest

from gateway.core.plan import Candidate, Plan
from geniehive.rules.model import Endpoint, LoadState, Route, Speed, Strategy
from geniehive.rules.operations import Operation
from tests.unit.gateway.builders import endpoint, resource, route, table, upstream

SPEED = Speed(decode_tokens_per_second=10.0)


def compiled(strategy: Strategy = Strategy.SOONEST, asset: object = None, **service: object) -> Plan:
    content = endpoint("a/e", "m").content
    assert isinstance(content, Endpoint)
    changed = msgspec.structs.replace(content.asset, **(asset or {}))  # type: ignore[call-overload]
    model = msgspec.structs.replace(content, asset=changed, speed=SPEED)
    named = route("m", "a/e/m").content
    assert isinstance(named, Route)
    branch = named.branches[0]
    weighed = tuple(msgspec.structs.replace(e, weight=700) for e in branch.tiers[0].endpoints)
    tier = msgspec.structs.replace(branch.tiers[0], strategy=strategy, endpoints=weighed)
    branch = msgspec.structs.replace(branch, tiers=(tier,), expected_completion_tokens=300)
    changed_route = resource(msgspec.structs.replace(named, branches=(branch,)))
    found = table(changed_route, resource(model), upstream("a/e", **service)).find("m", Operation.CHAT)
    assert isinstance(found, Plan)
    return found


def only(plan: Plan) -> Candidate:
    return plan.tiers[0].candidates[0]


def test_what_control_says_is_there() -> None:
    plan = compiled(asset={"context_tokens": 4096})
    assert (plan.tiers[0].strategy, plan.tiers[0].expected) == (Strategy.SOONEST, 300)
    assert (only(plan).weight, only(plan).speed, only(plan).context_tokens) == (700, SPEED, 4096)


def test_a_strategy_that_is_not_known_is_the_default() -> None:
    assert compiled(Strategy.UNSPECIFIED).tiers[0].strategy is Strategy.SOONEST


@pytest.mark.parametrize(
    ("asset", "service", "key", "slots", "known"),
    [
        ({"slots": 3}, {"slots": 8}, "endpoint/a/e/m", 3, True),
        ({}, {"slots": 8}, "a/e", 8, True),
        ({}, {"concurrency_limit": 5}, "a/e", 5, True),
        ({}, {"runtime": "ollama"}, "a/e", 1, False),
        ({}, {"runtime": "vllm"}, "a/e", 64, False),
        ({}, {"runtime": "openai", "hosted": True}, "a/e", 64, False),
        ({}, {"runtime": "other"}, "a/e", 4, False),
    ],
)
def test_slots(asset: object, service: dict[str, object], key: str, slots: int, known: bool) -> None:
    found = only(compiled(asset=asset, **service))
    assert (found.load_key, found.slots, found.slots_known) == (key, slots, known)


@pytest.mark.parametrize(
    ("state", "loaded"),
    [
        (LoadState.LOADED, True), (LoadState.LOADING, True), (LoadState.UNLOADED, False), (LoadState.SLEEPING, False),
        (LoadState.UNKNOWN, None),
    ],
)  # fmt: skip
def test_what_is_in_memory(state: LoadState, loaded: bool | None) -> None:
    assert only(compiled(asset={"load_state": state})).loaded is loaded
