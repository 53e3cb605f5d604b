"""Time, so that tests can own it."""

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds that only grow; their zero means nothing."""

    def wall(self) -> float:
        """Seconds since the epoch, for people and for storing."""


class SystemClock:
    # The functions themselves: a method around them would cost as much again, several times for each request.
    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
