"""What is learned reaches the table, and stays there as long as the model does."""

from geniehive.rules.model import BenchmarkSample, Endpoint, Speed
from geniehive_control.core import effects as fx
from geniehive_control.core.events import HostForgotten, OutcomesReported, SamplesStored
from geniehive_control.core.figures import EndpointOutcomes
from geniehive_control.core.learning import FORGOTTEN
from geniehive_control.core.records import Stored, StoredHost
from geniehive_control.core.registry import SEEN_EVERY, Pace, Registry
from tests.support.cluster import inventory, service
from tests.support.control_core import Driver

E = "endpoint/h/s/m"
FAST = EndpointOutcomes(E, "m", "g1", decode_tokens=1000, decode_seconds=25.0, with_tokens=5, completion_tokens=1000)
LEARNED = Speed(decode_tokens_per_second=40.0)


def speed(registry: Registry, endpoint: str = E) -> Speed | None:
    content = registry.table.content(endpoint)
    assert isinstance(content, Endpoint)
    return content.speed


def sample(decode: float | None = 80.0, measured: float = 1.0, **fields: object) -> BenchmarkSample:
    made = {
        "sample_id": f"s{measured}", "service": "h/s", "asset_id": "m", "workload": "chat.short_reasoning/1",
        "measured": measured, "request_count": 1, "decode_tokens_per_second": decode,
    }  # fmt: skip
    return BenchmarkSample(**(made | fields))  # type: ignore[arg-type]


def test_reports_change_the_table_and_are_shown() -> None:
    driver = Driver()
    driver.join("h", service("h/s", "m", "n"))
    effects = driver.feed(OutcomesReported(rows=(FAST,)))
    assert speed(driver.registry) == LEARNED
    assert speed(driver.registry, "endpoint/h/s/n") is None
    assert fx.Changed(services=frozenset({"h/s"})) in effects
    assert driver.feed(OutcomesReported(rows=(FAST,))) == [], "it is no other"


def test_of_what_the_table_lacks_nothing_is_learned() -> None:
    driver = Driver()
    driver.join("h", service("h/s", "m"))
    driver.feed(OutcomesReported(rows=(FAST._replace(endpoint="endpoint/h/s/gone"), FAST._replace(endpoint=""))))
    assert list(driver.registry.figures) == []


def test_a_benchmark_says_how_fast_a_model_is() -> None:
    driver = Driver()
    driver.join("h", service("h/s", "m", "n"))
    older, newer = sample(20.0), sample(80.0, 2.0)
    driver.feed(SamplesStored(samples=(newer, older, sample(None, 3.0, workload="x/1", correctness=1.0))))
    assert speed(driver.registry) == Speed(decode_tokens_per_second=80.0)
    assert speed(driver.registry, "endpoint/h/s/n") is None
    driver.feed(SamplesStored(samples=(sample(service="h/gone"), sample(asset_id="gone"))))
    assert list(driver.registry.figures) == [E]


def test_a_restart_forgets_no_speed() -> None:
    driver = Driver()
    offered = inventory("h", [service("h/s", "m", "n")])
    host = StoredHost(host=offered.host, services=offered.services, online=True)
    samples = (sample(10.0, asset_id="n"),)
    stored = Stored(cluster_id="c1", hosts=(host,), learned=(FAST,), samples=samples)
    registry = Registry(stored, driver.now, Pace())
    assert speed(registry) == LEARNED
    assert speed(registry, "endpoint/h/s/n") == Speed(decode_tokens_per_second=10.0)


def test_who_is_away_for_a_while_is_as_fast_as_before() -> None:
    driver = Driver()
    session = driver.join("h", service("h/s", "m"))
    driver.feed(OutcomesReported(rows=(FAST,)))

    def offer(revision: int, *models: str) -> None:
        driver.offer(session, inventory("h", [service("h/s", *models)], revision))
        driver.beat(session)

    offer(2)
    driver.wait(SEEN_EVERY + 1)
    session = driver.join("h", service("h/s", "m"))
    assert speed(driver.registry) == LEARNED
    driver.join("h", service("h/s"))
    driver.wait(FORGOTTEN + 3 * SEEN_EVERY)
    assert list(driver.registry.figures) == []
    driver.join("h", service("h/s", "m"))
    assert speed(driver.registry) is None


def test_of_a_host_that_is_forgotten_nothing_is_left() -> None:
    driver = Driver()
    for host in ("h", "h2"):
        driver.join(host, service(f"{host}/s", "m"))
    driver.feed(OutcomesReported(rows=(FAST, FAST._replace(endpoint="endpoint/h2/s/m"))))
    driver.feed(HostForgotten(host_id="h"))
    assert list(driver.registry.figures) == ["endpoint/h2/s/m"]
    driver.join("h", service("h/s", "m"))
    assert speed(driver.registry) is None
    assert speed(driver.registry, "endpoint/h2/s/m") == LEARNED


def test_what_could_not_be_told_is_told_later() -> None:
    driver = Driver()
    driver.join("h", service("h/s", "m"))
    driver.feed(OutcomesReported(rows=(FAST,)))
    driver.feed(OutcomesReported(rows=(FAST._replace(decode_tokens=10_000, decode_seconds=1000.0),)))
    assert speed(driver.registry) == LEARNED
    driver.wait(2 * SEEN_EVERY)
    found = speed(driver.registry)
    assert found is not None
    assert found.decode_tokens_per_second == 11.0
