"""What of an inventory is taken, and what is refused."""

import msgspec
import pytest

from geniehive.rules.model import Asset, Condition, Reason, Relay, RequestPolicy, Way
from geniehive_control.core.inventory import END_OF_TIME, MOST_ITEMS, accept
from geniehive_control.core.refusal import Refusal, Why
from tests.support.cluster import asset, inventory, service


def test_the_rest_counts() -> None:
    good = service("gpu-1/ollama", "qwen3")
    offered = inventory("gpu-1", [good, service("gpu-2/ollama", "x"), service("ollama", "x"), service("gpu-1/UP", "x")])
    accepted = accept(offered, "gpu-1")
    assert accepted.services == {"gpu-1/ollama": good}
    assert [(r.service, r.upstream_name, r.refusal.why) for r in accepted.refused] == [
        ("gpu-2/ollama", None, Why.NOT_YOURS),
        ("ollama", None, Why.FIELD_INVALID),
        ("gpu-1/UP", None, Why.FIELD_INVALID),
    ]


def test_a_service_that_stands_twice_counts_once() -> None:
    accepted = accept(inventory("gpu-1", [service("gpu-1/a", "x"), service("gpu-1/a", "y")]), "gpu-1")
    assert accepted.services["gpu-1/a"].assets[0].asset_id == "x"
    assert len(accepted.refused) == 1


def test_models_are_left_out_one_by_one() -> None:
    models = [asset("good"), Asset(asset_id="", upstream_name="a"), asset("bad\nname"), asset("good")]
    models.append(Asset(asset_id="slashes/and:colons", upstream_name="b"))
    accepted = accept(inventory("gpu-1", [service("gpu-1/a", *models)]), "gpu-1")
    assert [a.asset_id for a in accepted.services["gpu-1/a"].assets] == ["good", "slashes/and:colons"]
    assert [(r.service, r.upstream_name) for r in accepted.refused] == [
        ("gpu-1/a", "a"),
        ("gpu-1/a", "bad\nname"),
        ("gpu-1/a", "good"),
    ]
    assert all(r.refusal.details["field"] for r in accepted.refused)


def test_a_model_with_a_policy_that_makes_no_sense_is_left_out() -> None:
    good = msgspec.structs.replace(asset("good"), request_policies=(RequestPolicy(defaults_json='{"a":1}'),))
    wrong = msgspec.structs.replace(
        asset("wrong"), request_policies=(RequestPolicy(), RequestPolicy(defaults_json="[]"))
    )
    accepted = accept(inventory("gpu-1", [service("gpu-1/a", good, wrong)]), "gpu-1")
    assert accepted.services["gpu-1/a"].assets == (good,)
    assert [(r.upstream_name, r.refusal.details["field"]) for r in accepted.refused] == [
        ("wrong", "request_policies[1]")
    ]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:11434",
        "ftp://host",
        "http://host/",
        "http://host/v1",
        "http://host?x=1",
        "http://user:secret@host",
        "http://host:0",
        "http://host:99999",
        "http://ho st",
        "http://host\n",
        "http://",
        "http://[::1",
    ],
)
def test_a_base_url_is_an_origin_and_nothing_else(url: str) -> None:
    bad = service("gpu-1/a", "x", ways=(Way(direct_url=url),))
    accepted = accept(inventory("gpu-1", [bad]), "gpu-1")
    assert accepted.services == {}
    (refused,) = accepted.refused
    assert refused.refusal.details["field"] == "ways[0].direct.base_url"
    assert "secret" not in refused.refusal.message


@pytest.mark.parametrize("url", ["http://host", "https://192.0.2.7:8803", "http://[::1]:1"])
def test_good_origins(url: str) -> None:
    accepted = accept(inventory("gpu-1", [service("gpu-1/a", "x", ways=(Way(direct_url=url),))]), "gpu-1")
    assert accepted.refused == ()


@pytest.mark.parametrize("since", [-1.0, END_OF_TIME, 1e15])
def test_a_time_that_could_be_sent_to_nobody(since: float) -> None:
    wrong = Condition(reason=Reason.OWNER, since=since)
    good = service("gpu-1/a", "x", condition=Condition(since=END_OF_TIME - 1))
    accepted = accept(inventory("gpu-1", [good, service("gpu-1/b", "y", condition=wrong)], condition=wrong), "gpu-1")
    assert accepted.services == {"gpu-1/a": good}
    assert accepted.host.condition == Condition(reason=Reason.OWNER)
    assert [(r.service, r.refusal.why) for r in accepted.refused] == [
        ("", Why.FIELD_INVALID),
        ("gpu-1/b", Why.FIELD_INVALID),
    ]


def test_a_wrong_relay_is_left_out() -> None:
    offered = inventory("gpu-1")
    for relay in (Relay(host_id="gpu-2"), Relay(host_id="gpu-1", base_urls=("http://host/relay",))):
        accepted = accept(msgspec.structs.replace(offered, relay=relay), "gpu-1")
        assert accepted.relay is None
        assert len(accepted.refused) == 1
    assert accept(offered, "gpu-1").relay == offered.relay


def test_another_hosts_inventory() -> None:
    with pytest.raises(Refusal) as caught:
        accept(inventory("gpu-2"), "gpu-1")
    assert caught.value.why is Why.NOT_YOURS


def test_an_inventory_that_would_hold_up_everybody_is_refused() -> None:
    models = [asset(f"m{number}") for number in range(MOST_ITEMS - 1)]
    assert len(accept(inventory("gpu-1", [service("gpu-1/a", *models)]), "gpu-1").services["gpu-1/a"].assets) > 0
    with pytest.raises(Refusal) as caught:
        accept(inventory("gpu-1", [service("gpu-1/a", *models), service("gpu-1/b")]), "gpu-1")
    assert caught.value.why is Why.TOO_MUCH


@pytest.mark.parametrize(
    ("url", "taken"),
    [("http://127.0.0.1:8803", True), ("https://192.0.2.7:8803", True), ("http://192.0.2.7:8803", False)],
)
def test_a_relay_is_plain_on_loopback_only(url: str, taken: bool) -> None:
    offered = msgspec.structs.replace(inventory("gpu-1"), relay=Relay(host_id="gpu-1", base_urls=(url,)))
    accepted = accept(offered, "gpu-1")
    assert (accepted.relay is not None, len(accepted.refused)) == (taken, 0 if taken else 1)
