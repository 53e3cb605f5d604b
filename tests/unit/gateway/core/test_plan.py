"""Which lanes an endpoint has, and why a service takes no work, in words."""

import pytest

from gateway.core.plan import Lane, Limits, Plan, Pool, condition_words
from gateway.core.table import Table
from geniehive.rules.identity import relay_name
from geniehive.rules.model import (
    Asset,
    Availability,
    Condition,
    Endpoint,
    Health,
    LoadState,
    Reason,
    Relay,
    Upstream,
    Way,
)
from geniehive.rules.operations import Operation
from tests.unit.gateway.builders import OFFLINE, endpoint, resource, route, table, upstream


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (OFFLINE, "offline: the node's stream closed"),
        (Condition(availability=Availability.OFFLINE, reason=Reason.LEASE_EXPIRED), "offline: lease expired"),
        (Condition(health=Health.UNHEALTHY, detail="connection refused"), "unhealthy: connection refused"),
        (Condition(), "takes no requests"),
    ],
)
def test_condition_words(condition: Condition, words: str) -> None:
    assert condition_words(Upstream(service="a/e", condition=condition)) == words


def relayed(*base_urls: str, token: str | None = None) -> Table:
    relay = resource(Relay(host_id="far", base_urls=base_urls, token=token))
    return table(route("m", "far/e/m"), endpoint("far/e", "m"), upstream("far/e", ways=(Way(),)), relay)


def lanes(of: Table) -> tuple[Lane, ...]:
    plan = of.find("m", Operation.CHAT)
    assert isinstance(plan, Plan)
    return plan.tiers[0].candidates[0].lanes


def test_a_relay_with_tls_is_known_by_its_name_and_gets_no_token() -> None:
    made = lanes(relayed("https://192.0.2.1:8803", "http://127.0.0.1:8803", token="t0"))
    assert made == (
        Lane("far/e", "https://192.0.2.1:8803/far/e", None, True, relay_name("c-1", "far")),
        Lane("far/e", "http://127.0.0.1:8803/far/e", "t0", True, None),
    )
    assert "t0" not in repr(made)


def test_lanes_are_made_once_for_a_table() -> None:
    made = relayed("https://192.0.2.1:8803")
    assert lanes(made) is lanes(made)


def test_another_cluster_has_other_names() -> None:
    made = relayed("https://192.0.2.1:8803")
    assert lanes(made)[0].tls_name == relay_name("c-1", "far")
    made.apply((), cluster_id="c-2")
    assert lanes(made)[0].tls_name == relay_name("c-2", "far")


@pytest.mark.parametrize(
    ("runtime", "hosted", "also"),
    [("openai", False, True), ("openai", True, False), ("vllm", False, False), ("", False, False)],
)
def test_who_is_told_of_model_name(runtime: str, hosted: bool, also: bool) -> None:
    made = table(route("m", "a/e/m"), endpoint("a/e", "m"), upstream("a/e", runtime=runtime, hosted=hosted))
    plan = made.find("m", Operation.CHAT)
    assert isinstance(plan, Plan)
    assert plan.tiers[0].candidates[0].also_named is also


LOADING = Condition(health=Health.UNHEALTHY, reason=Reason.ENGINE, detail="is loading its model")


@pytest.mark.parametrize(
    ("load_state", "condition", "loading"),
    [
        (LoadState.LOADING, LOADING, True),
        (LoadState.LOADED, LOADING, False),
        (LoadState.UNKNOWN, LOADING, False),
        (LoadState.LOADING, OFFLINE, False),
        (LoadState.LOADING, Condition(availability=Availability.PAUSED, reason=Reason.OPERATOR), False),
    ],
)
def test_who_will_serve_by_itself(load_state: LoadState, condition: Condition, loading: bool) -> None:
    asset = Asset(asset_id="m", upstream_name="m", load_state=load_state)
    model, away = (
        resource(Endpoint(service="a/e", asset=asset)),
        upstream("a/e", routable=False, condition=condition),
    )
    plan = table(route("m", "a/e/m"), model, away).find("m", Operation.CHAT)
    assert isinstance(plan, Plan)
    assert [u.loading for u in plan.unusable] == [loading]


SET = Pool("a/e", 3)


@pytest.mark.parametrize(
    ("limits", "service", "asset_slots", "pool"),
    [
        # Who says nothing has no limit, and slots set none unless told to.
        (Limits(), {}, None, None),
        (Limits(per_slot=4.0), {}, None, None),
        (Limits(), {"slots": 2}, 2, None),
        # Slots of the service are shared by its models; a model's own are its own.
        (Limits(per_slot=4.0), {"slots": 2}, None, Pool("a/e", 8)),
        (Limits(per_slot=4.0), {"slots": 9}, 2, Pool("endpoint/a/e/m", 8)),
        (Limits(per_slot=0.3), {"slots": 2}, None, Pool("a/e", 1)),
        # What was set comes first, here before at the node.
        (Limits(per_slot=4.0), {"slots": 9, "concurrency_limit": 3}, 9, SET),
        (Limits(), {"concurrency_limit": 3}, None, SET),
        (Limits(services={"a/e": 3}), {"concurrency_limit": 5, "slots": 1}, 1, SET),
        (Limits(services={"b/e": 3}), {"concurrency_limit": 5}, None, Pool("a/e", 5)),
        (Limits(per_slot=4.0, services={"a/e": None}), {"concurrency_limit": 5, "slots": 1}, 1, None),
        # None at all would hold requests for ever.
        (Limits(), {"concurrency_limit": 0}, None, Pool("a/e", 1)),
    ],
)
def test_what_limits_an_endpoint(
    limits: Limits, service: dict[str, int], asset_slots: int | None, pool: Pool | None
) -> None:
    model = resource(Endpoint(service="a/e", asset=Asset(asset_id="m", upstream_name="m", slots=asset_slots)))
    made = Table("here", limits=limits)
    for known in (made, made.blank()):
        known.apply((route("m", "a/e/m"), model, upstream("a/e", **service)))
        plan = known.find("m", Operation.CHAT)
        assert isinstance(plan, Plan)
        assert plan.tiers[0].candidates[0].pool == pool


def test_pools_are_named_for_people() -> None:
    assert [Pool("a/e", 1).name, Pool("endpoint/a/e/m", 1).name] == ["a/e", "a/e/m"]
