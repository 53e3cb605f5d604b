"""Why: every endpoint of a name, and its gate or tier."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geniehive.rules.model import (
    Alias,
    Availability,
    Condition,
    Gate,
    Health,
    LoadState,
    Reason,
    Role,
    Route,
    RoutingPolicy,
    Strategy,
    Upstream,
)
from geniehive.rules.operations import Operation
from geniehive_control.core import explaining
from geniehive_control.core.defaults import RoutingDefaults
from geniehive_control.core.explaining import Explained
from geniehive_control.core.refusal import Refusal, Why
from tests.support.cluster import CHAT, EMBEDDINGS, asset, service
from tests.support.routing import table


def told(found: Explained) -> list[tuple[str, int | None, Gate | None]]:
    return [
        (c.endpoint.removeprefix("endpoint/"), c.tier, None if c.ruled_out is None else c.ruled_out.gate)
        for c in found.candidates
    ]


MENTOR = Role(
    role_id="mentor",
    operation=CHAT,
    routing_policy=RoutingPolicy(preferred_families=("qwen3",), min_context_tokens=8192, fallback_role_ids=("helper",)),
)
HELPER = Role(role_id="helper", operation=CHAT, routing_policy=RoutingPolicy(min_context_tokens=4096))


def test_a_role_with_everybody_that_was_considered() -> None:
    of = table(
        service("a/x", asset("qwen3:8b", context_tokens=9000), asset("gemma3:4b", context_tokens=9000)),
        service("b/x", asset("m", context_tokens=4096), asset("n", context_tokens=2048), asset("e", EMBEDDINGS)),
        service("c/cloud", asset("h", context_tokens=9000), hosted=True),
        service("d/x", asset("o", context_tokens=9000)),
        roles=(MENTOR, HELPER),
    )
    away = Condition(availability=Availability.OFFLINE, reason=Reason.LEASE_EXPIRED, detail="its node fell silent")
    of.put_upstream(Upstream(service="d/x", condition=away))
    found = explaining.explain(of, "mentor", CHAT)
    assert told(found) == [
        ("a/x/qwen3:8b", 0, None),
        ("a/x/gemma3:4b", 1, None),
        ("b/x/m", 2, None),
        ("b/x/e", None, Gate.OPERATION),
        ("d/x/o", None, Gate.AVAILABILITY),
        ("c/cloud/h", None, Gate.HOSTED),
        ("b/x/n", None, Gate.MIN_CONTEXT),
    ]
    reasons = {c.ruled_out.endpoint: c.ruled_out.reason for c in found.candidates if c.ruled_out is not None}
    assert reasons["endpoint/d/x/o"] == "offline: its node fell silent"
    assert reasons["endpoint/b/x/n"] == "context 2048 < 8192"
    assert {resource.name for resource in found.resources} >= {"endpoint/a/x/qwen3:8b", "upstream/a/x"}
    # An alias of it is the same.
    of.set_profiles({"mentor": MENTOR, "helper": HELPER}, {"al": Alias(alias="al", target="mentor")})
    of.compile()
    assert told(explaining.explain(of, "al", CHAT)) == told(found)


@pytest.mark.parametrize(
    ("condition", "gate"),
    [
        (Condition(health=Health.UNHEALTHY, reason=Reason.PROBE), Gate.HEALTH),
        (Condition(reason=Reason.UNREACHABLE, availability=Availability.AVAILABLE), Gate.HEALTH),
        (Condition(reason=Reason.OPERATOR, availability=Availability.PAUSED), Gate.ACCEPT_REQUESTS),
        (Condition(reason=Reason.OWNER, availability=Availability.PAUSED), Gate.AVAILABILITY),
    ],
)
def test_a_service_that_takes_nothing(condition: Condition, gate: Gate) -> None:
    of = table(service("a/x", "m"))
    of.put_upstream(Upstream(service="a/x", condition=condition))
    assert told(explaining.explain(of, "m", CHAT)) == [("a/x/m", None, gate)]


def test_a_model_a_service_and_a_found_name() -> None:
    of = table(
        service("a/x", "qwen3:8b", asset("e", EMBEDDINGS)),
        service("b/x", "Qwen/Qwen3-8B"),
        service("c/cloud", "qwen3:8b", hosted=True),
        service("d/x", asset("qwen3:8b", EMBEDDINGS)),
    )
    assert told(explaining.explain(of, "qwen3:8b", CHAT)) == [
        ("a/x/qwen3:8b", 0, None),
        ("d/x/qwen3:8b", None, Gate.OPERATION),
        ("c/cloud/qwen3:8b", None, Gate.HOSTED),
    ]
    assert told(explaining.explain(of, "a/x", CHAT)) == [("a/x/qwen3:8b", 0, None), ("a/x/e", None, Gate.OPERATION)]
    assert told(explaining.explain(of, "qwen3-8b", CHAT)) == [
        ("a/x/qwen3:8b", 0, None),
        ("b/x/Qwen/Qwen3-8B", 0, None),
        ("d/x/qwen3:8b", None, Gate.OPERATION),
        ("c/cloud/qwen3:8b", None, Gate.HOSTED),
    ]


def test_a_glob_is_looked_up_as_the_name_that_it_was() -> None:
    of = table(service("a/x", "m"), aliases=(Alias(alias="claude-*", target="m"),))
    found = explaining.explain(of, "claude-opus", CHAT)
    assert (found.route.model, found.route.glob) == ("claude-*", True)
    assert told(found) == [("a/x/m", 0, None)]


def test_refusals() -> None:
    of = table(service("a/x", "m", "n"))
    for model, operation, why in (
        ("gone", CHAT, Why.ROUTE_NOT_FOUND),
        ("m", EMBEDDINGS, Why.OPERATION_NOT_SERVED),
        ("a/x", CHAT, Why.NAME_AMBIGUOUS),
    ):
        with pytest.raises(Refusal) as caught:
            explaining.explain(of, model, operation)
        assert caught.value.why is why


MODELS = st.builds(
    lambda number, family, context, loaded: asset(
        f"{family}:{number}b", context_tokens=context, load_state=LoadState.LOADED if loaded else LoadState.UNLOADED
    ),
    st.integers(1, 3),
    st.sampled_from(["qwen3", "gemma3"]),
    st.sampled_from([None, 2048, 4096, 9000]),
    st.booleans(),
)


@settings(max_examples=40)
@given(
    st.lists(st.lists(MODELS, max_size=3, unique_by=lambda made: made.asset_id), max_size=4),
    st.sampled_from([Strategy.SOONEST, Strategy.SCORED]),
)
def test_what_is_explained_is_what_was_compiled(offered: list[list[object]], strategy: Strategy) -> None:
    services = [service(f"h{n}/x", *models, hosted=n == 3) for n, models in enumerate(offered)]  # type: ignore[arg-type]
    of = table(*services, roles=(MENTOR, HELPER), routing=RoutingDefaults(strategy=strategy))
    everybody = {name for name in of if name.startswith("endpoint/")}
    for made in list(of.routes()):
        if made.branches[0].choose_from or Operation.CHAT not in made.branches[0].operations:
            continue
        found = explaining.explain(of, made.model, CHAT)
        resource = of.content(f"route/{made.model}")
        assert isinstance(resource, Route)
        tiers = resource.branches[0].tiers
        compiled = {(e.endpoint, index): e.weight for index, tier in enumerate(tiers) for e in tier.endpoints}
        said = {(c.endpoint, c.tier): c.score for c in found.candidates if c.tier is not None}
        assert said.keys() == compiled.keys()
        if strategy is Strategy.SCORED:
            assert {key: round(score * 100) * 10 for key, score in said.items()} == compiled
        if made.model in ("mentor", "helper"):
            assert {c.endpoint for c in found.candidates} == everybody
