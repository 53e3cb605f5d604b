"""Time, so that tests can own it."""

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds that only grow; their zero means nothing."""

    def wall(self) -> float:
        """Seconds since the epoch, for people and for storing."""


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
