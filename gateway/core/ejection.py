"""Which lanes are left out because connecting to them failed.

A lane is out at its first failed connection, for a second, then twice as long each time, up to half a minute. When the
time is over one request may try it (the lane is half open); what becomes of that one decides.
"""

import msgspec

from gateway.core.plan import Lane

FIRST = 1.0
LONGEST = 30.0
# Lanes that nobody asked about for this long are forgotten: hosts and tokens come and go.
_FORGET_AFTER = 600.0


class Out(msgspec.Struct):
    since: float
    until: float
    span: float
    probing: bool = False


class Ejections:
    """Times are seconds of one clock that only grows."""

    def __init__(self) -> None:
        # Those that failed last. Hardly ever any, and then nothing else here need be asked.
        self.out: dict[Lane, Out] = {}

    def is_open(self, lane: Lane, now: float) -> bool:
        """Whether a request may be sent there: not ejected, or half open and nobody is trying it."""
        if not self.out:
            return True
        out = self.out.get(lane)
        return out is None or (now >= out.until and not out.probing)

    def since(self, lane: Lane) -> float:
        """When it failed last; 0 if it is not ejected."""
        out = self.out.get(lane)
        return out.since if out else 0.0

    def opens_in(self, lane: Lane, now: float) -> float:
        """Seconds until it is half open; 0 if it is not ejected."""
        out = self.out.get(lane)
        return max(0.0, out.until - now) if out else 0.0

    def chosen(self, lane: Lane, now: float) -> None:
        """A request goes there now."""
        if (out := self.out.get(lane)) and now >= out.until:
            out.probing = True

    def failed(self, lane: Lane, now: float) -> None:
        """A connection to it failed."""
        out = self.out.get(lane)
        if out is None:
            self._forget(now)
            self.out[lane] = Out(now, now + FIRST, FIRST)
        elif now >= out.until:
            span = min(LONGEST, out.span * 2)
            self.out[lane] = Out(now, now + span, span)
        else:
            # One of many that failed at once, or one that was tried for want of anything better.
            out.since = now

    def succeeded(self, lane: Lane) -> None:
        """It answered."""
        if self.out:
            self.out.pop(lane, None)

    def left(self, lane: Lane) -> None:
        """A request that went there ended without telling whether the lane works: another may try."""
        if out := self.out.get(lane):
            out.probing = False

    def ejected(self, now: float) -> list[Lane]:
        """Those that are out at this moment."""
        return [lane for lane, out in self.out.items() if now < out.until or out.probing]

    def _forget(self, now: float) -> None:
        for lane in [lane for lane, out in self.out.items() if now - out.until > _FORGET_AFTER]:
            del self.out[lane]
