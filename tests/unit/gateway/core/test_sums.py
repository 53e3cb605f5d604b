"""Sums of outcomes: whatever the interleaving of adding and taking, the totals are those of the outcomes."""

from collections import Counter
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.outcome import Ending, Failed, Outcome, Tokens
from gateway.core.sums import Row, Sums
from geniehive.rules.histogram import BOUNDS
from geniehive.rules.operations import Operation

KINDS = ("connect", "upstream", "timeout", "cut", "refused", "loading")
ENDPOINTS = ("endpoint/a/s/m", "endpoint/b/s/m")


def outcome(**fields: object) -> Outcome:
    made: dict[str, object] = {
        "request_id": "r",
        "key_id": "k",
        "operation": Operation.CHAT,
        "model": "m",
        "ending": Ending.OK,
        "status": 200,
        "endpoint": ENDPOINTS[0],
        "label": "m",
        "attempts": 1,
        "seconds": 0.3,
    }
    return Outcome(**(made | fields))  # type: ignore[arg-type]


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    failed = tuple(
        Failed(draw(st.sampled_from(ENDPOINTS)), draw(st.sampled_from(KINDS))) for _ in range(draw(st.integers(0, 3)))
    )
    ending = draw(st.sampled_from(Ending))
    served = ending is Ending.OK
    return outcome(
        key_id=draw(st.sampled_from(("", "k", "k2"))),
        model=draw(st.sampled_from(("m", "n", ""))),
        operation=draw(st.sampled_from((Operation.CHAT, Operation.EMBEDDINGS))),
        ending=ending,
        endpoint=draw(st.sampled_from(ENDPOINTS)) if served else failed[-1].endpoint if failed else "",
        attempts=len(failed) + served,
        failed=failed,
        seconds=draw(st.floats(0, 1000)),
        first=draw(st.none() | st.floats(0, 1000)),
        tokens=draw(st.none() | st.builds(Tokens, st.integers(0, 99), st.integers(0, 99), st.integers(0, 9))),
    )


def totals(rows: Iterable[Row]) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in rows:
        for name in ("requests", "succeeded", "cancelled", "unserved", "attempts", "with_tokens", "prompt", "cached",
                     "completion", "connect", "upstream", "timeout", "cut", "refused"):  # fmt: skip
            assert getattr(row, name) >= 0
            found[name] += getattr(row, name)
        found["duration"] += sum(row.duration)
        found["first_token"] += sum(row.first_token)
    return +found


def expected(given: Iterable[Outcome]) -> Counter[str]:
    found: Counter[str] = Counter()
    for o in given:
        words = {Ending.OK: "succeeded", Ending.CANCELLED: "cancelled", Ending.UNSERVED: "unserved"}
        found.update(["requests", "duration", words.get(o.ending, "other")])
        found.update(failed.kind for failed in o.failed)
        found["attempts"] += o.attempts
        found["first_token"] += o.first is not None
        if o.tokens is not None:
            found["with_tokens"] += 1
            found["prompt"] += o.tokens.prompt
            found["cached"] += o.tokens.cached
            found["completion"] += o.tokens.completion
    del found["other"], found["loading"]
    return +found


@given(st.lists(outcomes() | st.none()), st.sampled_from((1, 3, 1000)))
def test_what_is_taken_is_what_was_added(steps: list[Outcome | None], most_rows: int) -> None:
    sums = Sums(most_rows=most_rows)
    rows: list[Row] = []
    for step in steps:
        if step is None:
            rows += sums.take()
        else:
            sums.add(step)
    rows += sums.take()
    assert totals(rows) == expected(step for step in steps if step is not None)
    assert sums.take() == []


@given(st.lists(outcomes()), st.integers(1, 5))
def test_rows_are_bounded(given: list[Outcome], most_rows: int) -> None:
    sums = Sums(most_rows=most_rows)
    for item in given:
        sums.add(item)
    # At most one more for each operation.
    assert len(sums) <= 2 * most_rows + 2


def test_what_tells_speeds_adds_up() -> None:
    sums = Sums()
    tokens = Tokens(100, 20)
    sums.add(outcome(tokens=tokens, prefill=(100, 0.25), decode=(20, 0.5)))
    sums.add(outcome(tokens=tokens, decode=(30, 1.5), cold=4.0))
    sums.add(outcome(cold=2.0))
    sums.add(outcome(tokens=tokens))
    (row,) = sums.take()
    assert (row.prefill_tokens, row.prefill_seconds) == (100, 0.25)
    assert (row.decode_tokens, row.decode_seconds) == (50, 2.0)
    assert (row.cold_starts, row.cold_seconds) == (2, 6.0)


def test_a_request_counts_where_it_ended_and_an_attempt_where_it_was_made() -> None:
    sums = Sums()
    here, there = ENDPOINTS
    sums.add(outcome(endpoint=here, attempts=3, failed=(Failed(there, "connect"), Failed(there, "timeout"))))
    rows = {row.endpoint: row for row in sums.take()}
    assert (rows[here].requests, rows[here].succeeded, rows[here].attempts) == (1, 1, 1)
    assert (rows[there].requests, rows[there].attempts, rows[there].connect, rows[there].timeout) == (0, 2, 1, 1)
    assert rows[here].connect == rows[here].timeout == 0
    assert {row.label for row in rows.values()} == {"m"}


def test_a_request_that_failed_counts_at_the_last_that_failed_it() -> None:
    sums = Sums()
    here, there = ENDPOINTS
    failed = (Failed(there, "connect"), Failed(here, "upstream"))
    sums.add(outcome(ending=Ending.FAILED, endpoint=here, attempts=2, failed=failed))
    rows = {row.endpoint: row for row in sums.take()}
    assert (rows[here].requests, rows[here].attempts, rows[here].upstream) == (1, 1, 1)
    assert (rows[there].requests, rows[there].attempts, rows[there].connect) == (0, 1, 1)


def test_a_request_that_reached_nobody() -> None:
    sums = Sums()
    sums.add(outcome(ending=Ending.UNSERVED, endpoint="", label="", attempts=0))
    (row,) = sums.take()
    assert (row.endpoint, row.requests, row.unserved, row.attempts) == ("", 1, 1, 0)


def test_times_fall_into_their_buckets() -> None:
    sums = Sums()
    sums.add(outcome(seconds=BOUNDS[2], first=0.0))
    sums.add(outcome(seconds=BOUNDS[-1] * 2))
    (row,) = sums.take()
    assert row.duration == [0, 0, 1, *[0] * (len(BOUNDS) - 3), 1]
    assert row.first_token == [1, *[0] * len(BOUNDS)]


def test_beyond_the_bound_models_and_then_keys_are_not_told_apart() -> None:
    sums = Sums(most_rows=2)
    for number in range(10):
        sums.add(outcome(key_id=f"k{number % 5}", model=f"m{number}"))
    rows = {(row.key_id, row.model, row.endpoint): row.requests for row in sums.take()}
    assert rows == {
        ("k0", "m0", ENDPOINTS[0]): 1,
        ("k1", "m1", ENDPOINTS[0]): 1,
        ("k2", "", ""): 2,
        ("k3", "", ""): 2,
        ("", "", ""): 4,
    }


def test_other_bounds() -> None:
    sums = Sums()
    sums.add(outcome())
    assert sums.measure(BOUNDS) == []
    (row,) = sums.measure((1.0, 2.0))
    assert (row.bounds, row.requests) == (BOUNDS, 1)
    sums.add(outcome(seconds=1.5))
    (row,) = sums.take()
    assert (row.bounds, row.duration) == ((1.0, 2.0), [0, 1, 0])
