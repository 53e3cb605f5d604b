"""Whether a host and a service take requests, and why not."""

import pytest

from geniehive.rules.model import Availability, Condition, Health, Host, Reason, Service
from geniehive_control.core import verdict
from geniehive_control.core.verdict import Life
from tests.support.cluster import service

HOST = Host(host_id="gpu-1")
AWAY = verdict.away(Reason.LEASE_EXPIRED, 5.0)


def judge(made: Service, host: Host = HOST, life: Life = Life.ONLINE) -> tuple[bool, Condition]:
    upstream = verdict.upstream(made, host, life, AWAY)
    return upstream.routable, upstream.condition


def test_what_is_not_known_takes_work() -> None:
    assert judge(service("gpu-1/a")) == (True, Condition(availability=Availability.AVAILABLE))


@pytest.mark.parametrize(
    ("health", "availability", "routable"),
    [
        (Health.HEALTHY, Availability.AVAILABLE, True),
        (Health.DEGRADED, Availability.BUSY, True),
        (Health.UNHEALTHY, Availability.AVAILABLE, False),
        (Health.HEALTHY, Availability.DRAINING, False),
        (Health.HEALTHY, Availability.PAUSED, False),
        (Health.HEALTHY, Availability.OFFLINE, False),
        (Health.HEALTHY, Availability.QUARANTINED, False),
    ],
)
def test_the_nodes_word_of_service_and_of_host(health: Health, availability: Availability, routable: bool) -> None:
    word = Condition(health=health, availability=availability, reason=Reason.ENGINE, detail="so it says")
    assert judge(service("gpu-1/a", condition=word)) == (routable, word)
    of_host = judge(service("gpu-1/a"), Host(host_id="gpu-1", condition=word))
    assert of_host[0] is routable
    if not routable:
        assert of_host[1] == word


def test_a_host_that_is_away_takes_its_services_along() -> None:
    routable, condition = judge(service("gpu-1/a"), life=Life.OFFLINE)
    assert not routable
    assert condition == Condition(
        availability=Availability.OFFLINE, reason=Reason.LEASE_EXPIRED, detail="its node fell silent", since=5.0
    )


def test_the_operators_switch() -> None:
    routable, condition = judge(service("gpu-1/a", accept_requests=False))
    assert not routable
    assert (condition.availability, condition.reason) == (Availability.PAUSED, Reason.OPERATOR)
    assert judge(service("gpu-1/a", accept_requests=True))[0]


def test_no_way_to_it() -> None:
    routable, condition = judge(service("gpu-1/a", ways=()))
    assert not routable
    assert condition.reason is Reason.UNREACHABLE


def test_a_presumed_host_counts_as_it_was() -> None:
    assert judge(service("gpu-1/a"), life=Life.PRESUMED) == judge(service("gpu-1/a"))
    assert verdict.host_condition(HOST, Life.PRESUMED, AWAY).reason is Reason.PRESUMED
    assert verdict.host_condition(HOST, Life.ONLINE, AWAY).availability is Availability.AVAILABLE
    assert verdict.host_condition(HOST, Life.OFFLINE, AWAY) == AWAY
