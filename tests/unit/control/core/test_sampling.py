"""What gateways are told of load: all that changed since they were told last, and nothing that is gone."""

from geniehive.rules.model import AssetLoad, ServiceLoad
from geniehive_control.core.events import LoadSent
from geniehive_control.core.sampling import Sampling
from tests.support.cluster import service
from tests.support.control_core import Driver


def load(name: str, running: int | None = None, **more: object) -> ServiceLoad:
    return ServiceLoad(service=name, running=running, **more)  # type: ignore[arg-type]


class Play:
    def __init__(self, refresh: float = 4.0) -> None:
        self.driver = Driver()
        self.sampling = Sampling(refresh)
        self.sessions = {host: self.driver.join(host, service(f"{host}/s", "m")) for host in ("a", "b")}

    def send(self, host: str, *services: ServiceLoad) -> None:
        self.driver.feed(LoadSent(session_id=self.sessions[host], brief=lambda: services))

    def gather(self) -> bool:
        return self.sampling.gather(self.driver.registry.hosts(), self.driver.now)

    def told(self, since: int = 0) -> dict[str, ServiceLoad]:
        return {found.service: found for found in self.sampling.since(since, self.driver.now)}


def test_nothing_was_sent() -> None:
    play = Play()
    assert not play.gather()
    assert play.told() == {}
    assert play.sampling.number == 0


def test_only_what_changed_is_told_again() -> None:
    play = Play()
    play.send("a", load("a/s", 1))
    play.send("b", load("b/s", 2))
    assert play.gather()
    first = play.sampling.number
    assert {name: found.running for name, found in play.told().items()} == {"a/s": 1, "b/s": 2}
    assert play.told(first) == {}
    play.driver.time += 1.0
    play.send("a", load("a/s", 1))
    play.send("b", load("b/s", 3))
    assert play.gather()
    assert {name: found.running for name, found in play.told(first).items()} == {"b/s": 3}
    # Who was told nothing yet gets everything, and what changed twice once.
    assert {name: found.running for name, found in play.told().items()} == {"a/s": 1, "b/s": 3}
    assert not play.gather(), "nothing was sent meanwhile"


def test_ages_grow_from_when_the_engine_was_looked_at() -> None:
    play = Play()
    play.send("a", load("a/s", 1, age_seconds=0.5))
    play.driver.time += 0.25
    play.gather()
    play.driver.time += 0.25
    assert play.told()["a/s"].age_seconds == 1.0


def test_figures_that_stay_are_told_now_and_then_so_that_they_dont_look_old() -> None:
    play = Play(refresh=4.0)
    play.send("a", load("a/s", 1))
    assert play.gather()
    for _ in range(3):
        play.driver.time += 1.0
        play.send("a", load("a/s", 1))
        assert not play.gather()
    play.driver.time += 1.0
    assert not play.gather(), "its node is silent"
    play.send("a", load("a/s", 1))
    assert play.gather()
    assert play.told()["a/s"].age_seconds == 0.0


def test_models_that_an_engine_tells_apart() -> None:
    play = Play()
    play.send("a", load("a/s", 1, assets=(AssetLoad(upstream_name="m", running=1),)))
    play.gather()
    before = play.sampling.number
    play.driver.time += 1.0
    play.send("a", load("a/s", 1, assets=(AssetLoad(upstream_name="n", running=1),)))
    assert play.gather()
    assert [asset.upstream_name for asset in play.told(before)["a/s"].assets] == ["n"]


def test_services_that_are_gone_or_unknown_are_not_told() -> None:
    play = Play()
    play.send("a", load("a/s", 1), load("a/other", 1), load("b/s", 7))
    play.send("b", load("b/s", 2))
    play.gather()
    assert play.told().keys() == {"a/s", "b/s"}
    assert play.told()["b/s"].running == 2
    play.driver.close(play.sessions["b"])
    play.gather()
    assert play.told().keys() == {"a/s"}
    play.driver.time += 1.0
    play.send("a", load("a/other", 1))
    play.gather()
    assert play.told() == {}
    assert len(play.sampling) == 0
