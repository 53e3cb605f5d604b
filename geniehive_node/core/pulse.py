"""When to look at a source again."""

from typing import NamedTuple

from geniehive_node.core.looks import Source, Trouble


class _Pace(NamedTuple):
    """Delays double from `first` to `longest`, in seconds."""

    first: float
    longest: float


# A dead port costs one refused connection: ask often, since an engine that is back should be found at once.
_PACES = {
    Trouble.UNREACHABLE: _Pace(0.25, 2.0),
    Trouble.SLOW: _Pace(1.0, 4.0),
    Trouble.REFUSED: _Pace(1.0, 5.0),
    Trouble.LOADING: _Pace(0.25, 0.25),
    Trouble.STRANGE: _Pace(1.0, 5.0),
}
# Another program's port: its log should not fill with questions.
_PACE_OF_STRANGERS = _Pace(2.0, 30.0)
# The demonstration engine comes up, if it does, soon after the first look found no other: somebody waits for it.
_DEMO_PACE = 0.25
_DEMO_LOOKS = 240
# The list of a provider changes seldom, and asking crosses the internet.
HOSTED_INTERVAL = 60.0
_PACE_OF_HOSTED = _Pace(2.0, HOSTED_INTERVAL)


class Pulse:
    """The delays between looks at one source."""

    def __init__(self, source: Source, interval: float) -> None:
        self._source = source
        self._interval = HOSTED_INTERVAL if source.hosted else interval
        self._trouble: Trouble | None = None
        self._count = 0

    def after(self, trouble: Trouble | None) -> float:
        """Seconds until the next look, after one that failed so, or that went well (None)."""
        self._count = self._count + 1 if trouble == self._trouble else 0
        self._trouble = trouble
        if trouble is None:
            return self._interval
        if self._source.demo and self._count < _DEMO_LOOKS:
            return _DEMO_PACE
        if self._source.hosted:
            pace = _PACE_OF_HOSTED
        elif trouble is Trouble.STRANGE and not self._source.configured:
            pace = _PACE_OF_STRANGERS
        else:
            pace = _PACES[trouble]
        delay: float = min(pace.longest, pace.first * 2.0 ** min(self._count, 10))
        return delay
