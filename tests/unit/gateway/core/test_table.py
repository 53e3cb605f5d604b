"""The routing table: applied in whole or not at all, and looked up."""

import pytest

from gateway.core.plan import Plan
from gateway.core.table import ChooseFrom, NotFound, OtherOperations, Rejected, Table
from geniehive.rules.model import (
    Asset,
    Availability,
    Branch,
    ClientKey,
    Condition,
    Endpoint,
    Health,
    NameKind,
    Reason,
    Relay,
    Resource,
    Route,
    Way,
)
from geniehive.rules.operations import Ability, Operation
from tests.unit.gateway.builders import endpoint, key, resource, route, served, table, upstream


def plan_of(t: Table, model: str) -> Plan:
    found = t.find(model, Operation.CHAT)
    assert isinstance(found, Plan)
    return found


def hosts(plan: Plan) -> list[str]:
    return [c.host for tier in plan.tiers for c in tier.candidates]


def test_a_cold_table_is_not_ready_and_an_empty_update_makes_it_so() -> None:
    t = Table("g")
    assert not t.ready
    t.apply((), cluster_id="c")
    assert t.ready
    assert t.cluster_id == "c"


def test_a_name_leads_to_all_who_serve_it() -> None:
    t = table(*served("org/m:8b", a="http://127.0.0.1:1", b="http://127.0.0.1:2"))
    assert hosts(plan_of(t, "org/m:8b")) == ["a", "b"]


def test_an_unknown_name_comes_with_near_matches() -> None:
    t = table(*served("qwen3:8b", a="http://x:1"), *served("llama3", a="http://x:1"))
    assert t.find("qwne3:8b", Operation.CHAT) == NotFound(("qwen3:8b",))
    assert not t.knows("qwne3:8b")


def test_a_name_of_other_operations_says_which() -> None:
    t = table(route("e", "a/e/e", operations=(Operation.EMBEDDINGS,)))
    assert t.find("e", Operation.CHAT) == OtherOperations((Operation.EMBEDDINGS,))


def test_a_service_with_several_models_asks_to_choose() -> None:
    t = table(route("a/e", kind=NameKind.SERVICE, choose_from=("m1", "m2")))
    assert t.find("a/e", Operation.CHAT) == ChooseFrom(("m1", "m2"))


def test_exact_names_come_before_globs_and_long_globs_before_short_ones() -> None:
    t = table(
        *served("gpt-4o", a="http://x:1"),
        route("gpt-4*", "b/e/m", glob=True, kind=NameKind.ALIAS),
        route("*", "c/e/m", glob=True, kind=NameKind.ALIAS),
        *(upstream(f"{h}/e") for h in "bc"),
        *(endpoint(f"{h}/e", "m") for h in "bc"),
    )
    assert [hosts(plan_of(t, m)) for m in ("gpt-4o", "gpt-4-turbo", "other")] == [["a"], ["b"], ["c"]]
    t.apply((), ("route/gpt-4*",))
    assert hosts(plan_of(t, "gpt-4-turbo")) == ["c"]


def test_the_pattern_of_a_glob_is_no_name() -> None:
    t = table(route("gpt-*", "a/e/m", glob=True), upstream("a/e"), endpoint("a/e", "m"))
    assert hosts(plan_of(t, "gpt-*")) == ["a"]  # it matches itself, by the pattern
    t.apply((), ("route/gpt-*",))
    assert isinstance(t.find("gpt-*", Operation.CHAT), NotFound)


def test_a_service_that_is_away_keeps_its_names() -> None:
    t = table(*served("m", a="http://x:1"))
    t.apply((upstream("a/e", routable=False),))
    plan = plan_of(t, "m")
    assert plan.tiers == ()
    assert [(u.name, u.reason) for u in plan.unusable] == [("a/e/m", "takes no requests")]


def test_an_update_shows_at_once() -> None:
    t = table(*served("m", a="http://x:1"))
    before = t.generation
    assert hosts(plan_of(t, "m")) == ["a"]
    t.apply(served("m", a="http://x:1", b="http://x:2"))
    assert hosts(plan_of(t, "m")) == ["a", "b"]
    assert t.generation > before


def test_keys_alone_leave_the_plans_as_they_are() -> None:
    t = table(*served("m", a="http://x:1"))
    before, plan = t.generation, plan_of(t, "m")
    t.apply((key("secret"),))
    assert t.generation == before
    assert plan_of(t, "m") is plan


def test_a_revoked_key_is_gone() -> None:
    t = table(key("secret"))
    digest = next(iter(t._keys))
    assert t.key(digest) is not None
    t.apply((), ("key/k1",))
    assert t.key(digest) is None


def test_redundant_updates_are_borne() -> None:
    t = table(*served("m", a="http://x:1"))
    t.apply(served("m", a="http://x:1"), ("route/never-was",))
    assert hosts(plan_of(t, "m")) == ["a"]


def test_versions_are_held_even_of_kinds_that_are_not_known() -> None:
    t = table(Resource(name="novelty/x", version="v9", content=None), key("s"))
    assert t.versions == {"novelty/x": "v9", "key/k1": "1"}


def test_a_name_may_change_its_kind_of_content_to_unknown() -> None:
    t = table(*served("m", a="http://x:1"))
    t.apply((Resource(name="route/m", version="2", content=None),))
    assert isinstance(t.find("m", Operation.CHAT), NotFound)


@pytest.mark.parametrize(
    "bad",
    [
        Resource(name="route/other", version="1", content=Route(model="m")),
        Resource(name="route/m", version="", content=Route(model="m")),
        Resource(name="", version="1", content=None),
        Resource(name="key/k", version="1", content=ClientKey(key_id="k", sha256=b"short")),
        resource(Route(model="m", branches=(Branch(operations=(Operation.CHAT,)),))),
        upstream("no-slash"),
        endpoint("no-slash", "m"),
    ],
)
def test_what_contradicts_itself_is_rejected_in_whole(bad: Resource) -> None:
    t = table(*served("m", a="http://x:1"))
    versions, generation = t.versions, t.generation
    with pytest.raises(Rejected):
        t.apply((*served("n", a="http://x:1"), bad), ("route/m",), "other")
    assert (t.versions, t.generation, t.cluster_id) == (versions, generation, "c-1")
    assert hosts(plan_of(t, "m")) == ["a"]
    assert isinstance(t.find("n", Operation.CHAT), NotFound)


def lanes(t: Table, model: str = "m") -> list[tuple[str, str | None]]:
    return [(lane.base_url, lane.token) for lane in plan_of(t, model).tiers[0].candidates[0].lanes]


def test_ways_in_the_nodes_order_direct_before_relayed() -> None:
    relay = resource(Relay(host_id="here", base_urls=("http://127.0.0.1:8803",), token="t0"))
    ways = (Way(direct_url="http://127.0.0.1:9", same_host_only=True), Way())
    t = table(route("m", "here/e/m"), endpoint("here/e", "m"), upstream("here/e", ways=ways), relay)
    assert lanes(t) == [("http://127.0.0.1:9", None), ("http://127.0.0.1:8803/here/e", "t0")]


def test_a_loopback_engine_of_another_host_is_reached_by_relay_alone() -> None:
    relay = resource(Relay(host_id="far", base_urls=("http://far:8803",), token="t0"))
    ways = (Way(direct_url="http://127.0.0.1:9", same_host_only=True), Way())
    t = table(route("m", "far/e/m"), endpoint("far/e", "m"), upstream("far/e", ways=ways), relay)
    assert lanes(t) == [("http://far:8803/far/e", "t0")]


def test_without_its_relay_such_an_engine_can_not_be_reached() -> None:
    ways = (Way(direct_url="http://127.0.0.1:9", same_host_only=True), Way())
    t = table(route("m", "far/e/m"), endpoint("far/e", "m"), upstream("far/e", ways=ways))
    assert plan_of(t, "m").unusable[0].reason == "no way leads to it from this gateway"


def test_a_token_is_never_shown() -> None:
    relay = resource(Relay(host_id="far", base_urls=("http://far:8803",), token="t0psecret"))
    t = table(route("m", "far/e/m"), endpoint("far/e", "m"), upstream("far/e", ways=(Way(),)), relay)
    assert "t0psecret" not in repr(plan_of(t, "m"))


def test_made_up_names_fill_no_memory() -> None:
    t = table(route("g-*", "a/e/m", glob=True), upstream("a/e"), endpoint("a/e", "m"))
    for n in range(10_000):
        t.find(f"g-{n}", Operation.CHAT)
        t.find(f"unknown {n}", Operation.CHAT)
    assert len(t._plans) <= 4096


def test_an_update_tells_whose_host_went_offline() -> None:
    t = table(*served("m", a="http://x:1", b="http://y:1"))
    gone = Condition(availability=Availability.OFFLINE, reason=Reason.LEASE_EXPIRED)
    assert t.apply((upstream("a/e", routable=False, condition=gone),)) == ("a/e",)
    # One that could not be used before.
    shut = Condition(reason=Reason.UNREACHABLE)
    t.apply((upstream("b/e", routable=False, condition=shut),))
    assert t.apply((upstream("b/e", routable=False, condition=gone),)) == ("b/e",)
    t.apply((upstream("b/e"),))
    # Told again, and of one that is only unwell: no news.
    unwell = Condition(health=Health.UNHEALTHY)
    assert (
        t.apply((upstream("a/e", routable=False, condition=gone), upstream("b/e", routable=False, condition=unwell)))
        == ()
    )


def test_the_calls_of_a_node_that_was_stopped_may_end() -> None:
    t = table(*served("m", a="http://x:1"))
    stopped = Condition(availability=Availability.OFFLINE, reason=Reason.STOPPING)
    assert t.apply((upstream("a/e", routable=False, condition=stopped),)) == ()


def test_an_update_tells_whose_relay_has_another_address() -> None:
    t = table(*served("m", a="http://x:1", b="http://y:1"))

    def relay(*urls: str) -> Resource:
        return resource(Relay(host_id="a", base_urls=urls))

    assert t.apply((relay("https://192.0.2.1:8803"),)) == ()
    assert t.apply((relay("https://192.0.2.1:8803", "https://192.0.2.2:8803"),)) == ()
    assert t.apply((relay("https://192.0.2.2:8803"),)) == ()
    assert t.apply((relay("https://192.0.2.3:8803"),)) == ("a/e",)


def test_a_gateway_on_another_machine_uses_no_relay_of_somebody_elses_loopback() -> None:
    resources = [
        *served("m", a="http://x:1", b="http://y:1"),
        upstream("a/e", ways=(Way(),)),
        upstream("b/e", ways=(Way(),)),
        resource(Relay(host_id="a", base_urls=("http://127.0.0.1:8803",), token="t")),
        resource(Relay(host_id="b", base_urls=("http://127.0.0.1:8803",), token="t")),
    ]
    near, far = Table("b"), Table("b", far=True)
    for t in (near, far):
        t.apply(tuple({r.name: r for r in resources}.values()), cluster_id="c")
    assert hosts(plan_of(near, "m")) == ["a", "b"]
    assert hosts(plan_of(far, "m")) == ["b"]


def test_endpoints_that_control_lets_back_on_trial_are_told_once() -> None:
    t = table(*served("m", a="http://x:1", b="http://y:1"))
    out = Condition(health=Health.UNHEALTHY, reason=Reason.OUTCOMES)
    trial = Condition(health=Health.DEGRADED, reason=Reason.OUTCOMES)
    t.apply((upstream("a/e", routable=False, condition=out),))
    assert t.take_trials() == []
    t.apply((upstream("a/e", condition=trial),))
    t.apply((upstream("a/e", condition=trial),))
    assert t.take_trials() == ["endpoint/a/e/m"]
    assert t.take_trials() == []
    t.apply((upstream("a/e"),))
    t.apply((upstream("a/e", condition=trial),))
    assert t.take_trials() == ["endpoint/a/e/m"]


def test_who_is_known_to_be_able() -> None:
    def can(host: str, *abilities: Ability) -> tuple[Resource, ...]:
        asset = Asset(asset_id="m", upstream_name="m", abilities=abilities)
        return resource(Endpoint(service=f"{host}/e", asset=asset)), route(f"at-{host}", f"{host}/e/m")

    made = table(
        *can("a", Ability.TOOLS), *can("b"), *can("c", Ability.VISION, Ability.TOOLS), route("g*", "a/e/m", glob=True)
    )
    assert made.able(Operation.CHAT, [Ability.TOOLS]) == ["at-a", "at-c"]
    assert made.able(Operation.CHAT, [Ability.TOOLS, Ability.VISION]) == ["at-c"]
    assert made.able(Operation.EMBEDDINGS, [Ability.TOOLS]) == []
    assert len(made.able(Operation.CHAT, [], most=2)) == 2
