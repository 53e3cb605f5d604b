"""What the workers of one address have counted and how they are, as one."""

import msgspec

from gateway.core.metrics import Counts
from geniehive.rules.operations import Operation


class Levels(msgspec.Struct, frozen=True, kw_only=True):
    """What is, at the moment of asking. table_age: seconds since control last sent something; None: never.

    routes: of each name and operation in use the requests that are with engines, and those that wait.
    """

    clients: int
    upstream_connections: int
    ejected: int
    table_generation: int
    table_age: float | None
    routes: list[tuple[str, Operation, int, int]]


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """The system's figures: seconds of CPU, bytes in memory, open files, and when it began, since the epoch."""

    cpu: float
    memory: int
    files: int
    began: float


class Snapshot(msgspec.Struct, frozen=True):
    """Of one worker."""

    counts: Counts
    levels: Levels
    process: Process


class State(msgspec.Struct, frozen=True):
    """levels, process: None of a worker that did not say now."""

    worker: int
    levels: Levels | None = None
    process: Process | None = None


class Whole(msgspec.Struct, frozen=True):
    """Of all workers. counts: all that they have counted, those that are gone too."""

    counts: Counts
    states: list[State]


class Crew:
    """Adds snapshots up. What is counted never falls, as monitoring demands of counters: of a worker that is silent or
    gone its last word stays.
    """

    __slots__ = ("_gone", "_last", "_workers")

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._gone = Counts()
        # With which process it was.
        self._last: dict[int, tuple[str, Snapshot]] = {}

    def told(self, worker: int, process: str, snapshot: Snapshot) -> None:
        """process: tells it from those that had its number before, which counted for themselves."""
        before = self._last.get(worker)
        if before is not None and before[0] != process:
            self._gone = self._gone.plus(before[1].counts)
        self._last[worker] = process, snapshot

    def whole(self, answered: set[int]) -> Whole:
        """answered: workers whose last word is of now."""
        counts = self._gone
        for _, last in self._last.values():
            counts = counts.plus(last.counts)
        states = []
        for worker in range(self._workers):
            if worker in answered:
                now = self._last[worker][1]
                states.append(State(worker, now.levels, now.process))
            else:
                states.append(State(worker))
        return Whole(counts, states)
