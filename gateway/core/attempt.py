"""One request, from its first try to its end.

    new --Start--> trying --Answered--> forwarding --Ended--> done
                   trying --a failure--> trying another endpoint, or done
    new, trying --every endpoint is at its limit--> queued --a turn--> trying
                                                    queued --none in time--> done
    new, trying --the model is being loaded, and nobody else has it--> pausing --> trying

A failure is answered by another endpoint as long as no byte went to the client, the body can be sent again, the budget
allows it, and an endpoint is left that this request has not tried. A lane that takes no connection gives way to the
same endpoint's next lane first, which is no retry: nobody has worked yet.

What an answer's status means:

    502, 503, 504  a failure: the engine, or something before it, is not well
    503, loading   no failure, but another endpoint first, whatever the budget; then the same again, for as long as an
                   answer may take to begin
    429, 529       no failure, but another endpoint first; if there is none the answer passes with its Retry-After
    other 4xx      the client's own fault: passes
    500 and above  passes: engines answer bad requests so too, and can't be told apart. Counts against nobody's health
"""

from collections.abc import Callable, Mapping
from typing import Any

from gateway.core import errors, gates
from gateway.core.admission import Ticket
from gateway.core.balance import Balance, Full, RouteLoad
from gateway.core.budget import RetryBudget
from gateway.core.errors import ApiError, Tried, tried_names
from gateway.core.flight import Flight
from gateway.core.gates import PassedOver
from gateway.core.needs import Needs
from gateway.core.outcome import Ending, Failed, Tokens
from gateway.core.plan import Choice, Lane, Plan, Unusable
from gateway.core.trying import (
    ABORT,
    BUSY,
    FORWARD,
    NOT_THE_ENGINES,
    NOTHING,
    RETRIED_STATUSES,
    UNREACHABLE,
    Answered,
    Broke,
    ConnectFailed,
    Effect,
    Ended,
    Event,
    Fail,
    FailInStream,
    Lost,
    RelayRefused,
    Start,
    TimedOut,
    Try,
    Wait,
    Woken,
)
from geniehive.rules.operations import Operation

# Seconds until an engine that loads the model is asked again: the first time, and the longest.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 2.0

# From what people are told of a failure to what is counted of it.
_COUNTED = {"unreachable": "connect", "broke": "upstream", "late": "timeout", "busy": "refused", "loading": "loading"}


class Attempt:
    """model: the name as the client wrote it. patience: seconds that a model may take to load; None: no limit. needs:
    of the request, as far as its plan makes a difference of them; None: it does not.

    What the request's record needs is here at its end: `choice` is what was asked last, `number` how often an endpoint
    was asked, `failed` every time that this did not serve, the last included.
    """

    __slots__ = (
        "_ask", "_asked", "_balance", "_budget", "_full", "_lanes", "_load", "_loading", "_model",
        "_operation", "_patience", "_pause", "_since", "_state", "_ticket", "_tried", "_turn", "_wait_began", "choice",
        "ending", "failed", "failures", "flight", "number", "over", "plan", "replayable", "retry_after", "status",
        "tokens", "waited",
    )  # fmt: skip

    def __init__(
        self,
        model: str,
        operation: Operation,
        plan: Plan,
        balance: Balance,
        budget: RetryBudget,
        patience: float | None = None,
        needs: Needs | None = None,
    ) -> None:
        # What is being asked, or was asked last.
        self.choice: Choice | None = None
        self.number = 0
        self.failures: tuple[Tried, ...] = ()
        self.failed: tuple[Failed, ...] = ()
        # Until something else is known: whoever waits for nothing has left.
        self.ending = Ending.CANCELLED
        # Of the engine's answer that was passed on; 0: none was.
        self.status = 0
        # As the engine told; to be set before the end.
        self.tokens: Tokens | None = None
        # At the endpoint that was asked last.
        self.flight: Flight | None = None
        # Seconds for a turn.
        self.waited = 0.0
        # The client's body can be sent once more. To be set by whoever sends it.
        self.replayable = True
        # As the last engine that was busy said.
        self.retry_after: int | None = None
        # Who can serve, as far as is known.
        self.plan = plan
        # Who of the plan can't serve it.
        self.over: tuple[PassedOver, ...] = ()
        self._model = model
        self._operation = operation
        self._balance = balance
        self._budget = budget
        self._patience = patience
        self._state: _State = NEW
        self._ask = needs.ask if needs is not None else None
        # Who has been asked, or can't serve what is asked for.
        self._tried: set[str] = set()
        self._lanes: tuple[Lane, ...] = ()
        # The turn that is held, to be given back; and when it was taken.
        self._turn: Flight | None = None
        self._asked = 0.0
        self._since = 0.0
        self._load: RouteLoad | None = None
        self._full: Full | None = None
        self._ticket: Ticket | None = None
        self._wait_began = 0.0
        self._loading: tuple[str, ...] = ()
        self._pause = FIRST_PAUSE
        if needs is not None:
            self._pass_over(needs)

    def began(self, now: float) -> None:
        """The first piece of an answer that comes in pieces is there."""
        if self._turn is not None:
            self._turn.first(now)

    def renew(self, plan: Plan, needs: Needs | None = None) -> None:
        """Who can serve by now, and what that plan makes of the request. To be told before an event is."""
        self.plan = plan
        self._ask = needs.ask if needs is not None else None
        if self.over:
            self._tried.difference_update(one.candidate.endpoint for one in self.over)
            self.over = ()
        if needs is not None:
            self._pass_over(needs)

    def _pass_over(self, needs: Needs) -> None:
        self.over = gates.passed_over(self.plan, needs)
        if self.over:
            self._tried.update(one.candidate.endpoint for one in self.over)

    def handle(self, event: Event, now: float) -> Effect:
        """What to do next. KeyError for an event that can't be in this state, which is a bug of the caller."""
        return self._state[type(event)](self, event, now)

    @property
    def state(self) -> str:
        return next(name for name, state in STATES.items() if state is self._state)

    def _started(self, event: Start, now: float) -> Effect:
        self._since = now
        self._budget.request(now)
        self._load = load = self._balance.route(self._model, self._operation)
        load.in_flight += 1
        return self._next(now) or self._hope(now) or self._fail(now)

    def _ended(self, event: Ended, now: float) -> Effect:
        if event.whole and self._state is FORWARDING:
            if self.status < 400:
                self.ending = Ending.OK
                ejections = self._balance.ejections
                if ejections.out or ejections.struck:
                    ejections.served(self._chosen().candidate.endpoint)
                self._leave(now, now - self._asked, True)
            else:
                self.ending = Ending.REFUSED if self.status < 500 else Ending.FAILED
                if self.status not in RETRIED_STATUSES:
                    self._count("refused")
                self._leave(now, now - self._asked)
        else:
            self._leave(now)
        self._state = DONE
        load, self._load = self._load, None
        if load is not None:
            load.in_flight -= 1
        return NOTHING

    def _left_waiting(self, event: Ended, now: float) -> Effect:
        self._stop_waiting(now)
        return self._ended(event, now)

    def _connect_failed(self, event: ConnectFailed, now: float) -> Effect:
        return self._unreachable(event.reason, now)

    def _lost(self, event: Lost, now: float) -> Effect:
        self._strike(now)
        return self._failed("broke", event.reason, now)

    def _timed_out(self, event: TimedOut, now: float) -> Effect:
        self._strike(now)
        return self._failed("late", event.reason, now)

    def _answered(self, event: Answered, now: float) -> Effect:
        if self._balance.ejections.out:
            self._balance.ejections.succeeded(self._chosen().lane)
        self.status = event.status
        if event.status >= 400 and (effect := self._erred(event, now)) is not None:
            return effect
        self._state = FORWARDING
        return FORWARD

    def _erred(self, event: Answered, now: float) -> Effect | None:
        """What to do instead of passing it on."""
        status = event.status
        if status not in RETRIED_STATUSES:
            return None
        said = f"answered {status}" + (f": {event.reason}" if event.reason else "")
        if event.loading:
            overdue = self._patience is not None and now >= self._since + self._patience
            self._note("late" if overdue else "loading", said)
            self._leave(now)
            if not self.replayable:
                return None
            self._loading += (self._chosen().candidate.endpoint,)
            # An engine that loads has done no work yet, so that asking another burdens nobody: this is free.
            return self._next(now) or self._hope(now) or self._fail(now)
        self._note("busy" if status in BUSY else "late" if status == 504 else "broke", said)
        if status in BUSY:
            self.retry_after = event.retry_after
        else:
            self._strike(now)
        # It has been read whole: whoever waits for the turn can have it.
        self._leave(now)
        return self._retry(now) or (self._hope(now) or self._fail(now) if self._loading else None)

    def _refused(self, event: RelayRefused, now: float) -> Effect:
        if event.word in UNREACHABLE:
            return self._unreachable(event.reason, now)
        self._balance.ejections.succeeded(self._chosen().lane)
        if event.word not in NOT_THE_ENGINES:
            self._strike(now)
        return self._failed("late" if event.word == "timeout" else "broke", event.reason, now)

    def _unreachable(self, reason: str, now: float) -> Effect:
        choice = self._chosen()
        self._balance.ejections.failed(choice.lane, now)
        self._lanes = (*self._lanes, choice.lane)
        other = self._balance.open_lane(choice.candidate, self._lanes, now) if self.replayable else None
        if other is None:
            return self._failed("unreachable", reason, now)
        # The turn is kept: whoever waits for one gets it when this endpoint has been asked.
        self.choice = Choice(choice.candidate, other, choice.label)
        assert self._turn is not None
        self._balance.moved(self._turn, self.choice, now)
        self.number += 1
        return Try(self.choice, self.number)

    def _failed(self, kind: str, reason: str, now: float) -> Effect:
        self.status = 0
        self._note(kind, reason)
        self._leave(now)
        return self._retry(now) or self._hope(now) or self._fail(now)

    def _broke(self, event: Broke, now: float) -> Effect:
        self._count("cut")
        self._strike(now)
        self._leave(now)
        self._state = DONE
        self.ending = Ending.FAILED
        if not event.events:
            return ABORT
        return FailInStream(errors.cut(self._chosen().candidate.name, event.reason, event.late))

    def _retry(self, now: float) -> Try | Wait | None:
        """Another endpoint, if there is one and the budget has a retry left."""
        if not self.replayable:
            return None
        left = any(c.endpoint not in self._tried for tier in self.plan.tiers for c in tier.candidates)
        return self._next(now) if left and self._budget.retry(now) else None

    def _next(self, now: float) -> Try | Wait | None:
        chosen = self._balance.choose(self.plan, self._tried, now, self._ask)
        if chosen is None:
            return None
        if isinstance(chosen, Full):
            return self._queue(chosen, now)
        return self._try(self._balance.started(chosen, now, self._ask), now)

    def _try(self, flight: Flight, now: float) -> Try:
        """With a turn that has been taken."""
        choice = flight.choice
        self._tried.add(choice.candidate.endpoint)
        self._lanes = ()
        self._full = None
        self.choice = choice
        self.flight = self._turn = flight
        self._asked = now
        self.number += 1
        self._state = TRYING
        return Try(choice, self.number)

    def _queue(self, full: Full, now: float) -> Wait | None:
        self._full = full
        admission = self._balance.admission
        ticket = Ticket(self.plan, self._tried, full.pools, self._ask)
        if not admission.enqueue(ticket):
            return None
        self._ticket = ticket
        self._start_waiting(QUEUED, now)
        return Wait(admission.wait, ticket)

    def _hope(self, now: float) -> Wait | None:
        """A pause, if somebody loads the model and there is time left."""
        if not self.replayable or not self._is_loading():
            return None
        seconds = self._pause
        if self._patience is not None:
            seconds = min(seconds, self._since + self._patience - now)
            if seconds <= 0:
                return None
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        self._start_waiting(PAUSING, now)
        return Wait(seconds)

    def _start_waiting(self, state: "_State", now: float) -> None:
        self._state = state
        self._wait_began = now
        if self._load is not None:
            self._load.in_flight -= 1
            self._load.waiting += 1

    def _stop_waiting(self, now: float) -> Flight | None:
        """The turn that came, if one did."""
        if self._load is not None:
            self._load.in_flight += 1
            self._load.waiting -= 1
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            return None
        self.waited += now - self._wait_began
        if ticket.flight is None:
            self._balance.admission.withdraw(ticket)
        self._turn = ticket.flight
        return ticket.flight

    def _turn_came(self, event: Woken, now: float) -> Effect:
        flight = self._stop_waiting(now)
        if flight is not None:
            return self._try(flight, now)
        chosen = self._balance.choose(self.plan, self._tried, now, self._ask)
        if isinstance(chosen, Choice):
            return self._try(self._balance.started(chosen, now, self._ask), now)
        return self._fail(now)

    def _pause_over(self, event: Woken, now: float) -> Effect:
        self._stop_waiting(now)
        # All who load are asked once more, and each is told of once.
        self._tried.difference_update(self._loading)
        self._loading = ()
        self.failures = tuple(tried for tried in self.failures if tried.kind != "loading")
        return self._next(now) or self._hope(now) or self._fail(now)

    def _is_loading(self) -> bool:
        return bool(self._loading) or any(unusable.loading for unusable in self.plan.unusable)

    def _fail(self, now: float) -> Fail:
        self._state = DONE
        self.ending = Ending.FAILED if self.failed and self._full is None else Ending.UNSERVED
        if self._full is not None:
            return Fail(self._saturated(self._full))
        if self._is_loading():
            return Fail(errors.loading(self._model, self.failures, self._unusable, LONGEST_PAUSE))
        if any(tried.kind == "busy" for tried in self.failures):
            return Fail(errors.busy(self._model, self.failures, self.retry_after))
        wait = self._balance.opens_in(self.plan, now)
        return Fail(errors.unserved(self._model, self.failures, self._unusable, wait))

    @property
    def _unusable(self) -> tuple[Unusable, ...]:
        return self.plan.unusable + tuple(Unusable(one.candidate.name, one.reason) for one in self.over)

    def _saturated(self, full: Full) -> ApiError:
        admission = self._balance.admission
        reason = "; ".join(f"{p.name} has {admission.running(p)} of {p.limit}" for p in dict.fromkeys(full.pools))
        if self.waited:
            reason += f", and none ended within {self.waited:.3g} s (limits.wait)"
        elif admission.wait > 0:
            reason += f", and {admission.waiting} requests wait already (limits.waiting)"
        if self.failures:
            reason += f". Asked before: {tried_names(self.failures)}"
        return errors.saturated(self._model, reason, admission.free_in(full.pools))

    def _leave(self, now: float, seconds: float | None = None, ok: bool = False) -> None:
        """seconds: that it took to be answered to the end. ok: that was with success."""
        turn, self._turn = self._turn, None
        if turn is not None:
            self._balance.ended(turn, now, seconds, self.tokens, ok)

    def _strike(self, now: float) -> None:
        """It took the request, and failed."""
        self._balance.ejections.strike(self._chosen().candidate.endpoint, now)

    def _note(self, kind: str, reason: str) -> None:
        self.failures = (*self.failures, Tried(self._chosen().candidate.name, kind, reason))
        self._count(_COUNTED[kind])

    def _count(self, kind: str) -> None:
        self.failed = (*self.failed, Failed(self._chosen().candidate.endpoint, kind))

    def _chosen(self) -> Choice:
        assert self.choice is not None
        return self.choice


_State = Mapping[type[Any], Callable[[Attempt, Any, float], Effect]]

# What each state takes, and what it does then.
NEW: _State = {Start: Attempt._started, Ended: Attempt._ended}
QUEUED: _State = {Woken: Attempt._turn_came, Ended: Attempt._left_waiting}
PAUSING: _State = {Woken: Attempt._pause_over, Ended: Attempt._left_waiting}
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
STATES = {
    "new": NEW, "queued": QUEUED, "pausing": PAUSING, "trying": TRYING, "forwarding": FORWARDING, "done": DONE,
}  # fmt: skip
