"""The book of usage: each report once, whatever is sent again, and whatever becomes of writes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from geniehive.rules.histogram import BOUNDS
from geniehive_control.core.gauges import Gauges
from geniehive_control.core.usage import (
    BATCH_ROWS,
    BUCKETS,
    MOST_ROWS,
    NUMBERS,
    Batch,
    Book,
    Key,
    Who,
    histogram,
    hour_of,
    span,
)

KEY = Key(1, "k", "m", 1, "endpoint/gpu-1/ollama/org/m", "m")


def row(requests: int = 1, **fields: object) -> tuple[Key, list[float]]:
    return KEY._replace(**fields), [requests, *[0] * (len(NUMBERS) - 1)]  # type: ignore[arg-type]


class Disk:
    """A database as the port describes it."""

    def __init__(self) -> None:
        self.rows: Counter[Key] = Counter()
        self.reported: dict[Who, int] = {}

    def add(self, batch: Batch) -> None:
        who, sequence = next(iter(batch.reported.items()))
        if self.reported.get(who, 0) >= sequence:
            return
        self.reported |= batch.reported
        for key, numbers in batch.rows.items():
            self.rows[key] += int(numbers[0])


steps = st.lists(
    st.tuples(st.just("report"), st.integers(0, 2), st.integers(0, 3))
    | st.tuples(st.sampled_from(("resend", "write", "fail", "unheard", "restart")), st.integers(0, 2), st.just(0))
)


@given(steps)
def test_each_report_counts_once(steps: list[tuple[str, int, int]]) -> None:
    """Reports of three processes; writes that fail, or succeed without being heard of; kills of control."""
    disk, book = Disk(), Book({})
    sent: dict[Who, list[tuple[int, int]]] = {("gw", str(n)): [] for n in range(3)}
    stored: dict[Who, int] = dict.fromkeys(sent, 0)

    def send(who: Who, sequence: int, model: int) -> None:
        book.take(who, sequence, [row(model=str(model))] if model else [])

    for step, number, model in steps:
        who = "gw", str(number)
        match step:
            case "report":
                sequence = len(sent[who]) + 1
                sent[who].append((sequence, model))
                send(who, sequence, model)
            case "resend":
                for sequence, held in sent[who][stored[who] :]:
                    send(who, sequence, held)
            case "restart":
                book = Book(disk.reported)
                for name, reports in sent.items():
                    for sequence, held in reports[stored[name] :]:
                        send(name, sequence, held)
            case _ if (batch := book.batch()) is not None:
                if step != "fail":
                    disk.add(batch)
                if step == "write":
                    book.written(batch)
        for name in sent:
            stored[name] = max(stored[name], book.stored(name))
    while (batch := book.batch()) is not None:
        disk.add(batch)
        book.written(batch)
    expected = Counter(str(model) for reports in sent.values() for _, model in reports if model)
    assert Counter({key.model: count for key, count in disk.rows.items()}) == expected
    assert not book.waiting


def test_what_is_being_written_stays_as_it_is() -> None:
    book = Book({})
    book.take(("gw", "1"), 1, [row()])
    first = book.batch()
    assert first is not None
    book.take(("gw", "1"), 2, [row()])
    assert first.reported == {("gw", "1"): 1}
    assert book.batch() is first
    book.written(first)
    second = book.batch()
    assert second is not None
    assert (second.reported, second.rows[KEY][0]) == ({("gw", "1"): 2}, 1)


def test_reports_of_one_batch_are_one_row() -> None:
    book = Book({})
    for sequence in (1, 2, 3):
        assert book.take(("gw", "1"), sequence, [row(), row(model="n")])
        assert not book.take(("gw", "1"), sequence, [row()])
    batch = book.batch()
    assert batch is not None
    assert {key.model: numbers[0] for key, numbers in batch.rows.items()} == {"m": 3, "n": 3}


def test_batches_are_bounded_and_so_is_what_waits() -> None:
    book = Book({})
    sequence = 0
    while not book.full:
        sequence += 1
        book.take(("gw", "1"), sequence, [row(model=f"{sequence}-{n}") for n in range(500)])
    assert sequence * 500 == MOST_ROWS
    sizes = []
    while (batch := book.batch()) is not None:
        sizes.append(len(batch.rows))
        book.written(batch)
    assert max(sizes) == BATCH_ROWS
    assert not book.full


def test_what_has_no_rows_is_not_stored() -> None:
    book = Book({("gw", "1"): 5})
    assert not book.take(("gw", "1"), 5, [])
    assert book.take(("gw", "1"), 6, [])
    assert not book.waiting
    assert book.stored(("gw", "1")) == 6
    # Unless what came before it waits.
    book.take(("gw", "1"), 7, [row()])
    book.take(("gw", "1"), 8, [])
    assert book.stored(("gw", "1")) == 6
    batch = book.batch()
    assert batch is not None
    book.written(batch)
    assert book.stored(("gw", "1")) == 8


def test_processes_that_are_gone_are_forgotten() -> None:
    book = Book({("gw", "1"): 5, ("gw", "2"): 6, ("gw", "3"): 7})
    book.take(("gw", "2"), 7, [row()])
    book.forget([("gw", "3")])
    assert [book.stored(("gw", n)) for n in "123"] == [0, 6, 7]
    assert not book.take(("gw", "2"), 7, [row()])


def test_the_parts_of_an_endpoint() -> None:
    assert (KEY.host, KEY.service) == ("gpu-1", "gpu-1/ollama")
    for endpoint in ("", "endpoint/a", "endpoint/a/b"):
        assert (KEY._replace(endpoint=endpoint).host, KEY._replace(endpoint=endpoint).service) == ("", "")


def test_a_report_belongs_to_the_hour_in_which_most_of_it_lay() -> None:
    assert hour_of(7201.0, 5.0) == 1
    assert hour_of(7203.0, 5.0) == 2
    assert hour_of(7201.0, 0.0) == 2
    assert hour_of(7201.0, -5.0) == 2


def test_histograms_and_times_that_make_no_sense() -> None:
    assert histogram((), ()) == [0] * BUCKETS
    assert histogram((2.0, 1.0), (1, 2, 3)) == [0] * BUCKETS
    assert len(histogram((), [1] * 100)) == BUCKETS
    assert len(histogram(BOUNDS, [1] * 100)) == BUCKETS
    assert sum(histogram(BOUNDS, [1, 2])) == 3
    assert [span(value) for value in (float("nan"), float("inf"), -1.0, 2.5)] == [0, 0, 0, 2.5]


def test_gauges_last_as_long_as_their_stream_and_their_time() -> None:
    gauges = Gauges()
    gauges.put(("gw", "1"), "s1", 10.0, {("m", 1): (2, 1), ("b", 3): (1, 0)})
    gauges.put(("gw", "2"), "s2", 20.0, {("m", 1): (3, 0)})
    assert gauges.routes(5.0) == {("b", 3): (1, 0), ("m", 1): (5, 1)}
    assert gauges.routes(15.0) == {("m", 1): (3, 0)}
    gauges.put(("gw", "2"), "s3", 20.0, {})
    gauges.put(("gw", "2"), "s3", 20.0, {("m", 1): (4, 0)})
    gauges.drop("s2")
    assert gauges.routes(15.0) == {("m", 1): (4, 0)}
    gauges.drop("s3")
    assert gauges.routes(5.0) == {("b", 3): (1, 0), ("m", 1): (2, 1)}
