"""The table changes by as little as it must."""

import msgspec

from geniehive.rules.model import (
    BenchmarkSample,
    ClientKey,
    Endpoint,
    Host,
    LoadState,
    OffloadHint,
    Relay,
    Role,
    Route,
    RoutingPolicy,
    Rule,
    Service,
    Speed,
    Upstream,
)
from geniehive_control.core.table import Table, version
from tests.support.cluster import CHAT, EMBEDDINGS, asset, service


def put(table: Table, made: Service) -> set[str]:
    return table.put_service(made) | table.compile()


def drop(table: Table, name: str) -> set[str]:
    return table.drop_service(name) | table.compile()


def test_each_change_names_what_became_other() -> None:
    table = Table()
    one = service("a/x", "m", "n")
    assert put(table, one) == {"endpoint/a/x/m", "endpoint/a/x/n", "route/m", "route/n", "route/a/x"}
    assert put(table, one) == set()
    assert put(table, service("a/x", "m")) == {"endpoint/a/x/n", "route/n", "route/a/x"}
    assert put(table, service("b/y", "m")) == {"endpoint/b/y/m", "route/m", "route/b/y"}
    assert drop(table, "a/x") == {"endpoint/a/x/m", "route/m", "route/a/x"}
    assert drop(table, "a/x") == set()
    assert drop(table, "b/y") == {"endpoint/b/y/m", "route/m", "route/b/y"}
    assert len(table) == 0
    assert table.offers.having == {}


def test_a_model_that_gets_loaded_makes_no_route_stale() -> None:
    table = Table()
    put(table, service("a/x", "m", "n"))
    loaded = service("a/x", asset("m", load_state=LoadState.LOADED), "n")
    assert table.put_service(loaded) == {"endpoint/a/x/m"}
    assert not table.stale


def test_what_routes_depend_on_makes_them_stale() -> None:
    table = Table()
    put(table, service("a/x", "m"))
    for made, routes in (
        (service("a/x", "m", operations=(EMBEDDINGS,)), {"route/m", "route/a/x"}),
        (service("a/x", "m", operations=(EMBEDDINGS,), hosted=True), set()),
        (service("a/x", asset("m", CHAT)), {"route/m", "route/a/x"}),
    ):
        assert {name for name in put(table, made) if name.startswith("route/")} == routes


def test_an_endpoint_that_changes_its_name_serves_the_new_one_alone() -> None:
    table = Table()
    put(table, service("a/x", asset("m", upstream_name="u")))
    renamed = service("a/x", asset("n", upstream_name="u"))
    assert put(table, renamed) == {"endpoint/a/x/u", "route/m", "route/n"}
    assert "route/m" not in table
    assert drop(table, "a/x") == {"endpoint/a/x/u", "route/n", "route/a/x"}
    assert table.offers.having == {}


def test_a_version_is_of_what_is_there_now() -> None:
    table = Table()
    assert table.version("upstream/a/x") is None
    table.put_upstream(Upstream(service="a/x"))
    was = table.version("upstream/a/x")
    table.put_upstream(Upstream(service="a/x", routable=True))
    resource = table.get("upstream/a/x")
    assert resource is not None
    assert resource.version == table.version("upstream/a/x") == version(Upstream(service="a/x", routable=True)) != was
    table.put_service(service("a/x"))
    table.drop_service("a/x")
    assert table.version("upstream/a/x") is None
    assert table._versions == {}


def test_many_changes_are_compiled_together() -> None:
    table = Table()
    for number in range(5):
        table.put_service(service(f"a/x{number}", "m"))
        assert table.stale
        assert "route/m" not in table
    assert "route/m" in table.compile()
    assert not table.stale


def test_a_service_that_goes_down_changes_its_upstream_alone() -> None:
    table = Table()
    put(table, service("a/x", "m"))
    assert table.put_upstream(Upstream(service="a/x", routable=True)) == {"upstream/a/x"}
    assert table.put_upstream(Upstream(service="a/x", routable=True)) == set()
    assert table.put_upstream(Upstream(service="a/x", routable=False)) == {"upstream/a/x"}
    assert not table.stale
    assert drop(table, "a/x") == {"endpoint/a/x/m", "route/m", "route/a/x", "upstream/a/x"}


def test_relays_and_keys() -> None:
    table = Table()
    relay = Relay(host_id="a", token="t")
    assert table.put_relay("a", relay) == {"relay/a"}
    assert table.put_relay("a", relay) == set()
    assert table.put_relay("a", None) == {"relay/a"}
    assert table.put_relay("a", None) == set()
    assert table.put_key(ClientKey(key_id="k")) == {"key/k"}
    assert table.drop_key("k") == {"key/k"}
    assert table.drop_key("k") == set()


def test_versions_are_of_the_contents_alone() -> None:
    content = Upstream(service="a/x", ways=service("a/x").ways)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(content), type=Upstream)
    assert content is not again
    assert version(content) == version(again)
    assert version(content) != version(msgspec.structs.replace(content, routable=True))
    # Written down: another process, or another release, must come to the same.
    assert version(ClientKey(key_id="k", sha256=b"x" * 32)) == "cc7c32599e840440"


def test_a_model_may_be_called_like_a_service() -> None:
    table = Table()
    put(table, service("a/x", "a/x"))
    assert drop(table, "a/x") == {"endpoint/a/x/a/x", "route/a/x"}


def test_speeds_are_told_with_endpoints_and_hints_with_routes() -> None:
    table = Table()
    put(table, service("a/x", "m", asset("e", EMBEDDINGS)))
    speed = Speed(decode_tokens_per_second=20.0)
    assert table.put_speed("endpoint/a/x/m", speed) == {"endpoint/a/x/m"}
    assert table.put_speed("endpoint/a/x/m", speed) == set()
    assert table.compile() == {"route/m", "route/a/x"}
    endpoint, route = table.content("endpoint/a/x/m"), table.content("route/m")
    assert isinstance(endpoint, Endpoint)
    assert endpoint.speed == speed
    assert isinstance(route, Route)
    assert route.offload_hint == OffloadHint(suitability=0.5, basis="20 tok/s")
    # A load time is no part of it.
    table.put_speed("endpoint/a/x/m", Speed(decode_tokens_per_second=20.0, load_seconds=9.0))
    assert not table.stale
    assert table.put_speed("endpoint/a/x/m", None) == {"endpoint/a/x/m"}
    assert table.compile() == {"route/m", "route/a/x"}
    # Of one that is not there it is kept until it comes.
    assert table.put_speed("endpoint/b/y/m", speed) == set()
    assert "endpoint/b/y/m" in put(table, service("b/y", "m"))
    endpoint = table.content("endpoint/b/y/m")
    assert isinstance(endpoint, Endpoint)
    assert endpoint.speed == speed


def test_benchmarks_go_with_their_host() -> None:
    table = Table()
    put(table, service("a/x", "m"))
    sample = BenchmarkSample(
        sample_id="1", service="a/x", asset_id="m", workload="chat.x/1", measured=1.0, correctness=1.0
    )
    table.put_benchmarks("a/x", "m", [sample])
    assert table.compile() == {"route/m", "route/a/x"}
    assert table.merits.workloads() == {"chat.x/1"}
    drop(table, "a/x")
    table.drop_host("a")
    assert table.merits.workloads() == set()


def test_a_machine_that_is_of_another_tier_is_judged_again() -> None:
    table = Table()
    policy = RoutingPolicy(trust_tiers=Rule(allowed=("own",)))
    table.set_profiles({"r": Role(role_id="r", operation=CHAT, routing_policy=policy)}, {})
    put(table, service("a/x", "m"))
    table.put_host(Host(host_id="a", trust_tier="own"))
    assert table.compile() == {"route/r"}
    table.put_host(Host(host_id="a", trust_tier="own", display_name="A"))
    assert not table.stale


def test_who_is_of_no_account_makes_no_role_stale() -> None:
    table = Table()
    policy = RoutingPolicy(min_context_tokens=4096)
    table.set_profiles({"r": Role(role_id="r", operation=CHAT, routing_policy=policy)}, {})
    put(table, service("a/x", asset("m", context_tokens=8192)))
    assert "route/r" not in put(table, service("b/x", asset("n", context_tokens=2048)))
    assert "route/r" not in put(table, service("c/x", asset("e", EMBEDDINGS, context_tokens=8192)))
    assert "route/r" not in put(table, service("a/x", asset("m", context_tokens=8192, load_state=LoadState.LOADED)))
    assert "route/r" in put(table, service("d/x", asset("m", context_tokens=9000)))
