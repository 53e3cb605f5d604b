"""Which lanes an endpoint has, and why a service takes no work, in words."""

import pytest

from gateway.core.plan import Lane, Plan, condition_words
from gateway.core.table import Table
from geniehive.rules.identity import relay_name
from geniehive.rules.model import Availability, Condition, Health, Reason, Relay, Upstream, Way
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
