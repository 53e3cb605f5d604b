"""How long answers take, by the names that clients write: the last ones that this process gave."""

from collections import deque
from collections.abc import Callable
from statistics import median

from gateway.core.outcome import Ending, Outcome

# Answers of each name that are remembered, and names.
_ANSWERS = 64
_NAMES = 2000
_OK = Ending.OK


class Latencies:
    """is_model: whether the table has a model of that name; clients make names up."""

    __slots__ = ("_is_model", "_seconds")

    def __init__(self, is_model: Callable[[str], bool]) -> None:
        self._is_model = is_model
        self._seconds: dict[str, deque[float]] = {}

    def record(self, outcome: Outcome) -> None:
        """A request has ended. On the way of every request."""
        if outcome.ending is not _OK:
            return
        seconds = self._seconds.get(outcome.model)
        if seconds is None:
            if len(self._seconds) >= _NAMES:
                self._seconds = {name: kept for name, kept in self._seconds.items() if self._is_model(name)}
            if len(self._seconds) >= _NAMES or not self._is_model(outcome.model):
                return
            seconds = self._seconds[outcome.model] = deque(maxlen=_ANSWERS)
        seconds.append(outcome.seconds)

    def p50(self, model: str) -> float | None:
        """Seconds, of whole answers; None if there were none."""
        seconds = self._seconds.get(model)
        return round(median(seconds), 4) if seconds else None
