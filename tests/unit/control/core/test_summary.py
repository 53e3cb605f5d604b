"""How the cluster is."""

from geniehive.rules.model import Alias, Health
from geniehive_control.core import events as e
from geniehive_control.core import summary
from tests.support.cluster import service
from tests.support.control_core import Driver, Mirror, restarted


def state(driver: Driver) -> Health:
    return summary.summarize(driver.registry).state


def test_counts_and_state() -> None:
    driver = Driver()
    assert state(driver) is Health.HEALTHY
    driver.join("a", service("a/x", "m"))
    b = driver.join("b", service("b/x", "m"))
    assert state(driver) is Health.HEALTHY
    driver.close(b)
    found = summary.summarize(driver.registry)
    assert (found.state, found.hosts, found.hosts_online) == (Health.DEGRADED, 2, 1)
    assert (found.services, found.services_routable) == (2, 1)
    again = restarted(driver)
    assert summary.summarize(again.registry).hosts_online == 1
    again.wait(31)
    assert state(again) is Health.UNHEALTHY


def test_a_failing_database() -> None:
    driver = Driver()
    driver.feed(e.StoreFailed(message="gone"))
    assert state(driver) is Health.DEGRADED


def test_a_gateway_that_refuses() -> None:
    driver = Driver()
    driver.join("a", service("a/x", "m"))
    Mirror(driver).ack("cannot read it")
    found = summary.summarize(driver.registry)
    assert found.state is Health.DEGRADED
    assert found.warnings == ("gateway gw refused its new table: cannot read it",)


def test_warnings() -> None:
    driver = Driver()
    assert summary.summarize(driver.registry).warnings == ("no host has registered: is a node running?",)
    session = driver.join("a", service("a/x", "a/x"))
    driver.feed(e.Heartbeat(session_id=session, sent=driver.now.wall - 60))
    assert summary.summarize(driver.registry).warnings == (
        "the name a/x also stands for a service, which it hides; rename one of them",
        "the clock of host a is -60 s off; set it by NTP",
    )


def test_a_glob_that_hides_much_is_one_warning() -> None:
    driver = Driver()
    driver.join("a", service("a/x", "target", *(f"m{n}" for n in range(7))))
    driver.feed(e.AliasPut(alias=Alias(alias="m*", target="target")))
    assert summary.summarize(driver.registry).warnings == (
        "alias m* hides what is called m0, m1, m2, m3, m4 and 2 more; narrow it if that is not meant",
    )


def test_warnings_are_not_without_end() -> None:
    driver = Driver()
    driver.join("a", *(service(f"a/x{n}", f"a/x{n}") for n in range(30)))
    warnings = summary.summarize(driver.registry).warnings
    assert len(warnings) == 21
    assert warnings[-1] == "and 10 more"
