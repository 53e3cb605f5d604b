"""One call: endpoints asked in turn, until an answer can be passed on."""

import asyncio
import logging
from collections.abc import AsyncIterable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from gateway.core import errors, foreign, needs
from gateway.core.api import ApiCall
from gateway.core.attempt import Attempt
from gateway.core.body import Named
from gateway.core.needs import Needs
from gateway.core.plan import Plan
from gateway.core.shape import Shaper, Unshapeable
from gateway.core.trying import (
    ENDED,
    RETRIED_STATUSES,
    SERVED,
    START,
    WOKEN,
    Answered,
    Effect,
    Event,
    Fail,
    Forward,
    Lost,
    RelayRefused,
    Try,
    Wait,
)
from gateway.http.exchange import Exchange, Refusal
from gateway.http.passing import ERROR_LIMIT, Held, Passing
from gateway.patience import Patience
from gateway.upstream import failure, relay_error
from geniehive.kit.http1 import HeaderLines, HttpError, Response

if TYPE_CHECKING:
    from gateway.http.calls import Calls

log = logging.getLogger(__name__)

# An error is read whole, but not for long, since another endpoint may be waiting.
_ERROR_SECONDS = 5.0
# What engines answer that don't know the question for usage; and how they speak of it.
_NOT_UNDERSTOOD = frozenset({400, 422})
_QUESTION = (b"stream_options", b"include_usage")


# What only counts tokens need fit nowhere.
_COUNTING = "/v1/messages/count_tokens"


class Content(Protocol):
    """What a client sent, as engines are to get it."""

    @property
    def model(self) -> str:
        """The name in it."""

    @property
    def replayable(self) -> bool:
        """Whether all of it can be sent once more."""

    def renamed(self, model: str, also_named: bool) -> bytes | AsyncIterable[bytes]:
        """It, with another name. also_named: in a form's field `model_name`, too."""


def needs_of(content: Content, plan: Plan, api: ApiCall, exchange: Exchange) -> Needs | None:
    """What the plan makes a difference of; None if that is nothing."""
    if not isinstance(content, Named) or len(content.body) <= plan.carefree or api.path == _COUNTING:
        return None
    return needs.read(plan, api.operation, content, exchange.session if plan.chooses else "")


class Call:
    """The attempts of one call, and the passing on of the answer.

    asking: the content with a question for usage that the client did not ask; None if it is not to be asked.
    """

    __slots__ = (
        "_api", "_asking", "_attempt", "_calls", "_content", "_exchange", "_headers", "_held", "_passing", "_patience",
        "_response", "_whole",
    )  # fmt: skip

    def __init__(
        self, calls: "Calls", exchange: Exchange, attempt: Attempt, content: Content, api: ApiCall,
        headers: HeaderLines, patience: Patience, asking: Content | None = None,
    ) -> None:  # fmt: skip
        self._calls = calls
        self._asking = asking
        self._exchange = exchange
        self._attempt = attempt
        self._content = content
        self._api = api
        self._headers = headers
        self._response: Response | None = None
        self._held: Held | None = None
        # The answer was passed on, as far as it came.
        self._whole = False
        self._patience = patience
        self._passing = Passing(exchange, attempt, self._handle, calls.tell, patience)

    async def run(self) -> None:
        """To its end, whatever that is."""
        try:
            effect = self._handle(START)
            while True:
                match effect:
                    case Try():
                        event = await self._ask(effect)
                        if type(event) is not Answered or event.status >= 400:
                            self._renew()
                        effect = self._handle(event)
                    case Forward():
                        assert self._response is not None
                        broken = await self._passing.forward(self._response, self._held)
                        if broken is None:
                            self._whole = True
                            return
                        self._drop_response()
                        self._renew()
                        effect = self._handle(broken)
                    case Wait():
                        await self._wait(effect)
                        self._renew()
                        effect = self._handle(WOKEN)
                    case Fail(error):
                        self._calls.tell(self._exchange.request_id, error.message)
                        self._exchange.error(error)
                        return
                    case _:
                        raise AssertionError(f"{effect} before anything was forwarded")
        finally:
            self._leave()

    def _leave(self) -> None:
        """Whatever happened: the turn is given back, and an upstream that still works for us is stopped."""
        self._drop_response()
        if self._whole:
            self._attempt.tokens = self._exchange.tally.tokens
            self._handle(SERVED)
        else:
            self._handle(ENDED)
        # It knows this call: without a circle all of a request's memory is free at once, and not when it is collected.
        del self._passing

    def _handle(self, event: Event) -> Effect:
        return self._attempt.handle(event, self._calls.clock.now())

    def _renew(self) -> None:
        """Much may have changed since the call began: another endpoint may be there by now."""
        plan = self._calls.plan(self._content.model, self._api.operation)
        if plan is not None and plan is not self._attempt.plan:
            self._attempt.renew(plan, needs_of(self._content, plan, self._api, self._exchange))

    def _drop_response(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            self._calls.upstream.done(response)

    async def _wait(self, effect: Wait) -> None:
        """Until the time is over or a turn has come; the client may leave meanwhile."""
        self._drop_response()
        self._held = None
        reason = "every endpoint is at its limit" if effect.ticket else errors.tried_names(self._attempt.failures)
        log.info("%s: waiting: %s", self._exchange.request_id, reason)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if effect.ticket is not None:
            effect.ticket.wake = partial(_end, turn)
        try:
            async with asyncio.timeout(effect.seconds):
                await turn
        except TimeoutError:
            pass

    async def _ask(self, effect: Try, plainly: bool = False) -> Event:
        """plainly: without asking for usage."""
        self._drop_response()
        self._held = None
        if effect.number > 1:
            log.info("%s: trying %s after %s", self._exchange.request_id, effect.choice.candidate.name,
                     errors.tried_names(self._attempt.failures) or "its first way took no connection")  # fmt: skip
        choice = effect.choice
        content, candidate = self._content, choice.candidate
        asked = self._passing.asked = (
            self._asking is not None
            and not plainly
            and not candidate.timed
            and candidate.service not in self._calls.silent
        )
        if asked and self._asking is not None:
            content = self._asking
        if candidate.shaper is not None and isinstance(content, Named):
            body: bytes | AsyncIterable[bytes] = _shaped(content.body, candidate.shaper, candidate.upstream_name)
        else:
            body = content.renamed(candidate.upstream_name, candidate.also_named)
        answer = await self._calls.upstream.ask(
            choice.lane, self._api.asked + self._exchange.query, self._headers, body, self._patience
        )
        if not content.replayable:
            self._attempt.replayable = False
        if not isinstance(answer, Response):
            return answer
        self._response = answer
        if choice.lane.relayed and (word := relay_error(answer)) is not None:
            held = await self._hold(answer)
            said = foreign.message_of(held.body) if isinstance(held, Held) else ""
            return RelayRefused(word, f"the relay of {choice.candidate.host} says {said or word}")
        if 300 <= answer.status < 400 and answer.status != 304:
            # Where it leads may be nobody's business, and what is asked here is secret.
            return Lost(f"answered {answer.status}, which leads elsewhere; such answers are not followed")
        if asked and answer.status in _NOT_UNDERSTOOD:
            held = await self._hold(answer)
            if not isinstance(held, Held):
                return held
            if any(word in held.body for word in _QUESTION):
                event = await self._ask(effect, plainly=True)
                if isinstance(event, Answered) and event.status < 400:
                    self._calls.tells_no_usage(candidate.service)
                return event
            self._held = held
        if answer.status in RETRIED_STATUSES:
            held = await self._hold(answer)
            if not isinstance(held, Held):
                return held
            self._held = held
            said = foreign.message_of(held.body)
            return Answered(
                answer.status, said, answer.status == 503 and foreign.is_loading(said), _retry_after(answer)
            )
        return Answered(answer.status)

    async def _hold(self, response: Response) -> Held | Event:
        """The whole of an error; what it means for the attempt if that can't be had."""
        try:
            async with asyncio.timeout(_ERROR_SECONDS):
                body = await response.read(ERROR_LIMIT)
        except HttpError as error:
            return failure(error, self._patience)
        except TimeoutError:
            return Lost(f"answered {response.status} and did not say why within {_ERROR_SECONDS:g} s")
        return Held(response.status, response.headers, body)


def _end(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_result(None)


def _retry_after(response: Response) -> int | None:
    """In seconds, as nearly all say it; dates are passed over."""
    found = response.header(b"retry-after") or b""
    return int(found) if found.isdigit() and len(found) < 6 else None


def _shaped(body: bytes, shaper: Shaper, model: str) -> bytes:
    try:
        return shaper.apply(body, model)
    except Unshapeable as problem:
        raise Refusal(errors.bad_request(problem.message, problem.param or None)) from None
