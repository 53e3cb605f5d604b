"""What can happen while endpoints are asked for one request, and what follows: the events and effects of `attempt`.

Whoever does the asking says the one and does the other.
"""

import msgspec

from gateway.core.admission import Ticket
from gateway.core.errors import ApiError
from gateway.core.plan import Choice

FAILURES = frozenset({502, 503, 504})
BUSY = frozenset({429, 529})
# Answers with these are read whole before it is decided what becomes of them.
RETRIED_STATUSES = FAILURES | BUSY

# Words of a relay that mean: the engine can't be reached by this lane now. They eject it.
UNREACHABLE = frozenset({"unauthorized", "unknown-service", "connect-failed", "stopping"})
# And these say nothing of the engine.
NOT_THE_ENGINES = frozenset({"bad-request", "busy", "path-not-allowed"})


# Events.


class Start(msgspec.Struct, frozen=True, gc=False):
    """The request is there, and nothing has been tried."""


class ConnectFailed(msgspec.Struct, frozen=True, gc=False):
    """No connection; nothing was sent."""

    reason: str


class Lost(msgspec.Struct, frozen=True, gc=False):
    """The connection ended, or the upstream spoke no HTTP, before an answer was complete enough to pass on."""

    reason: str


class TimedOut(msgspec.Struct, frozen=True, gc=False):
    """No answer in time."""

    reason: str


class Answered(msgspec.Struct, frozen=True, gc=False):
    """The head of an answer is there.

    Of those with RETRIED_STATUSES: reason: what it says. loading: that the model is being loaded. retry_after: its
    header, in seconds.
    """

    status: int
    reason: str = ""
    loading: bool = False
    retry_after: int | None = None


class RelayRefused(msgspec.Struct, frozen=True, gc=False):
    """The answer is the relay's own: it could not ask the engine. word: as its header says."""

    word: str
    reason: str


class Broke(msgspec.Struct, frozen=True, gc=False):
    """An answer broke off after bytes of it went to the client. events: it is a stream of events."""

    reason: str
    events: bool
    late: bool = False


class Woken(msgspec.Struct, frozen=True, gc=False):
    """The ticket got a turn, or the time of the wait is over."""


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The request is over. whole: the answer was passed on to its end; else it failed, or the client left."""

    whole: bool = False


Event = Start | ConnectFailed | Lost | TimedOut | Answered | RelayRefused | Broke | Woken | Ended


# Effects.


class Try(msgspec.Struct, frozen=True, gc=False):
    """Ask `choice`; tell what became of it. number: from 1."""

    choice: Choice
    number: int


class Wait(msgspec.Struct, frozen=True, gc=False):
    """Wait so long, but not longer than until the ticket gets a turn."""

    seconds: float
    ticket: Ticket | None = None


class Forward(msgspec.Struct, frozen=True, gc=False):
    """Pass the answer on."""


class Fail(msgspec.Struct, frozen=True, gc=False):
    """Answer with this error."""

    error: ApiError


class FailInStream(msgspec.Struct, frozen=True, gc=False):
    """Send this error as an event, and close."""

    error: ApiError


class Abort(msgspec.Struct, frozen=True, gc=False):
    """Break the client's connection: nothing else tells that the answer is not whole."""


class Nothing(msgspec.Struct, frozen=True, gc=False):
    """There is nothing to do."""


Effect = Try | Wait | Forward | Fail | FailInStream | Abort | Nothing

START, WOKEN, ENDED, SERVED, FORWARD = Start(), Woken(), Ended(), Ended(True), Forward()
ABORT, NOTHING = Abort(), Nothing()
