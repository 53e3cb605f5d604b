"""Hosts that control cannot connect to: by events and effects."""

from msgspec.structs import replace

from geniehive.rules.model import Reason, Relay, Upstream, Way
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from tests.support.cluster import inventory, service
from tests.support.control_core import Driver, only

RELAY = Relay(host_id="gpu-1", base_urls=("https://192.0.2.7:8803",))
KEYED = replace(service("gpu-1/vllm", "qwen3"), ways=(Way(reason="it needs a key"),))


def upstream(driver: Driver) -> Upstream:
    resource = driver.registry.table.get("upstream/gpu-1/vllm")
    assert resource is not None
    assert isinstance(resource.content, Upstream)
    return resource.content


def test_a_host_that_takes_no_connection_is_not_routed_to_and_says_what_to_do() -> None:
    driver = Driver()
    session, _ = driver.open("gpu-1")
    driver.offer(session, replace(inventory("gpu-1", [KEYED]), relay=RELAY))
    (where,) = driver.registry.reach.take_due(driver.now.mono, 9)
    assert driver.feed(e.Probed(place=where, failure="nothing listens there")) == []
    assert upstream(driver).routable
    effects = driver.feed(e.Probed(place=where, failure="nothing listens there"))
    (note,) = only(effects, fx.Note)
    assert note.grave
    assert only(effects, fx.Changed) == [fx.Changed(services=frozenset({"gpu-1/vllm"}))]
    assert not upstream(driver).routable
    assert upstream(driver).condition.reason is Reason.UNREACHABLE
    assert "8803" in upstream(driver).condition.detail
    # Another offer of the same address changes nothing about it.
    driver.offer(session, replace(inventory("gpu-1", [KEYED], revision=2), relay=RELAY))
    assert not upstream(driver).routable
    driver.feed(e.Probed(place=where, failure=None))
    assert upstream(driver).routable
    assert upstream(driver).ways == KEYED.ways


def test_the_addresses_of_a_host_that_left_are_not_tried() -> None:
    driver = Driver()
    session, _ = driver.open("gpu-1")
    driver.offer(session, replace(inventory("gpu-1", [KEYED]), relay=RELAY))
    (where,) = driver.registry.reach.take_due(driver.now.mono, 9)
    driver.feed(e.SessionClosed(session_id=session))
    assert driver.registry.reach.next_due() is None
    # A result that comes late.
    assert driver.feed(e.Probed(place=where, failure="nothing listens there")) == []


def test_a_new_address_starts_afresh() -> None:
    driver = Driver()
    session, _ = driver.open("gpu-1")
    driver.offer(session, replace(inventory("gpu-1", [KEYED]), relay=RELAY))
    (where,) = driver.registry.reach.take_due(driver.now.mono, 9)
    driver.feed(e.Probed(place=where, failure="x"))
    driver.feed(e.Probed(place=where, failure="x"))
    assert not upstream(driver).routable
    moved = replace(RELAY, base_urls=("https://192.0.2.8:8803",))
    driver.offer(session, replace(inventory("gpu-1", [KEYED], revision=2), relay=moved))
    assert upstream(driver).routable
