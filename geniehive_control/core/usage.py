"""What gateways reported, until it is stored: each report once, summed by hour.

Reports are gathered in batches, which are stored whole together with the sequences that are in them, so that neither a
report that comes again nor a batch that is written again counts twice.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from math import isfinite
from typing import NamedTuple

import msgspec

from geniehive.rules.histogram import BOUNDS, rebin
from geniehive_control.core.figures import EndpointOutcomes

# Of a row, in the order of its numbers; the names are those of the contract's Outcomes.
COUNTS = (
    "requests", "requests_succeeded", "requests_cancelled", "requests_unserved", "attempts", "attempts_connect_failed",
    "attempts_upstream_failed", "attempts_timed_out", "attempts_cut", "attempts_refused", "requests_with_tokens",
    "prompt_tokens", "cached_tokens", "completion_tokens", "prefill_tokens", "decode_tokens", "cold_starts",
)  # fmt: skip
SECONDS = ("prefill_seconds", "decode_seconds", "cold_start_seconds")
HISTOGRAMS = ("first_token", "duration")
BUCKETS = len(BOUNDS) + 1
NUMBERS = (*COUNTS, *SECONDS, *(f"{name}_{n}" for name in HISTOGRAMS for n in range(BUCKETS)))
_PLACE = {name: number for number, name in enumerate(NUMBERS)}
_DURATION = _PLACE["duration_0"]
# Where the numbers of EndpointOutcomes stand among these, in its order.
_OUTCOMES = tuple(
    _PLACE[name]
    for name in (
        "attempts", "attempts_connect_failed", "attempts_upstream_failed", "attempts_timed_out", "attempts_cut",
        "requests_succeeded", "completion_tokens", "requests_with_tokens", "prefill_tokens", "prefill_seconds",
        "decode_tokens", "decode_seconds", "cold_starts", "cold_start_seconds",
    )
)  # fmt: skip

# Nothing that was counted in one interval is more; sums of as many as there may ever be fit 64 bits.
_MOST = 1 << 40
_LONGEST = 700
# A batch is closed at so many rows: one transaction of some tenths of a second.
BATCH_ROWS = 2_000
# Rows that wait for a database; beyond these gateways keep their reports.
MOST_ROWS = 20_000

# A gateway's process: gateway_id, instance_id.
Who = tuple[str, str]


class Key(NamedTuple):
    """hour: since the epoch. operation: its number. endpoint: as in the contract, "" if none was reached."""

    hour: int
    key_id: str
    model: str
    operation: int
    endpoint: str
    route_label: str

    @property
    def service(self) -> str:
        """ "host/service", "" if there is none."""
        parts = self.endpoint.split("/", 3)
        return f"{parts[1]}/{parts[2]}" if len(parts) > 3 else ""

    @property
    def host(self) -> str:
        return self.service.partition("/")[0]


class By(IntEnum):
    """What usage is summed by. The numbers are those of the contract's UsageDimension."""

    KEY = 1
    MODEL = 2
    HOST = 3
    SERVICE = 4
    ENDPOINT = 5
    OPERATION = 6
    HOUR = 7
    DAY = 8


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Groups by their requests, most first; of these `limit`, after `offset`. Values of HOUR, DAY, OPERATION: numbers.

    first, end: hours since the epoch, without `end`.
    """

    first: int
    end: int
    group_by: tuple[By, ...] = ()
    filters: tuple[tuple[By, str | int], ...] = ()
    limit: int
    offset: int = 0


class Group(NamedTuple):
    """One per `group_by`; numbers as of NUMBERS."""

    values: tuple[str | int, ...]
    numbers: Sequence[float]


class Batch:
    """Rows to add to what is stored, and the last report of each process that is in them."""

    __slots__ = ("reported", "rows")

    def __init__(self) -> None:
        self.rows: dict[Key, list[float]] = {}
        self.reported: dict[Who, int] = {}


class Book:
    """`stored`: the last report of each process that is in the database."""

    def __init__(self, stored: Mapping[Who, int]) -> None:
        self._stored = dict(stored)
        self._taken = dict(stored)
        self._batches: deque[Batch] = deque()
        # The one that is being written, or failed to be: it stays as it is.
        self._closed: Batch | None = None
        self._rows = 0

    @property
    def full(self) -> bool:
        """No more can be taken until something is stored."""
        return self._rows >= MOST_ROWS

    @property
    def waiting(self) -> int:
        """How many batches are to be stored."""
        return len(self._batches)

    def stored(self, who: Who) -> int:
        """The last report that need not come again; 0 if there is none."""
        return self._stored.get(who, 0)

    def take(self, who: Who, sequence: int, rows: Sequence[tuple[Key, list[float]]]) -> bool:
        """A report. False if it has been taken before."""
        if sequence <= self._taken.get(who, 0):
            return False
        self._taken[who] = sequence
        if not self._batches and not rows:
            # Nothing to store: an idle cluster leaves its disk alone.
            self._stored[who] = sequence
            return True
        batch = self._batches[-1] if self._batches else None
        if batch is None or batch is self._closed or len(batch.rows) >= BATCH_ROWS:
            batch = Batch()
            self._batches.append(batch)
        batch.reported[who] = sequence
        before = len(batch.rows)
        for key, numbers in rows:
            held = batch.rows.get(key)
            if held is None:
                batch.rows[key] = numbers
            else:
                for index, number in enumerate(numbers):
                    if number:
                        held[index] += number
        self._rows += len(batch.rows) - before
        return True

    def batch(self) -> Batch | None:
        """What to store next; the same again until it is `written`. None: everything is stored."""
        self._closed = self._batches[0] if self._batches else None
        return self._closed

    def written(self, batch: Batch) -> None:
        """It is stored."""
        self._batches.popleft()
        self._closed = None
        self._rows -= len(batch.rows)
        self._stored |= batch.reported

    def forget(self, kept: Iterable[Who]) -> None:
        """Only these processes, and those whose reports wait, can still be there."""
        staying = {*kept, *(who for batch in self._batches for who in batch.reported)}
        for known in (self._stored, self._taken):
            for who in known.keys() - staying:
                del known[who]


def outcomes(endpoint: str, model: str, gateway: str, numbers: Sequence[float]) -> EndpointOutcomes:
    """What numbers, in the order of NUMBERS, say of an endpoint."""
    duration = tuple(map(int, numbers[_DURATION : _DURATION + BUCKETS]))
    given = (numbers[place] for place in _OUTCOMES)
    return EndpointOutcomes._make((endpoint, model, gateway, *given, duration))


def hour_of(wall: float, interval: float) -> int:
    """The hour in which most of an interval lay that has just ended."""
    return int((wall - min(max(interval, 0.0), 86400.0) / 2) // 3600)


def text(given: str) -> str:
    """As a database takes it: PostgreSQL has no NUL, and an index no endless text."""
    return given.replace("\0", "�")[:_LONGEST]


def count(given: int) -> int:
    return given if 0 <= given <= _MOST else _MOST if given > 0 else 0


def span(given: float) -> float:
    """Seconds that can be summed."""
    return min(given, float(_MOST)) if isfinite(given) and given > 0 else 0.0


def histogram(bounds: Sequence[float], counts: Sequence[int]) -> list[int]:
    """In the buckets that are stored; what cannot be read counts as nothing."""
    if not counts:
        return [0] * BUCKETS
    if tuple(bounds) != BOUNDS:
        if list(bounds) != sorted(bounds):
            return [0] * BUCKETS
        counts = rebin(bounds, counts, BOUNDS)
    return [count(c) for c in counts[:BUCKETS]] + [0] * (BUCKETS - len(counts))
