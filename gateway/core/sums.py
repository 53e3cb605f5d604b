"""Outcomes added up, for control: one row per key, model, operation, endpoint and tier.

A request counts in the row of its last attempt, an attempt in the row of its endpoint. The number of rows is bounded:
beyond it models are no longer told apart, and then not even keys, but nothing is lost from the totals.
"""

from bisect import bisect_left
from collections.abc import Sequence

from gateway.core.outcome import Ending, Outcome
from geniehive.rules.histogram import BOUNDS
from geniehive.rules.operations import Operation

MOST_ROWS = 5_000


class Row:
    """One combination, and what was counted of it. `bounds`: of both histograms, in seconds."""

    __slots__ = (
        "attempts", "bounds", "cached", "cancelled", "cold_seconds", "cold_starts", "completion", "connect", "cut",
        "decode_seconds", "decode_tokens", "duration", "endpoint", "first_token", "key_id", "label", "model",
        "operation", "prefill_seconds", "prefill_tokens", "prompt", "refused", "requests", "succeeded", "timeout",
        "unserved", "upstream", "with_tokens",
    )  # fmt: skip

    def __init__(self, key: tuple[str, str, Operation, str, str], bounds: Sequence[float]) -> None:
        self.key_id, self.model, self.operation, self.endpoint, self.label = key
        self.bounds = bounds
        self.requests = self.succeeded = self.cancelled = self.unserved = 0
        self.attempts = self.connect = self.upstream = self.timeout = self.cut = self.refused = 0
        self.with_tokens = self.prompt = self.cached = self.completion = 0
        self.prefill_tokens = self.decode_tokens = self.cold_starts = 0
        self.prefill_seconds = self.decode_seconds = self.cold_seconds = 0.0
        self.first_token = [0] * (len(bounds) + 1)
        self.duration = [0] * (len(bounds) + 1)


class Sums:
    """`add` for each request, `take` for each report."""

    __slots__ = ("_bounds", "_most", "_rows")

    def __init__(self, bounds: Sequence[float] = BOUNDS, most_rows: int = MOST_ROWS) -> None:
        self._bounds = tuple(bounds)
        self._most = most_rows
        self._rows: dict[tuple[str, str, Operation, str, str], Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def bounds(self) -> tuple[float, ...]:
        return self._bounds

    def add(self, outcome: Outcome) -> None:
        """A request has ended. On the way of every request: about a microsecond."""
        row = self._rows.get(key := (outcome.key_id, outcome.model, outcome.operation, outcome.endpoint, outcome.label))
        if row is None:
            row = self._new(key)
        row.requests += 1
        ending = outcome.ending
        if ending is Ending.OK:
            row.succeeded += 1
        elif ending is Ending.CANCELLED:
            row.cancelled += 1
        elif ending is Ending.UNSERVED:
            row.unserved += 1
        row.duration[bisect_left(row.bounds, outcome.seconds)] += 1
        if (first := outcome.first) is not None:
            row.first_token[bisect_left(row.bounds, first)] += 1
        if (tokens := outcome.tokens) is not None:
            row.with_tokens += 1
            row.prompt += tokens.prompt
            row.cached += tokens.cached
            row.completion += tokens.completion
        if (decode := outcome.decode) is not None:
            row.decode_tokens += decode[0]
            row.decode_seconds += decode[1]
        if (prefill := outcome.prefill) is not None:
            row.prefill_tokens += prefill[0]
            row.prefill_seconds += prefill[1]
        if (cold := outcome.cold) is not None:
            row.cold_starts += 1
            row.cold_seconds += cold
        row.attempts += outcome.attempts
        if outcome.failed:
            self._fail(outcome, row)

    def _fail(self, outcome: Outcome, own: Row) -> None:
        """Moves the attempts that failed elsewhere to where they did."""
        for failed in outcome.failed:
            row: Row | None = own
            if failed.endpoint != own.endpoint:
                own.attempts -= 1
                key = (outcome.key_id, outcome.model, outcome.operation, failed.endpoint, outcome.label)
                if (row := self._rows.get(key)) is None:
                    row = self._new(key)
                row.attempts += 1
            assert row is not None
            match failed.kind:
                case "connect":
                    row.connect += 1
                case "upstream":
                    row.upstream += 1
                case "timeout":
                    row.timeout += 1
                case "cut":
                    row.cut += 1
                case "refused":
                    row.refused += 1

    def _new(self, key: tuple[str, str, Operation, str, str]) -> Row:
        rows = self._rows
        if len(rows) >= self._most:
            key = (key[0], "", key[2], "", "")
            if key not in rows and len(rows) >= 2 * self._most:
                key = ("", "", key[2], "", "")
            if (row := rows.get(key)) is not None:
                return row
        row = rows[key] = Row(key, self._bounds)
        return row

    def take(self) -> list[Row]:
        """What was counted since it was taken last."""
        taken, self._rows = list(self._rows.values()), {}
        return taken

    def measure(self, bounds: Sequence[float]) -> list[Row]:
        """From now on histograms have these bounds. Gives what was counted by others, if there is any."""
        if tuple(bounds) == self._bounds:
            return []
        self._bounds = tuple(bounds)
        return self.take()
