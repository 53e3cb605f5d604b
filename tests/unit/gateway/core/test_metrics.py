"""What is counted, and that it does not grow with what clients make up."""

from gateway.core.metrics import BOUNDS, MOST_MODELS, OTHER, SERVED, Metrics
from gateway.core.outcome import Ending, Failed, Outcome, Tokens
from geniehive.rules.operations import Operation


def outcome(**fields: object) -> Outcome:
    given: dict[str, object] = {
        "request_id": "r",
        "key_id": "k",
        "operation": Operation.CHAT,
        "model": "m",
        "ending": Ending.OK,
        "status": 200,
        "attempts": 1,
        "seconds": 0.5,
        **fields,
    }
    return Outcome(**given)  # type: ignore[arg-type]


def test_each_is_counted_once() -> None:
    metrics = Metrics(lambda name: True)
    metrics.record(outcome(first=0.02, tokens=Tokens(10, 5, 2)))
    metrics.record(outcome(ending=Ending.FAILED, status=502, seconds=1000.0, waited=0.3,
                           attempts=3, failed=(Failed("a", "connect"), Failed("b", "cut"))))  # fmt: skip
    metrics.record(outcome(operation=Operation.EMBEDDINGS, ending=Ending.UNSERVED, status=401, attempts=0, model=""))
    assert metrics.requests == {
        (Operation.CHAT, Ending.OK, 200): 1,
        (Operation.CHAT, Ending.FAILED, 502): 1,
        (Operation.EMBEDDINGS, Ending.UNSERVED, 401): 1,
    }
    assert metrics.attempts == {SERVED: 2, "connect": 1, "cut": 1}
    assert metrics.tokens == {"m": [10, 2, 5]}
    chat = metrics.durations[Operation.CHAT]
    assert (sum(chat.counts), chat.counts[-1], chat.sum) == (2, 1, 1000.5)
    assert metrics.firsts[Operation.CHAT].counts[1] == 1  # above 0.01, up to 0.02
    assert Operation.EMBEDDINGS not in metrics.firsts
    assert sum(metrics.waited.counts) == 1


def test_a_bound_belongs_to_its_bucket() -> None:
    metrics = Metrics(lambda name: True)
    for bound in BOUNDS:
        metrics.record(outcome(seconds=bound))
    assert metrics.durations[Operation.CHAT].counts == [1] * len(BOUNDS) + [0]


def test_models_are_bounded() -> None:
    metrics = Metrics(lambda name: not name.startswith("made-up"))
    metrics.record(outcome(model="made-up", tokens=Tokens(1, 2)))
    assert metrics.tokens == {OTHER: [1, 0, 2]}
    for number in range(2 * MOST_MODELS):
        metrics.record(outcome(model=f"m{number}", tokens=Tokens(1, 1)))
    assert len(metrics.tokens) <= MOST_MODELS + 1
    assert sum(counts[0] for counts in metrics.tokens.values()) == 1 + 2 * MOST_MODELS
    assert metrics.tokens["m0"] == [1, 0, 1]


def test_a_copy_stays_as_it_is() -> None:
    metrics = Metrics(lambda name: True)
    full = outcome(first=0.1, waited=0.1, tokens=Tokens(1, 1), failed=(Failed("a", "cut"),), attempts=2)
    metrics.record(full)
    copy = metrics.counts()
    metrics.record(full)
    assert copy.requests == {(Operation.CHAT, Ending.OK, 200): 1}
    assert copy.tokens == {"m": [1, 0, 1]}
    assert copy.attempts == {SERVED: 1, "cut": 1}
    for times in (copy.durations[Operation.CHAT], copy.firsts[Operation.CHAT], copy.waited):
        assert sum(times.counts) == 1
