"""One call to a model: the body is read, its name looked up, endpoints asked in turn, the answer passed on."""

import asyncio
import logging
from typing import Protocol

import msgspec
from aiohttp import web

from gateway.core import body as bodies
from gateway.core import errors, foreign
from gateway.core.attempt import (
    ENDED,
    RETRIED_STATUSES,
    START,
    Answered,
    Attempt,
    Broke,
    Effect,
    Event,
    Fail,
    FailInStream,
    Forward,
    Lost,
    RelayRefused,
    TimedOut,
    Try,
    tried_names,
)
from gateway.core.balance import Balance
from gateway.core.budget import RetryBudget
from gateway.core.plan import Plan
from gateway.core.table import ChooseFrom, NotFound, OtherOperations, Table
from gateway.http.exchange import JSON, Exchange, Refusal
from gateway.http.headers import served_by
from gateway.upstream import Unaskable, Upstream, failure, is_late, relay_error, request_headers
from geniehive.kit.clock import Clock
from geniehive.kit.http1 import HeaderLines, HttpError, Response, TooLarge
from geniehive.kit.http_head import EMPTY_STATUSES, AnswerHead, read_head
from geniehive.rules.names import is_model_name
from geniehive.rules.operations import Operation

log = logging.getLogger(__name__)

# An answer up to this size is collected and sent in one piece; a larger one is passed on as it comes.
_WHOLE = 1 << 20
# An error is read whole, to be understood; but not for long, since another endpoint may be waiting.
_ERROR_LIMIT = 1 << 20
_ERROR_SECONDS = 5.0
# Seconds until a failure that goes on is logged again.
_SAY_AGAIN = 5.0


class LookUp(Protocol):
    """Asks control about a name that the table lacks."""

    async def __call__(self, model: str, key_id: str) -> Table | None:
        """A table with that name and all it leads to; None if there is none, or nobody to ask."""


class _Held(msgspec.Struct, frozen=True):
    """An answer that was read whole because it may not be the one that the client gets."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Calls:
    """max_body: bytes."""

    def __init__(
        self, table: Table, balance: Balance, budget: RetryBudget, upstream: Upstream, look_up: LookUp, clock: Clock,
        max_body: int,
    ) -> None:  # fmt: skip
        self._table = table
        self._balance = balance
        self._budget = budget
        self._upstream = upstream
        self._look_up = look_up
        self._clock = clock
        self._max_body = max_body
        self._told = "", 0.0

    def tell(self, request_id: str, failure: str) -> None:
        """Logs a failed call; the same failure, which may come a thousand times a second, only now and then."""
        now = self._clock.now()
        said, at = self._told
        repeated = failure == said and now < at + _SAY_AGAIN
        log.log(logging.DEBUG if repeated else logging.WARNING, "%s: %s", request_id, failure)
        if not repeated:
            self._told = failure, now

    async def serve(
        self, exchange: Exchange, request: web.BaseRequest, operation: Operation, path: str, key_id: str
    ) -> None:
        """Answers the call. Refusal for what the caller of this is to answer."""
        body = await exchange.body(self._max_body)
        try:
            named = bodies.read(body)
        except bodies.BodyProblem as problem:
            raise Refusal(errors.bad_request(problem.message, problem.param or None)) from None
        plan = self._table.find(named.model, operation)
        if not isinstance(plan, Plan):
            plan = await self._look_further(named.model, operation, plan, key_id)
        try:
            headers = request_headers(request.raw_headers, exchange.request_id)
        except Unaskable as error:
            raise Refusal(errors.bad_request(f"The request can't be passed on: {error}")) from error
        call = _Call(self, exchange, Attempt(named.model, plan, self._balance, self._budget), named, path, headers)
        try:
            await call.run()
        finally:
            call.leave()

    async def _look_further(
        self, model: str, operation: Operation, found: NotFound | OtherOperations | ChooseFrom, key_id: str
    ) -> Plan:
        """A plan that control knows of. Refusal, by what was `found` in the table, if there is none."""
        if not self._table.ready:
            raise Refusal(errors.not_ready())
        if isinstance(found, NotFound) and is_model_name(model):
            learned = await self._look_up(model, key_id)
            if learned is not None:
                known = learned.find(model, operation)
                if isinstance(known, Plan):
                    return known
                found = known
        raise Refusal(errors.unresolved(model, operation, found))


class _Call:
    """The attempts of one call, and the passing on of the answer."""

    __slots__ = ("_attempt", "_calls", "_exchange", "_headers", "_held", "_named", "_path", "_response")

    def __init__(
        self, calls: Calls, exchange: Exchange, attempt: Attempt, named: bodies.Named, path: str, headers: HeaderLines
    ) -> None:
        self._calls = calls
        self._exchange = exchange
        self._attempt = attempt
        self._named = named
        self._path = path
        self._headers = headers
        self._response: Response | None = None
        self._held: _Held | None = None

    async def run(self) -> None:
        effect = self._handle(START)
        while True:
            match effect:
                case Try():
                    effect = self._handle(await self._ask(effect))
                case Forward():
                    event = await self._forward()
                    if event is None:
                        return
                    effect = self._handle(event)
                case Fail(error):
                    self._calls.tell(self._exchange.request_id, error.message)
                    self._exchange.error(error)
                    return
                case _:
                    raise AssertionError(f"{effect} before anything was forwarded")

    def leave(self) -> None:
        """Whatever happened: the turn is given back, and an upstream that still works for us is stopped."""
        self._drop_response()
        self._handle(ENDED)

    def _handle(self, event: Event) -> Effect:
        return self._attempt.handle(event, self._calls._clock.now())

    def _drop_response(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            self._calls._upstream.done(response)

    async def _ask(self, effect: Try) -> Event:
        self._drop_response()
        self._held = None
        if effect.number > 1:
            log.info("%s: trying %s after %s", self._exchange.request_id, effect.choice.candidate.name,
                     tried_names(self._attempt.failures) or "its first way took no connection")  # fmt: skip
        choice = effect.choice
        body = self._named.renamed(choice.candidate.upstream_name)
        answer = await self._calls._upstream.ask(choice.lane, self._path, self._headers, body)
        if not isinstance(answer, Response):
            return answer
        self._response = answer
        if choice.lane.relayed and (word := relay_error(answer)) is not None:
            held = await self._hold(answer)
            said = foreign.message_of(held.body) if isinstance(held, _Held) else ""
            return RelayRefused(word, f"the relay of {choice.candidate.host} says {said or word}")
        if answer.status in RETRIED_STATUSES:
            held = await self._hold(answer)
            if not isinstance(held, _Held):
                return held
            self._held = held
            return Answered(answer.status, foreign.message_of(held.body))
        return Answered(answer.status)

    async def _hold(self, response: Response) -> _Held | Event:
        """The whole of an error; what it means for the attempt if that can't be had."""
        try:
            async with asyncio.timeout(_ERROR_SECONDS):
                body = await response.read(_ERROR_LIMIT)
        except HttpError as error:
            return failure(error)
        except TimeoutError:
            return Lost(f"answered {response.status} and did not say why within {_ERROR_SECONDS:g} s")
        return _Held(response.status, response.headers, body)

    async def _forward(self) -> Event | None:
        """Passes the answer on; None when that is done, else what prevented it."""
        response = self._response
        assert response is not None
        if response.status >= 400:
            return await self._forward_error(response)
        head = read_head(response.headers)
        length = 0 if response.status in EMPTY_STATUSES else head.length
        if length is not None and length <= _WHOLE and not head.events:
            try:
                body = await response.read()
            except HttpError as error:
                return self._before_first_byte(error)
            self._exchange.whole(response.status, head.lines + self._served_by(), body)
            return None
        return await self._stream(response, head)

    async def _forward_error(self, response: Response) -> Event | None:
        held = self._held
        if held is None:
            try:
                held = _Held(response.status, response.headers, await response.read(_ERROR_LIMIT))
            except TooLarge:
                held = _Held(response.status, [], b"")
            except HttpError as error:
                return self._before_first_byte(error)
        body = foreign.normalised(held.status, held.body)
        if body is held.body:
            lines = read_head(held.headers).lines
        else:
            lines = JSON + read_head(h for h in held.headers if h[0].lower() != b"content-type").lines
        self._exchange.whole(held.status, lines + self._served_by(), body)
        return None

    async def _stream(self, response: Response, head: AnswerHead) -> Event | None:
        """Passes pieces on as they come. In a stream of events an error can be told."""
        exchange = self._exchange
        lines = head.lines + self._served_by()
        last = b""
        try:
            if head.events:
                # The client learns at once that it is being served, however long the first token takes.
                exchange.begin(response.status, lines, head.length)
            else:
                try:
                    last = await response.chunk()
                except HttpError as error:
                    return self._before_first_byte(error)
                exchange.begin(response.status, lines, head.length, last)
            while piece := await response.chunk():
                last = piece
                if response.complete:
                    exchange.end(piece)
                    return None
                await exchange.send(piece)
            exchange.end()
        except HttpError as error:
            effect = self._handle(Broke(str(error), head.events, is_late(error)))
            if isinstance(effect, FailInStream):
                self._calls.tell(exchange.request_id, effect.error.message)
                self._tell(last, effect.error)
            else:
                self._calls.tell(exchange.request_id, f"the answer broke off: {error}")
                exchange.abort()
        except asyncio.CancelledError:
            # The client left; or we are stopping and have no more time, which a stream can say.
            if head.events and exchange.started and exchange.alive:
                self._tell(last, errors.stopping())
            raise
        return None

    def _tell(self, last: bytes, error: errors.ApiError) -> None:
        """An error as the last event, begun on a line of its own even if the answer broke off within one."""
        border = b"" if not last or last.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")) else b"\n\n"
        self._exchange.close_after()
        self._exchange.end(border + error.event())

    def _before_first_byte(self, error: HttpError) -> Event:
        self._drop_response()
        return TimedOut(str(error)) if is_late(error) else Lost(str(error))

    def _served_by(self) -> bytes:
        choice = self._attempt.choice
        assert choice is not None
        return served_by(choice, self._attempt.number)
