from typing import Any

from gateway.core.latency import Latencies
from gateway.core.outcome import Ending, Outcome
from geniehive.rules.operations import Operation


def ended(model: str, seconds: float, **fields: Any) -> Outcome:
    given = {"ending": Ending.OK, "status": 200, **fields}
    return Outcome(request_id="r", key_id="k", operation=Operation.CHAT, model=model, seconds=seconds, **given)


def test_half_of_the_last_answers() -> None:
    latencies = Latencies({"m", "n"}.__contains__)
    assert latencies.p50("m") is None
    for seconds in (9.0, 1.0, 2.0):
        latencies.record(ended("m", seconds))
    latencies.record(ended("n", 5.0))
    assert (latencies.p50("m"), latencies.p50("n")) == (2.0, 5.0)
    for _ in range(64):
        latencies.record(ended("m", 0.5))
    assert latencies.p50("m") == 0.5


def test_what_was_not_served_says_nothing() -> None:
    latencies = Latencies({"m"}.__contains__)
    for ending in Ending:
        if ending is not Ending.OK:
            latencies.record(ended("m", 1.0, ending=ending))
    assert latencies.p50("m") is None


def test_names_that_clients_make_up_are_not_kept() -> None:
    known = {"m"}
    latencies = Latencies(known.__contains__)
    for number in range(10_000):
        latencies.record(ended(f"made-up-{number}", 1.0))
    assert not latencies._seconds
    known |= {f"n{number}" for number in range(3000)}
    for number in range(3000):
        latencies.record(ended(f"n{number}", 1.0))
    assert len(latencies._seconds) == 2000
    # Those that went make room.
    known.clear()
    known.add("m")
    latencies.record(ended("m", 1.0))
    assert latencies.p50("m") == 1.0
    assert len(latencies._seconds) == 1
