"""What this process counts of its requests, to be looked at by monitoring. Nothing here grows without bound."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from gateway.core.outcome import Ending, Outcome
from geniehive.rules.operations import Operation

# Seconds: OpenTelemetry's for generative AI, and two more, since answers of slow machines take that long.
BOUNDS = tuple(0.01 * 2**n for n in range(16))
# Models that are told apart; the rest counts as one.
MOST_MODELS = 500
OTHER = "other"
# Of attempts that were not in vain.
SERVED = "served"


class Times(msgspec.Struct):
    """A histogram. counts: per bucket, the last without upper bound."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    sum: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def plus(self, other: "Times") -> "Times":
        return Times([one + two for one, two in zip(self.counts, other.counts, strict=True)], self.sum + other.sum)


_NO_TIMES = Times()
_NO_TOKENS = (0, 0, 0)


class Counts(msgspec.Struct, frozen=True):
    """All that was counted. Can be told to another process.

    requests: by operation, ending and status. attempts: by what became of them: SERVED, or as of `Failed.kind`. tokens:
    by model: prompt, of it cached, and completion.
    """

    requests: dict[tuple[Operation, Ending, int], int] = {}
    attempts: dict[str, int] = {}
    durations: dict[Operation, Times] = {}
    firsts: dict[Operation, Times] = {}
    waited: Times = msgspec.field(default_factory=Times)
    tokens: dict[str, list[int]] = {}

    def plus(self, other: "Counts") -> "Counts":
        """Both together; shares nothing with them."""
        return Counts(
            _added(self.requests, other.requests),
            _added(self.attempts, other.attempts),
            _all_times(self.durations, other.durations),
            _all_times(self.firsts, other.firsts),
            self.waited.plus(other.waited),
            {
                model: [one + two for one, two in zip(self._of(model), other._of(model), strict=True)]
                for model in {**self.tokens, **other.tokens}
            },
        )

    def _of(self, model: str) -> Sequence[int]:
        return self.tokens.get(model, _NO_TOKENS)


class Metrics:
    """is_model: whether the table has a model of that name; others are not told apart, since clients make names up."""

    __slots__ = ("_is_model", "attempts", "durations", "firsts", "requests", "tokens", "waited")

    def __init__(self, is_model: Callable[[str], bool]) -> None:
        self._is_model = is_model
        # By operation, ending and status.
        self.requests: dict[tuple[Operation, Ending, int], int] = {}
        # What became of them: SERVED, or as of `Failed.kind`.
        self.attempts: dict[str, int] = {}
        self.durations: dict[Operation, Times] = {}
        self.firsts: dict[Operation, Times] = {}
        self.waited = Times()
        # By model: prompt, of it cached, and completion.
        self.tokens: dict[str, list[int]] = {}

    def record(self, outcome: Outcome) -> None:
        """A request has ended. On the way of every request: about a microsecond."""
        operation = outcome.operation
        key = operation, outcome.ending, outcome.status
        requests = self.requests
        requests[key] = requests.get(key, 0) + 1
        if (times := self.durations.get(operation)) is None:
            times = self.durations[operation] = Times()
        seconds = outcome.seconds
        times.counts[bisect_left(BOUNDS, seconds)] += 1
        times.sum += seconds
        if (first := outcome.first) is not None:
            if (times := self.firsts.get(operation)) is None:
                times = self.firsts[operation] = Times()
            times.counts[bisect_left(BOUNDS, first)] += 1
            times.sum += first
        if outcome.waited:
            self.waited.add(outcome.waited)
        attempts = self.attempts
        if outcome.failed:
            for failed in outcome.failed:
                attempts[failed.kind] = attempts.get(failed.kind, 0) + 1
        served = outcome.attempts - len(outcome.failed)
        if served > 0:
            attempts[SERVED] = attempts.get(SERVED, 0) + served
        if (tokens := outcome.tokens) is not None:
            counts = self.tokens.get(outcome.model) or self._counts(outcome.model)
            counts[0] += tokens.prompt
            counts[1] += tokens.cached
            counts[2] += tokens.completion

    def counts(self) -> Counts:
        """As it is now, for whoever takes time to read it."""
        now = Counts(self.requests, self.attempts, self.durations, self.firsts, self.waited, self.tokens)
        return Counts().plus(now)

    def _counts(self, model: str) -> list[int]:
        if len(self.tokens) >= MOST_MODELS or not self._is_model(model):
            model = OTHER
        return self.tokens.setdefault(model, [0, 0, 0])


_Key = TypeVar("_Key")


def _added(some: Mapping[_Key, int], others: Mapping[_Key, int]) -> dict[_Key, int]:
    return {key: some.get(key, 0) + others.get(key, 0) for key in {**some, **others}}


def _all_times(some: Mapping[Operation, Times], others: Mapping[Operation, Times]) -> dict[Operation, Times]:
    return {key: some.get(key, _NO_TIMES).plus(others.get(key, _NO_TIMES)) for key in {**some, **others}}
