"""One request, from its first try to its end.

    waiting --Start--> trying --Answered--> forwarding --Ended--> done
                       trying --a failure--> trying another endpoint, or done

A failure is answered by another endpoint as long as no byte went to the client, the budget allows it, and an endpoint
is left that this request has not tried. A lane that takes no connection gives way to the same endpoint's next lane
first, which is no retry: nobody has worked yet.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from gateway.core import errors
from gateway.core.balance import Balance, Choice
from gateway.core.budget import RetryBudget
from gateway.core.errors import ApiError, Tried
from gateway.core.plan import Lane, Plan

RETRIED_STATUSES = frozenset({502, 503, 504})

# Words of a relay that mean: the engine can't be reached by this lane now. They eject it.
_UNREACHABLE = frozenset({"unauthorized", "unknown-service", "connect-failed", "stopping"})


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
    """The head of an answer is there. reason: what it says, for statuses that may be retried."""

    status: int
    reason: str = ""


class RelayRefused(msgspec.Struct, frozen=True, gc=False):
    """The answer is the relay's own: it could not ask the engine. word: as its header says."""

    word: str
    reason: str


class Broke(msgspec.Struct, frozen=True, gc=False):
    """An answer broke off after bytes of it went to the client. events: it is a stream of events."""

    reason: str
    events: bool
    late: bool = False


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The request is over: answered, or the client left."""


Event = Start | ConnectFailed | Lost | TimedOut | Answered | RelayRefused | Broke | Ended


# Effects.


class Try(msgspec.Struct, frozen=True, gc=False):
    """Ask `choice`; tell what became of it. number: from 1."""

    choice: Choice
    number: int


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


Effect = Try | Forward | Fail | FailInStream | Abort | Nothing

START, ENDED, FORWARD = Start(), Ended(), Forward()
_ABORT, _NOTHING = Abort(), Nothing()


class Attempt:
    """model: the name as the client wrote it."""

    __slots__ = ("_balance", "_budget", "_lanes", "_model", "_plan", "_state", "_tried", "choice", "failures", "number")

    def __init__(self, model: str, plan: Plan, balance: Balance, budget: RetryBudget) -> None:
        # What is being asked, or was asked last.
        self.choice: Choice | None = None
        self.number = 0
        self.failures: list[Tried] = []
        self._model = model
        self._plan = plan
        self._balance = balance
        self._budget = budget
        self._state: _State = WAITING
        self._tried: set[str] = set()
        self._lanes: tuple[Lane, ...] = ()

    def handle(self, event: Event, now: float) -> Effect:
        """What to do next. KeyError for an event that can't be in this state, which is a bug of the caller."""
        return self._state[type(event)](self, event, now)

    @property
    def state(self) -> str:
        return next(name for name, state in STATES.items() if state is self._state)

    def _started(self, event: Start, now: float) -> Effect:
        self._budget.request(now)
        return self._next(now) or self._fail(now)

    def _ended(self, event: Ended, now: float) -> Effect:
        self._leave()
        self._state = DONE
        return _NOTHING

    def _connect_failed(self, event: ConnectFailed, now: float) -> Effect:
        return self._unreachable(event.reason, now)

    def _lost(self, event: Lost, now: float) -> Effect:
        return self._failed("broke", event.reason, now)

    def _timed_out(self, event: TimedOut, now: float) -> Effect:
        return self._failed("late", event.reason, now)

    def _answered(self, event: Answered, now: float) -> Effect:
        choice = self._chosen()
        self._balance.ejections.succeeded(choice.lane)
        if event.status in RETRIED_STATUSES:
            said = f"answered {event.status}" + (f": {event.reason}" if event.reason else "")
            self._note("late" if event.status == 504 else "broke", said)
            if retry := self._retry(now):
                return retry
        self._state = FORWARDING
        return FORWARD

    def _refused(self, event: RelayRefused, now: float) -> Effect:
        if event.word in _UNREACHABLE:
            return self._unreachable(event.reason, now)
        self._balance.ejections.succeeded(self._chosen().lane)
        return self._failed("late" if event.word == "timeout" else "broke", event.reason, now)

    def _unreachable(self, reason: str, now: float) -> Effect:
        choice = self._chosen()
        self._balance.ejections.failed(choice.lane, now)
        self._lanes = (*self._lanes, choice.lane)
        other = self._balance.open_lane(choice.candidate, self._lanes, now)
        if other is not None:
            return self._try(Choice(choice.candidate, other, choice.label), now)
        return self._failed("unreachable", reason, now)

    def _failed(self, kind: str, reason: str, now: float) -> Effect:
        self._note(kind, reason)
        return self._retry(now) or self._fail(now)

    def _broke(self, event: Broke, now: float) -> Effect:
        name = self._chosen().candidate.name
        self._leave()
        self._state = DONE
        return FailInStream(errors.cut(name, event.reason, event.late)) if event.events else _ABORT

    def _retry(self, now: float) -> Try | None:
        """Another endpoint, if there is one and the budget has a retry left."""
        if all(c.endpoint in self._tried for tier in self._plan.tiers for c in tier.candidates):
            return None
        return self._next(now) if self._budget.retry(now) else None

    def _next(self, now: float) -> Try | None:
        choice = self._balance.choose(self._plan, self._tried, now)
        if choice is None:
            return None
        self._tried.add(choice.candidate.endpoint)
        self._lanes = ()
        return self._try(choice, now)

    def _try(self, choice: Choice, now: float) -> Try:
        self._leave()
        self.choice = choice
        self.number += 1
        self._state = TRYING
        self._balance.started(choice, now)
        return Try(choice, self.number)

    def _fail(self, now: float) -> Fail:
        self._leave()
        self._state = DONE
        wait = self._balance.opens_in(self._plan, now)
        return Fail(errors.unserved(self._model, self.failures, self._plan.unusable, wait))

    def _leave(self) -> None:
        if self._state is TRYING or self._state is FORWARDING:
            self._balance.ended(self._chosen())

    def _note(self, kind: str, reason: str) -> None:
        self.failures.append(Tried(self._chosen().candidate.name, kind, reason))

    def _chosen(self) -> Choice:
        assert self.choice is not None
        return self.choice


_State = Mapping[type[Any], Callable[[Attempt, Any, float], Effect]]

# What each state takes, and what it does then.
WAITING: _State = {Start: Attempt._started, Ended: Attempt._ended}
TRYING: _State = {
    Answered: Attempt._answered,
    ConnectFailed: Attempt._connect_failed,
    RelayRefused: Attempt._refused,
    Lost: Attempt._lost,
    TimedOut: Attempt._timed_out,
    Ended: Attempt._ended,
}
FORWARDING: _State = {
    # The first two: of an answer that is collected whole, so that the client has seen nothing of it.
    Lost: Attempt._lost,
    TimedOut: Attempt._timed_out,
    Broke: Attempt._broke,
    Ended: Attempt._ended,
}
DONE: _State = {Ended: Attempt._ended}
STATES = {"waiting": WAITING, "trying": TRYING, "forwarding": FORWARDING, "done": DONE}


def tried_names(failures: Sequence[Tried]) -> str:
    """For logs."""
    return "; ".join(f"{t.name}: {t.reason}" for t in failures)
