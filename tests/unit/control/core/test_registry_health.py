"""What control's probes and gateways' outcomes do to the table: by events and effects."""

from geniehive.rules.model import Condition, Health, Reason, Upstream, Way
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from geniehive_control.core.failing import FIRST_OUT
from geniehive_control.core.figures import EndpointOutcomes
from geniehive_control.core.probes import Check, Failure, Kind
from tests.support.cluster import inventory, service
from tests.support.control_core import Driver, only

NAME = "gpu-1/ollama"
NEAR = Way(direct_url="http://127.0.0.1:11434", same_host_only=True)
UNWELL = Failure(Kind.UNWELL, "it answers 503")
BAD = EndpointOutcomes(endpoint=f"endpoint/{NAME}/qwen3", model="qwen3", gateway="g", attempts=5, upstream=5)
OLLAMA = service(NAME, "qwen3", condition=Condition(health=Health.HEALTHY))


def upstream(driver: Driver) -> Upstream:
    resource = driver.registry.table.get(f"upstream/{NAME}")
    assert resource is not None
    assert isinstance(resource.content, Upstream)
    return resource.content


def due(driver: Driver) -> list[Check]:
    probes = driver.registry.health.probes
    next_due = probes.next_due()
    assert next_due is not None
    driver.time = max(driver.time, next_due + 0.5)
    return probes.take_due(driver.time, 99)


def probe(driver: Driver, failure: Failure | None, session: str) -> list[fx.Effect]:
    """Every way is asked once, and answers so."""
    driver.beat(session)
    return [effect for check in due(driver) for effect in driver.feed(e.Checked(check=check, failure=failure))]


def test_an_engine_that_does_not_answer_leaves_the_table_though_its_node_calls_it_well() -> None:
    driver = Driver()
    session = driver.join("gpu-1", OLLAMA)
    assert upstream(driver).routable
    assert probe(driver, UNWELL, session) == []
    effects = probe(driver, UNWELL, session)
    told = upstream(driver)
    assert not told.routable
    assert (told.condition.health, told.condition.reason) == (Health.UNHEALTHY, Reason.PROBE)
    assert told.condition.detail.startswith("control's probe failed: ")
    assert "at http://127.0.0.1:11434: it answers 503" in told.condition.detail
    assert told.condition.since == driver.now.wall
    assert fx.Changed(services=frozenset({NAME})) in effects
    assert any(note.grave for note in only(effects, fx.Note))
    # Its node goes on calling it well.
    driver.offer(session, inventory("gpu-1", [OLLAMA], revision=2))
    assert upstream(driver) == told
    probe(driver, None, session)
    effects = probe(driver, None, session)
    assert upstream(driver).routable
    assert upstream(driver).ways == OLLAMA.ways
    assert any("again" in note.text for note in only(effects, fx.Note))


def test_a_host_that_comes_back_starts_afresh() -> None:
    driver = Driver()
    session = driver.join("gpu-1", OLLAMA)
    probe(driver, UNWELL, session)
    probe(driver, UNWELL, session)
    driver.close(session)
    assert upstream(driver).condition.reason is Reason.STREAM_CLOSED
    assert driver.registry.health.probes.take_due(driver.time + 99, 99) == []
    driver.join("gpu-1", OLLAMA)
    assert upstream(driver).routable


def test_of_another_machine_only_what_others_reach_is_asked() -> None:
    driver = Driver(tls=True)
    session, _ = driver.open("gpu-1", certificate=driver.enrol("gpu-1"))
    driver.offer(session, inventory("gpu-1", [OLLAMA]))
    assert driver.registry.health.probes.next_due() is None, "its relay is on its own loopback too"


def test_who_comes_through_a_tunnel_is_on_another_machine() -> None:
    """Its node key proves that it came by loopback, and its loopback is another all the same."""
    driver = Driver(machine_id="control's")
    driver.join("gpu-1", OLLAMA, machine_id="another's")
    assert driver.registry.health.probes.next_due() is None
    driver.join("gpu-2", service("gpu-2/ollama", "qwen3"), machine_id="control's")
    assert driver.registry.health.probes.next_due() is not None


def test_the_nodes_word_comes_first() -> None:
    driver = Driver()
    ill = service(NAME, "qwen3", condition=Condition(health=Health.UNHEALTHY, reason=Reason.ENGINE, detail="is dead"))
    session = driver.join("gpu-1", ill)
    probe(driver, UNWELL, session)
    probe(driver, UNWELL, session)
    assert upstream(driver).condition.reason is Reason.ENGINE


def test_what_gateways_report_takes_a_service_out_and_brings_it_back_on_trial() -> None:
    driver = Driver()
    session = driver.join("gpu-1", OLLAMA)
    effects = driver.feed(e.OutcomesReported(rows=(BAD,)))
    told = upstream(driver)
    assert (told.routable, told.condition.health, told.condition.reason) == (False, Health.UNHEALTHY, Reason.OUTCOMES)
    assert told.condition.detail == "gateways report: 5 of the last 5 requests that gateways sent it failed"
    assert fx.Changed(services=frozenset({NAME})) in effects
    for _ in range(int(FIRST_OUT)):
        driver.wait(1.0)
        driver.beat(session)
    told = upstream(driver)
    assert (told.routable, told.condition.health, told.condition.reason) == (True, Health.DEGRADED, Reason.OUTCOMES)
    assert "trial" in told.condition.detail
    driver.feed(e.OutcomesReported(rows=(BAD._replace(attempts=1, upstream=0, succeeded=1),)))
    assert upstream(driver).condition.health is Health.HEALTHY


def test_a_probe_that_finds_it_well_again_ends_the_wait() -> None:
    driver = Driver()
    session = driver.join("gpu-1", OLLAMA)
    probe(driver, UNWELL, session)
    probe(driver, UNWELL, session)
    driver.feed(e.OutcomesReported(rows=(BAD,)))
    probe(driver, None, session)
    probe(driver, None, session)
    assert upstream(driver).routable
    assert upstream(driver).condition.health is Health.DEGRADED


def test_what_is_not_known_is_passed_over() -> None:
    driver = Driver()
    assert driver.feed(e.Checked(check=Check(NAME, NEAR, 1), failure=UNWELL)) == []
    assert driver.feed(e.OutcomesReported(rows=(BAD,))) == []


def test_after_a_restart_nothing_is_asked_of_hosts_that_are_not_back() -> None:
    before = Driver()
    session = before.join("gpu-1", OLLAMA)
    kept = before.registry.to_store("gpu-1")
    assert session
    assert kept is not None
    driver = Driver([kept[0]])
    assert driver.registry.health.probes.next_due() is None
    driver.feed(e.OutcomesReported(rows=(BAD,)))
    assert upstream(driver).routable, "until it is back it is presumed well"


def test_of_a_host_that_is_forgotten_nothing_is_asked() -> None:
    driver = Driver()
    driver.join("gpu-1", OLLAMA)
    driver.feed(e.HostForgotten(host_id="gpu-1"))
    assert driver.registry.health.probes.take_due(driver.now.mono + 100, 10) == []
