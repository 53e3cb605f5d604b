"""The conversation with control, as a state machine.

A stream is opened, greeted, welcomed; then the offer goes out whole at each change, and load and heartbeats at the
pace of the welcome; certificates are asked for as `renewal` says. What ends a stream decides what comes next, see
`talk`.

    WAITING --Retry--> OPENING --Welcome--> OPEN --Ended--> WAITING ... ENDED
"""

from enum import Enum, auto

from msgspec.structs import replace

from geniehive.rules.model import Inventory
from geniehive.rules.renewal import Renewal
from geniehive_node.core.talk import (
    NEXT,
    Accept,
    Believe,
    Certificate,
    CloseSide,
    Effect,
    Ended,
    Event,
    Goodbye,
    HangUp,
    Holding,
    Met,
    Moved,
    Offered,
    Open,
    Pace,
    Quit,
    Registered,
    RequestCertificate,
    Retry,
    Say,
    SendHeartbeat,
    SendLess,
    SendLoad,
    SendOffer,
    Stop,
    Stored,
    Tick,
    Trust,
    Unfit,
    Wait,
    Welcome,
    otherwise,
)

# Control answers a greeting at once, or something is wrong with it.
WELCOME_WITHIN = 10.0
# For control's answer to the last offer, when stopping.
FAREWELL_WITHIN = 1.0


class Phase(Enum):
    WAITING = auto()
    OPENING = auto()
    OPEN = auto()
    ENDED = auto()


class Session:
    """Changes through `handle` alone. `wake_at`: when to feed Tick, None for never.

    far: control is on another machine, and this node proves itself by its certificate.
    certify: a certificate is of use here, be it for control or for the relay.
    """

    def __init__(self, host_id: str, *, far: bool = False, certify: bool = False) -> None:
        self.host_id = host_id
        self._far = far
        self._renewal = Renewal(certify)
        self._cluster_id = ""
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
            case Trust():
                if self.phase is not Phase.OPEN:
                    return []
                self._renewal.told()
                return [Believe(ca_bundle=event.ca_bundle, revoked=event.revoked)]
            case Certificate():
                return [Accept(chain=event.chain, renew_after=event.renew_after)]
            case Holding():
                self._renewal.hold(event.held, now)
                return self._ask(now)
            case Unfit():
                return self._say("control sent a certificate that is none for this node's key; asking again later")
            case Moved():
                return self._moved(now)
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
        # A certificate speaks for its own name only, also after control gave another.
        return [Open(host_id=(self._renewal.name if self._far else None) or self.host_id)]

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
        self._cluster_id = event.cluster_id
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
        self._wait()
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
        effects += self._say(text, error=follows.pace is Pace.LONGEST)
        if follows.less:
            effects.append(SendLess())
        pace = follows.pace
        if pace is Pace.AT_ONCE and not was_registered:
            # Else a control that forgets us at once would be asked without a pause.
            pace = Pace.BACKOFF
        return [*effects, Wait(pace=pace, at_least=event.retry_after or 0.0)]

    def _say(self, text: str, error: bool = True) -> list[Effect]:
        """Once: control may be away for long."""
        if text in self._said:
            return []
        self._said.add(text)
        return [Say(text=text, error=error)]

    def _wait(self) -> None:
        self.phase = Phase.WAITING
        self.wake_at = None
        self._renewal.lost()

    def _moved(self, now: float) -> list[Effect]:
        # A stream to another machine is dead then, which it would find out only seconds later.
        if not self._far or self._stopping:
            return []
        if self.phase is Phase.WAITING:
            return self._open(now)
        self._wait()
        return [HangUp(), Wait(pace=Pace.AT_ONCE)]

    def _ask(self, now: float) -> list[Effect]:
        """For a certificate, if it is time."""
        if self.phase is not Phase.OPEN or self._closed_side or self._stopping:
            return []
        at = self._renewal.at(self._cluster_id, self.host_id)
        effects: list[Effect] = []
        if at is not None and now >= at:
            self._renewal.ask(now)
            effects.append(RequestCertificate(host_id=self.host_id))
        self._arm()
        return effects

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
        return [*effects, *self._ask(now)]

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
            ask_at = self._renewal.at(self._cluster_id, self.host_id)
            if ask_at is not None:
                self.wake_at = min(self.wake_at, ask_at)
