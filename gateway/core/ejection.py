"""Which lanes are left out because connecting to them failed, and which endpoints because they failed what they took.

A lane is out at its first failed connection. An endpoint is out when as many requests as STRIKES failed at it in a row:
it answered 502, 503 or 504 without loading, or too late, or broke off. What engines refuse, and clients' own errors,
count for nothing. Either is out for a second, then twice as long each time, up to half a minute. When the time is over
one request may try it (it is half open); what becomes of that one decides. An endpoint that control lets back on trial
is half open from the start.
"""

import msgspec

from gateway.core.plan import Candidate, Lane

FIRST = 1.0
LONGEST = 30.0
STRIKES = 3
# Lanes and endpoints that nobody asked about for this long are forgotten: hosts and tokens come and go.
_FORGET_AFTER = 600.0
# Endpoints whose last requests failed are at most so many; whoever is passed over starts afresh.
_STRUCK_KEPT = 10_000

# A lane, or an endpoint's resource name.
Key = Lane | str


class Out(msgspec.Struct):
    since: float
    until: float
    span: float
    probing: bool = False


class Ejections:
    """Times are seconds of one clock that only grows."""

    def __init__(self) -> None:
        # Those that failed last. Hardly ever any, and then nothing else here need be asked.
        self.out: dict[Key, Out] = {}
        # Endpoints that are not out, and how many requests in a row failed at each.
        self.struck: dict[str, int] = {}

    def is_open(self, key: Key, now: float) -> bool:
        """Whether a request may be sent there: not ejected, or half open and nobody is trying it."""
        if not self.out:
            return True
        out = self.out.get(key)
        return out is None or (now >= out.until and not out.probing)

    def open_lane(self, candidate: Candidate, but: tuple[Lane, ...], now: float) -> Lane | None:
        """The candidate's first lane that is not ejected and not among `but`; None if it is ejected itself."""
        if not but and not self.is_open(candidate.endpoint, now):
            return None
        for lane in candidate.lanes:
            if lane not in but and self.is_open(lane, now):
                return lane
        return None

    def since(self, key: Key) -> float:
        """When it failed last; 0 if it is not ejected."""
        out = self.out.get(key)
        return out.since if out else 0.0

    def opens_in(self, key: Key, now: float) -> float:
        """Seconds until it is half open; 0 if it is not ejected."""
        out = self.out.get(key)
        return max(0.0, out.until - now) if out else 0.0

    def chosen(self, key: Key, now: float) -> None:
        """A request goes there now."""
        if (out := self.out.get(key)) and now >= out.until:
            out.probing = True

    def failed(self, key: Key, now: float) -> None:
        """A connection to it failed."""
        out = self.out.get(key)
        if out is None:
            self._forget(now)
            self.out[key] = Out(now, now + FIRST, FIRST)
        elif now >= out.until:
            span = min(LONGEST, out.span * 2)
            self.out[key] = Out(now, now + span, span)
        else:
            # One of many that failed at once, or one that was tried for want of anything better.
            out.since = now

    def strike(self, endpoint: str, now: float) -> None:
        """A request that this endpoint had taken failed."""
        if endpoint in self.out:
            self.failed(endpoint, now)
            return
        count = self.struck.pop(endpoint, 0) + 1
        if count >= STRIKES:
            self.failed(endpoint, now)
            return
        if len(self.struck) >= _STRUCK_KEPT:
            del self.struck[next(iter(self.struck))]
        self.struck[endpoint] = count

    def trial(self, endpoint: str, now: float) -> None:
        """Control had taken it out for its failures, and lets it be tried."""
        if endpoint not in self.out:
            self.out[endpoint] = Out(now, now, FIRST)

    def succeeded(self, lane: Lane) -> None:
        """It answered."""
        if self.out:
            self.out.pop(lane, None)

    def served(self, endpoint: str) -> None:
        """A request was served by it, to the end."""
        if self.out:
            self.out.pop(endpoint, None)
        if self.struck:
            self.struck.pop(endpoint, None)

    def left(self, key: Key) -> None:
        """A request that went there ended without telling whether it works: another may try."""
        if out := self.out.get(key):
            out.probing = False

    def ejected(self, now: float) -> list[Key]:
        """Those that are out at this moment."""
        return [key for key, out in self.out.items() if now < out.until or out.probing]

    def _forget(self, now: float) -> None:
        for key in [key for key, out in self.out.items() if now - out.until > _FORGET_AFTER]:
            del self.out[key]
