"""What several workers count, as one."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.crew import Crew, Levels, Process, Snapshot
from gateway.core.metrics import Counts, Metrics
from gateway.core.outcome import Failed, Tokens
from tests.unit.gateway.core.test_metrics import outcome

LEVELS = Levels(clients=1, upstream_connections=2, ejected=0, table_generation=3, table_age=None, routes=[])
PROCESS = Process(cpu=1.0, memory=2, files=3, began=4.0)


def snapshot(requests: int = 1, model: str = "m") -> Snapshot:
    metrics = Metrics(lambda name: True)
    for _ in range(requests):
        metrics.record(
            outcome(
                model=model, first=0.02, tokens=Tokens(10, 5, 2), waited=0.1, attempts=2, failed=(Failed("a", "cut"),)
            )
        )
    return Snapshot(metrics.counts(), LEVELS, PROCESS)


def total(counts: Counts) -> int:
    return sum(counts.requests.values())


def test_counts_are_added() -> None:
    counts = snapshot(2, "a").counts.plus(snapshot(3, "b").counts)
    (chat,) = counts.requests
    assert counts.requests == {chat: 5}
    assert counts.attempts == {"cut": 5, "served": 5}
    assert counts.tokens == {"a": [20, 4, 10], "b": [30, 6, 15]}
    for times in (counts.durations[chat[0]], counts.firsts[chat[0]], counts.waited):
        assert sum(times.counts) == 5
    assert counts.durations[chat[0]].sum == 2.5


def test_a_sum_shares_nothing() -> None:
    one = snapshot()
    counts = one.counts.plus(Counts())
    assert counts == one.counts
    counts.tokens["m"][0] += 1
    counts.waited.add(1.0)
    next(iter(counts.durations.values())).add(1.0)
    assert snapshot() == one


def test_who_is_silent_counts_and_is_not_seen() -> None:
    crew = Crew(3)
    crew.told(0, "p", snapshot(1))
    crew.told(1, "q", snapshot(2))
    whole = crew.whole({1})
    assert total(whole.counts) == 3
    assert [(s.worker, s.levels is not None, s.process is not None) for s in whole.states] == [
        (0, False, False),
        (1, True, True),
        (2, False, False),
    ]


# What a worker does: counts on, tells it, or ends and is replaced.
STEPS = st.lists(st.tuples(st.sampled_from(["count", "tell", "end"]), st.integers(0, 2)))


@given(STEPS)
def test_counters_never_fall(steps: list[tuple[str, int]]) -> None:
    crew = Crew(3)
    counting, told, process = [0, 0, 0], [0, 0, 0], [0, 0, 0]
    last = gone = 0
    for step, worker in steps:
        match step:
            case "count":
                counting[worker] += 1
            case "tell":
                crew.told(worker, str(process[worker]), snapshot(counting[worker]))
                told[worker] = counting[worker]
            case "end":
                process[worker] += 1
                gone += told[worker]
                counting[worker] = told[worker] = 0
        now = total(crew.whole(set()).counts)
        assert now == gone + sum(told)
        assert now >= last
        last = now
