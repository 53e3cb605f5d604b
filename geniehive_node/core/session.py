"""The conversation with control, as a state machine.

A stream is opened, greeted, welcomed; then the offer goes out whole at each change, and load and heartbeats at the
pace of the welcome. What ends a stream decides what comes next: `NEXT` is that table, `otherwise` what holds for the
rest.

    WAITING --Retry--> OPENING --Welcome--> OPEN --Ended--> WAITING ... ENDED
"""

from enum import Enum, IntEnum, auto
from typing import NamedTuple

from msgspec.structs import replace

from geniehive.rules.model import Inventory, Value

# Control answers a greeting at once, or something is wrong with it.
WELCOME_WITHIN = 10.0
# For control's answer to the last offer, when stopping.
FAREWELL_WITHIN = 1.0


class Phase(Enum):
    WAITING = auto()
    OPENING = auto()
    OPEN = auto()
    ENDED = auto()


class Reason(IntEnum):
    """The reasons of the contract that a node tells apart; a test holds the numbers to it."""

    OTHER = 0
    CREDENTIAL_REFUSED = 1
    CREDENTIAL_REVOKED = 2
    SCOPE_MISSING = 3
    NOT_YOURS = 4
    SESSION_SUPERSEDED = 6
    SESSION_LOST = 7
    OUT_OF_ORDER = 8
    TOO_MUCH = 9
    CONTROL_UNAVAILABLE = 10
    STORE_UNAVAILABLE = 11
    NOT_SERVED = 31


class Pace(Enum):
    """How long to wait before the next stream; the shell draws the delay."""

    AT_ONCE = auto()
    BACKOFF = auto()
    LONGEST = auto()


class Exit(Enum):
    SUPERSEDED = auto()
    REFUSED = auto()
    USELESS = auto()


class Next(NamedTuple):
    """What follows the end of a stream. `exit` set: never again by itself."""

    pace: Pace = Pace.BACKOFF
    exit: Exit | None = None
    less: bool = False
    # For people: what happened, and what to do about it.
    what: str = "lost control"
    advice: str = ""


NEXT: dict[Reason, Next] = {
    Reason.CREDENTIAL_REFUSED: Next(Pace.LONGEST, what="control refused the node key"),
    Reason.CREDENTIAL_REVOKED: Next(exit=Exit.REFUSED, advice="this machine must join again"),
    Reason.SCOPE_MISSING: Next(exit=Exit.REFUSED, advice="the setting node_key must name a node's key"),
    Reason.NOT_YOURS: Next(exit=Exit.REFUSED, advice="this credential does not speak for this host_id"),
    Reason.SESSION_SUPERSEDED: Next(
        exit=Exit.SUPERSEDED, advice="if both are wanted, give each a host_id of its own (setting host_id)"
    ),
    Reason.SESSION_LOST: Next(Pace.AT_ONCE),
    Reason.OUT_OF_ORDER: Next(Pace.LONGEST, advice="this is a bug; please report it"),
    Reason.TOO_MUCH: Next(less=True),
    Reason.CONTROL_UNAVAILABLE: Next(),
    Reason.STORE_UNAVAILABLE: Next(),
    Reason.NOT_SERVED: Next(exit=Exit.USELESS, advice="is the setting control the address of a GenieHive control?"),
}


def otherwise(transient: bool) -> Next:
    """What follows a reason that is not in the table. `transient`: its status code is one that is tried again."""
    return Next(Pace.BACKOFF if transient else Pace.LONGEST)


# Events.


class Retry(Value, frozen=True):
    """The delay before the next stream is over; also the start."""


class Welcome(Value, frozen=True, kw_only=True):
    """Intervals in seconds."""

    session_id: str
    cluster_id: str
    host_id: str
    heartbeat_interval: float
    load_interval: float


class Stored(Value, frozen=True, kw_only=True):
    """Control's answer to an offer. `refused`: what was left out and why, in words."""

    revision: int
    refused: tuple[str, ...] = ()


class Goodbye(Value, frozen=True, kw_only=True):
    reconnect_after: float


class Ended(Value, frozen=True, kw_only=True):
    """The stream is over. `message` empty: closed in good order."""

    reason: Reason = Reason.OTHER
    transient: bool = True
    message: str = ""
    retry_after: float | None = None


class Offered(Value, frozen=True, kw_only=True):
    """There is something new to offer."""

    inventory: Inventory


class Tick(Value, frozen=True):
    """`wake_at` has come."""


class Stop(Value, frozen=True):
    """The daemon stops: what was offered last is to arrive, then the stream is to be closed."""


Event = Retry | Welcome | Stored | Goodbye | Ended | Offered | Tick | Stop


# Effects.


class Open(Value, frozen=True, kw_only=True):
    """Open a stream and greet."""

    host_id: str


class SendOffer(Value, frozen=True, kw_only=True):
    inventory: Inventory


class SendHeartbeat(Value, frozen=True):
    pass


class SendLoad(Value, frozen=True):
    """Take the figures and send them."""


class CloseSide(Value, frozen=True):
    """Nothing more will be sent; control ends the stream."""


class HangUp(Value, frozen=True):
    """Drop the stream at once."""


class Wait(Value, frozen=True, kw_only=True):
    """Then feed Retry. `at_least` in seconds."""

    pace: Pace
    at_least: float = 0.0


class Met(Value, frozen=True, kw_only=True):
    """Who control says we are. `renamed`: not who we said."""

    cluster_id: str
    host_id: str
    renamed: bool


class Registered(Value, frozen=True, kw_only=True):
    """The first offer of this session stands."""

    host_id: str


class SendLess(Value, frozen=True):
    """Make a smaller offer."""


class Say(Value, frozen=True, kw_only=True):
    text: str
    error: bool = False


class Quit(Value, frozen=True, kw_only=True):
    """It is over. `exit` None: as asked."""

    exit: Exit | None = None
    text: str = ""


Effect = (
    Open | SendOffer | SendHeartbeat | SendLoad | CloseSide | HangUp | Wait | Met | Registered | SendLess | Say | Quit
)


class Session:
    """Changes through `handle` alone. `wake_at`: when to feed Tick, None for never."""

    def __init__(self, host_id: str) -> None:
        self.host_id = host_id
        self.phase = Phase.WAITING
        self.wake_at: float | None = None
        self._offered: Inventory | None = None
        self._revision = 0
        self._unanswered: int | None = None
        self._registered = False
        self._heartbeat_interval = 0.0
        self._load_interval = 0.0
        self._last_sent = 0.0
        self._next_load = 0.0
        self._goodbye: float | None = None
        self._stopping = False
        self._closed_side = False
        self._said: set[str] = set()
        self._complaints: tuple[str, ...] = ()

    def handle(self, event: Event, now: float) -> list[Effect]:
        if self.phase is Phase.ENDED:
            return []
        match event:
            case Retry():
                return self._open(now)
            case Welcome():
                return self._welcome(event, now)
            case Stored():
                return self._stored(event)
            case Goodbye():
                self._goodbye = event.reconnect_after
                return []
            case Ended():
                return self._ended(event)
            case Offered():
                self._offered = event.inventory
                return self._send_offer(now) if self.phase is Phase.OPEN else []
            case Tick():
                return self._tick(now)
            case Stop():
                return self._stop(now)

    def _open(self, now: float) -> list[Effect]:
        if self.phase is not Phase.WAITING:
            return []
        self.phase = Phase.OPENING
        self.wake_at = now + WELCOME_WITHIN
        self._revision = 0
        self._unanswered = None
        self._registered = False
        self._goodbye = None
        return [Open(host_id=self.host_id)]

    def _welcome(self, event: Welcome, now: float) -> list[Effect]:
        if self.phase is not Phase.OPENING:
            return []
        self.phase = Phase.OPEN
        self._heartbeat_interval = event.heartbeat_interval
        self._load_interval = event.load_interval
        self._last_sent = now
        self._next_load = now + event.load_interval
        renamed = event.host_id != self.host_id
        self.host_id = event.host_id
        # Who learns of the name answers with an offer under it, if the name is new.
        effects: list[Effect] = [Met(cluster_id=event.cluster_id, host_id=event.host_id, renamed=renamed)]
        if not renamed and self._offered is not None:
            effects += self._send_offer(now)
        self._arm()
        return effects

    def _send_offer(self, now: float) -> list[Effect]:
        assert self._offered is not None
        if self._closed_side or self._offered.host.host_id != self.host_id:
            return []
        self._revision += 1
        self._unanswered = self._revision
        self._sent(now)
        return [SendOffer(inventory=replace(self._offered, revision=self._revision))]

    def _stored(self, event: Stored) -> list[Effect]:
        effects: list[Effect] = []
        if event.refused and event.refused != self._complaints:
            effects += [Say(text=f"control left out of the offer: {text}", error=True) for text in event.refused]
        self._complaints = event.refused
        if self._unanswered is not None and event.revision >= self._unanswered:
            self._unanswered = None
        if not self._registered:
            self._registered = True
            self._said.clear()
            effects.append(Registered(host_id=self.host_id))
        if self._stopping and self._unanswered is None:
            effects += self._close_side()
        return effects

    def _ended(self, event: Ended) -> list[Effect]:
        if self.phase is Phase.WAITING:
            return []
        was_registered = self._registered
        self.phase = Phase.WAITING
        self.wake_at = None
        if self._stopping:
            return self._quit(Quit())
        follows = NEXT.get(event.reason) or otherwise(event.transient)
        advice = f"; {follows.advice}" if follows.advice else ""
        if follows.exit is not None:
            return self._quit(Quit(exit=follows.exit, text=f"{event.message}{advice}"))
        effects: list[Effect] = []
        if self._goodbye is not None:
            effects.append(Say(text="control said goodbye; coming back when it does"))
            return [*effects, Wait(pace=Pace.BACKOFF, at_least=self._goodbye)]
        text = f"{follows.what}: {event.message or 'it closed the stream'}{advice}"
        if text not in self._said:
            # Once: control may be away for long.
            self._said.add(text)
            effects.append(Say(text=text, error=follows.pace is Pace.LONGEST))
        if follows.less:
            effects.append(SendLess())
        pace = follows.pace
        if pace is Pace.AT_ONCE and not was_registered:
            # Else a control that forgets us at once would be asked without a pause.
            pace = Pace.BACKOFF
        return [*effects, Wait(pace=pace, at_least=event.retry_after or 0.0)]

    def _tick(self, now: float) -> list[Effect]:
        if self.wake_at is None or now < self.wake_at:
            return []
        if self.phase is Phase.OPENING:
            return [HangUp(), *self._ended(Ended(message=f"no welcome within {WELCOME_WITHIN:g} s"))]
        if self.phase is not Phase.OPEN:
            return []
        if self._stopping:
            return [HangUp(), *self._quit(Quit())]
        effects: list[Effect] = []
        if now >= self._next_load:
            # From now on, not from when it was due: a machine that slept owes nothing.
            self._next_load = now + self._load_interval
            effects.append(SendLoad())
            self._sent(now)
        elif now >= self._last_sent + self._heartbeat_interval:
            effects.append(SendHeartbeat())
            self._sent(now)
        self._arm()
        return effects

    def _stop(self, now: float) -> list[Effect]:
        if self._stopping:
            return []
        self._stopping = True
        if self.phase is not Phase.OPEN:
            return [HangUp(), *self._quit(Quit())]
        self.wake_at = now + FAREWELL_WITHIN
        return self._close_side() if self._unanswered is None else []

    def _close_side(self) -> list[Effect]:
        if self._closed_side:
            return []
        self._closed_side = True
        return [CloseSide()]

    def _quit(self, quit_: Quit) -> list[Effect]:
        self.phase = Phase.ENDED
        self.wake_at = None
        return [quit_]

    def _sent(self, now: float) -> None:
        self._last_sent = now
        self._arm()

    def _arm(self) -> None:
        if self.phase is Phase.OPEN and not self._stopping:
            self.wake_at = min(self._next_load, self._last_sent + self._heartbeat_interval)
