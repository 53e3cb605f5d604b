"""Load as control tells it: whose requests these are, and how long figures are good."""

from gateway.core.loads import Loads, Sample
from geniehive.rules.model import AssetLoad, ServiceLoad


def load(name: str = "h/s", running: int | None = None, **more: object) -> ServiceLoad:
    return ServiceLoad(service=name, running=running, **more)  # type: ignore[arg-type]


def nobody(key: str, when: float) -> int:
    return 0


def test_others_are_those_that_are_not_ours() -> None:
    loads = Loads()
    asked: list[tuple[str, float]] = []

    def own_at(key: str, when: float) -> int:
        asked.append((key, when))
        return 2

    loads.take([load(running=4, queued=1, age_seconds=1.5)], 10.0, own_at, 100.0)
    sample = loads.others("h/s", 100.0)
    assert sample == Sample(at=98.5, running=4, queued=1, own=2)
    assert sample.others == 3
    assert asked == [("h/s", 98.5)], "as many as were ours when the engine was looked at"
    assert Sample(0.0, 1, 0, 4).others == 0, "ours that came just after"


def test_models_that_the_engine_tells_apart() -> None:
    loads = Loads()
    models = (AssetLoad(upstream_name="m", running=1), AssetLoad(upstream_name="n", memory_bytes=5))
    loads.take([load(running=3, assets=models)], 10.0, lambda key, when: len(key), 0.0)
    found = loads.others("endpoint/h/s/m", 0.0)
    assert found == Sample(0.0, 1, 0, len("endpoint/h/s/m"))
    assert loads.others("endpoint/h/s/n", 0.0) is None
    assert loads.others("h/s", 0.0) == Sample(0.0, 3, 0, 3)


def test_what_passes_the_relay_counts_where_the_engine_says_nothing() -> None:
    loads = Loads()
    loads.take([load("h/a", relayed=2), load("h/b", running=1, relayed=2), load("h/c")], 10.0, nobody, 0.0)
    assert loads.others("h/a", 0.0) == Sample(0.0, 2, 0, 0)
    assert loads.others("h/b", 0.0) == Sample(0.0, 1, 0, 0)
    assert loads.others("h/c", 0.0) is None


def test_the_newest_wins() -> None:
    loads = Loads()
    loads.take([load(running=1)], 10.0, nobody, 5.0)
    loads.take([load(running=2, age_seconds=0.5)], 10.0, nobody, 6.0)
    assert loads.others("h/s", 6.0) == Sample(5.5, 2, 0, 0)
    loads.take([load()], 10.0, nobody, 7.0)
    assert loads.others("h/s", 7.0) is None, "it is not measured any more"


def test_old_figures_are_not_balanced_by_and_forgotten() -> None:
    loads = Loads()
    loads.take([load(running=1)], 10.0, nobody, 0.0)
    assert loads.others("h/s", 10.0) is not None
    assert loads.others("h/s", 10.1) is None
    for second in range(1, 100):
        loads.take([load(f"h/{second}", 1)], 10.0, nobody, float(second))
        assert len(loads) <= 22
    assert loads.taken == 100
