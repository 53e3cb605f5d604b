"""Whether engines answer by the ways that gateways use, as control itself finds by asking them.

A node's word that its engine is well proves neither that others get there nor that it answers these. Each way that
control can take is asked once in an interval, spread in time. A way is broken after two failures in a row, or three if
the engine was merely silent, as a busy one may be; it is good again after two answers. Ways that control cannot take,
those of another machine's own loopback and those of providers, are nobody's business here.
"""

import heapq
from enum import Enum
from typing import NamedTuple
from zlib import crc32

from geniehive.rules.model import Relay, Service, Way
from geniehive_control.core import reach

FALL, SILENT_FALL, RISE = 2, 3, 2
# Seconds until a way is asked again: after its first failures and answers that may change what is known, and while it
# is broken, twice as long each time.
DOUBTFUL, FIRST_BROKEN, LONGEST_BROKEN = 1.0, 1.0, 5.0
# Within so many seconds new ways are asked for the first time.
FIRST_WITHIN = 0.5


class Kind(Enum):
    """How a question failed."""

    # Nothing takes the connection.
    CLOSED = "closed"
    # It was asked, and did not answer in time.
    SILENT = "silent"
    # It answered that it is not well, or not as it should.
    UNWELL = "unwell"


class Failure(NamedTuple):
    """words: for people. engine: the way is fine, and it is the engine that fails: the relay said so."""

    kind: Kind
    words: str
    engine: bool = False


class Check(NamedTuple):
    """One way to be asked. `turn` tells it from what was asked of the same way before."""

    service: str
    way: Way
    turn: int


class Finding(NamedTuple):
    """What control found of a service. ways: those that are not known to be broken. words: if the service is broken."""

    ways: tuple[Way, ...]
    words: str = ""


class _State:
    __slots__ = ("answers", "broken", "due", "failure", "failures", "pause", "silences", "trying", "turn")

    def __init__(self, due: float) -> None:
        self.due = due
        self.turn = 0
        self.trying = False
        self.broken = False
        # In a row. silences: of the failures.
        self.failures = 0
        self.silences = 0
        self.answers = 0
        self.pause = FIRST_BROKEN
        self.failure: Failure | None = None

    def take(self, failure: Failure | None) -> bool:
        """What became of a question. Whether that changed what is known."""
        if failure is None:
            self.failures = self.silences = 0
            self.answers += 1
            if not self.broken or self.answers < RISE:
                return False
            self.broken, self.failure, self.pause = False, None, FIRST_BROKEN
            return True
        self.answers = 0
        self.failures += 1
        self.silences += failure.kind is Kind.SILENT
        if self.broken:
            told, self.failure = self.failure, failure
            return told != failure
        self.broken = self.failures >= (SILENT_FALL if self.silences == self.failures else FALL)
        if self.broken:
            self.failure = failure
        return self.broken

    def next_due(self, now: float, interval: float) -> float:
        if self.broken and not self.answers:
            pause, self.pause = self.pause, min(self.pause * 2, LONGEST_BROKEN)
            return now + min(pause, interval)
        return now + (min(DOUBTFUL, interval) if self.failures or self.broken else interval)


class _Known:
    """A service. here: whether it is on control's own machine."""

    __slots__ = ("here", "relay", "service", "states")

    def __init__(self, service: Service, relay: Relay | None, here: bool) -> None:
        self.service = service
        self.relay = relay
        self.here = here
        self.states: dict[Way, _State] = {}


def urls(way: Way, relay: Relay | None) -> tuple[str, ...]:
    """Where it leads: any of these."""
    if way.direct_url is not None:
        return (way.direct_url,)
    return relay.base_urls if relay is not None else ()


def _is_near(way: Way, relay: Relay | None) -> bool:
    """Whether it leads to its own machine's loopback, where nobody else gets."""
    return way.same_host_only or all(reach.place(url) is None for url in urls(way, relay))


class Probes:
    """What is known of every service's ways. Times are of the clock that only grows.

    interval: in seconds. tls: whether control has a certificate, without which relays off loopback do not let it in.
    """

    def __init__(self, interval: float, *, tls: bool = False) -> None:
        self.interval = interval
        self._tls = tls
        self._known: dict[str, _Known] = {}
        self._due: list[tuple[float, str, int, Way]] = []
        self._turns = 0

    def want(self, service: Service, relay: Relay | None, here: bool, now: float) -> None:
        """The service is there, and offers this."""
        known = self._known.get(service.service)
        if known is None:
            known = self._known[service.service] = _Known(service, relay, here)
        moved = (known.relay, known.here, known.service.runtime) != (relay, here, service.runtime)
        known.service, known.relay, known.here = service, relay, here
        wanted = self._askable(service, relay, here)
        for way in [way for way in known.states if way not in wanted]:
            del known.states[way]
        for way in wanted:
            state = known.states.get(way)
            if state is None:
                state = known.states[way] = _State(now + FIRST_WITHIN * self._share(service.service, 0))
                self._plan(service.service, way, state)
            elif moved and not state.trying:
                # What was found may be about another address.
                state.due = now
                self._plan(service.service, way, state)

    def drop(self, service: str) -> None:
        """It is away: nothing is asked of it, and nothing is known of it when it is back."""
        self._known.pop(service, None)

    def next_due(self) -> float | None:
        """When a way is to be asked next, or somewhat before; None if there is none."""
        return self._due[0][0] if self._due else None

    def take_due(self, now: float, most: int) -> list[Check]:
        """Ways to be asked now, who waits longest first. Each is not given again before its result is told."""
        taken: list[Check] = []
        while self._due and self._due[0][0] <= now and len(taken) < most:
            _, service, turn, way = heapq.heappop(self._due)
            state = self._state(service, way)
            if state is not None and state.turn == turn and not state.trying:
                state.trying = True
                taken.append(Check(service, way, turn))
        return taken

    def service(self, name: str) -> tuple[Service, Relay | None] | None:
        """To be asked: its offer, and its host's relay."""
        known = self._known.get(name)
        return None if known is None else (known.service, known.relay)

    def tell(self, check: Check, failure: Failure | None, now: float) -> bool:
        """What became of a question. Whether something else is known of the service now."""
        state = self._state(check.service, check.way)
        if state is None or state.turn != check.turn or not state.trying:
            return False
        state.trying = False
        known = self._known[check.service]
        # Whether other machines take connections is for `reach` to find, which has advice.
        aside = failure is not None and failure.kind is Kind.CLOSED and not failure.engine
        changed = False if aside and not _is_near(check.way, known.relay) else state.take(failure)
        pause = state.next_due(now, self.interval) - now
        state.due = now + pause * (0.9 + 0.2 * self._share(check.service, check.turn))
        self._plan(check.service, check.way, state)
        return changed

    def finding(self, service: Service, ways: tuple[Way, ...]) -> Finding:
        """ways: those of the service that are not known to be broken by anything else."""
        known = self._known.get(service.service)
        if known is None or not any(state.broken for state in known.states.values()):
            return Finding(ways)
        broken = {way: state.failure for way, state in known.states.items() if state.broken}
        failures = [failure for failure in broken.values() if failure is not None]
        if len(broken) == len(known.states) and any(failure.engine for failure in failures):
            left: tuple[Way, ...] = ()
        else:
            left = tuple(way for way in ways if way not in broken)
        if left or not ways:
            return Finding(left)
        told = {_name(way): failure.words for way, failure in broken.items() if failure is not None}
        return Finding((), "; ".join(f"{name}: {words}" for name, words in told.items()))

    def answering(self, service: str) -> bool:
        """Whether control asks it, and it answers."""
        known = self._known.get(service)
        states = () if known is None else tuple(known.states.values())
        return any(not state.broken and state.answers and not state.failures for state in states)

    def _askable(self, service: Service, relay: Relay | None, here: bool) -> tuple[Way, ...]:
        """The ways that control can take."""
        if service.hosted:
            return ()
        found = []
        for way in service.ways:
            leads = urls(way, relay)
            allowed = way.direct_url is not None or self._tls or not any(url.startswith("https:") for url in leads)
            if leads and allowed and (here or not _is_near(way, relay)):
                found.append(way)
        return tuple(found)

    def _state(self, service: str, way: Way) -> _State | None:
        known = self._known.get(service)
        return None if known is None else known.states.get(way)

    def _plan(self, service: str, way: Way, state: _State) -> None:
        self._turns += 1
        state.turn = self._turns
        heapq.heappush(self._due, (state.due, service, state.turn, way))

    @staticmethod
    def _share(service: str, turn: int) -> float:
        """From 0 to 1, other for each service and each turn: nobody is asked in step with the others."""
        return crc32(f"{service} {turn}".encode()) % 1000 / 1000


def _name(way: Way) -> str:
    return "by its relay" if way.direct_url is None else f"at {way.direct_url}"
