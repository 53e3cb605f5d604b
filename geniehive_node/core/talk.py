"""What is said between a node and control: what happens, what is to be done about it, and what ends a stream.

`NEXT` is the table of what follows the end of a stream, `otherwise` what holds for the rest.
"""

from enum import Enum, IntEnum, auto
from typing import NamedTuple

from geniehive.rules.model import Inventory, Value
from geniehive.rules.renewal import Held


class Reason(IntEnum):
    """The reasons of the contract that a node tells apart; a test holds the numbers to it.

    Below zero: what a node finds out by itself.
    """

    CERTIFICATE_EXPIRED = -1
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


_LINE = "geniehive join HOST:PORT --token TOKEN (a token comes from geniehive tokens create, at control)"

NEXT: dict[Reason, Next] = {
    Reason.CERTIFICATE_EXPIRED: Next(exit=Exit.REFUSED, advice=f"join again: {_LINE}"),
    Reason.CREDENTIAL_REFUSED: Next(Pace.LONGEST, what="control refused what this node proves itself with"),
    Reason.CREDENTIAL_REVOKED: Next(exit=Exit.REFUSED, advice=f"to come back: {_LINE}"),
    Reason.SCOPE_MISSING: Next(exit=Exit.REFUSED, advice="the setting node_key must name a node's key"),
    Reason.NOT_YOURS: Next(
        exit=Exit.REFUSED,
        advice="this credential does not speak for this host_id; choose another, or, if this machine had it before by "
        "other means, have control forget the old one: geniehive hosts forget HOST",
    ),
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


class Trust(Value, frozen=True, kw_only=True):
    """Whom to believe: a CA in PEM, but for these serials."""

    ca_bundle: bytes
    revoked: frozenset[str] = frozenset()


class Certificate(Value, frozen=True, kw_only=True):
    """The answer to a request. renew_after: in seconds."""

    chain: bytes
    renew_after: float


class Holding(Value, frozen=True, kw_only=True):
    """What certificate there is now; first of all, and after each Believe and Accept."""

    held: Held | None


class Unfit(Value, frozen=True):
    """The certificate that came is none for our key."""


class Moved(Value, frozen=True):
    """This machine has another address, or a way to control again."""


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


Event = (
    Retry | Welcome | Stored | Trust | Certificate | Holding | Unfit | Moved | Goodbye | Ended | Offered | Tick | Stop
)


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


class RequestCertificate(Value, frozen=True, kw_only=True):
    """For a new key, in this name."""

    host_id: str


class Believe(Value, frozen=True, kw_only=True):
    """Then feed Holding."""

    ca_bundle: bytes
    revoked: frozenset[str]


class Accept(Value, frozen=True, kw_only=True):
    """Take the certificate, then feed Holding, or Unfit."""

    chain: bytes
    renew_after: float


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
    Open
    | SendOffer
    | SendHeartbeat
    | SendLoad
    | RequestCertificate
    | Believe
    | Accept
    | CloseSide
    | HangUp
    | Wait
    | Met
    | Registered
    | SendLess
    | Say
    | Quit
)
