"""Delays between attempts: growing, bounded, with jitter, so that a thousand peers don't come back at once."""

import random


class Backoff:
    """`next()` gives the delay in seconds before the next attempt; `reset()` after a success.

    The delay doubles from `first` to `longest`; each is drawn from its upper half.
    """

    def __init__(self, first: float = 0.2, longest: float = 3.0, source: random.Random | None = None) -> None:
        self._first = first
        self._longest = longest
        self._source = source or random.Random()
        self._attempt = 0

    def next(self) -> float:
        delay = min(self._longest, self._first * 2.0 ** min(self._attempt, 30))
        self._attempt += 1
        return delay * (0.5 + 0.5 * self._source.random())

    def reset(self) -> None:
        self._attempt = 0

    def most(self) -> None:
        """From now on the longest delay, until `reset`."""
        self._attempt = 30
