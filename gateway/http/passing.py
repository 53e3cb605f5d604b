"""The way of an answer from an engine to the client: whole, in pieces, or as an error."""

import asyncio
from collections.abc import Callable

import msgspec

from gateway.core import errors, foreign
from gateway.core.attempt import Attempt, Broke, Effect, Event, FailInStream, Lost, TimedOut
from gateway.http.exchange import JSON, Exchange
from gateway.http.headers import served_by
from gateway.upstream import is_late
from geniehive.kit.http1 import HttpError, Response, TooLarge
from geniehive.kit.http_head import EMPTY_STATUSES, AnswerHead, read_head

# An answer up to this size is collected and sent in one piece; a larger one is passed on as it comes.
_WHOLE = 1 << 20
# An error is read whole, to be understood.
ERROR_LIMIT = 1 << 20


class Held(msgspec.Struct, frozen=True):
    """An answer that was read whole because it may not be the one that the client gets."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Passing:
    """Of one call. handle: tells the attempt what happened. log: takes the request's id and a failure in words."""

    __slots__ = ("_attempt", "_exchange", "_handle", "_log")

    def __init__(
        self,
        exchange: Exchange,
        attempt: Attempt,
        handle: Callable[[Event], Effect],
        log: Callable[[str, str], None],
    ) -> None:
        self._exchange = exchange
        self._attempt = attempt
        self._handle = handle
        self._log = log

    async def forward(self, response: Response, held: Held | None) -> Event | None:
        """Passes the answer on; None when that is done, else what prevented it, with nothing sent.

        held: the answer, if it has been read.
        """
        if response.status >= 400:
            return await self._forward_error(response, held)
        head = read_head(response.headers)
        length = 0 if response.status in EMPTY_STATUSES else head.length
        if length is not None and length <= _WHOLE and not head.events:
            try:
                body = await response.read()
            except HttpError as error:
                return _before_first_byte(error)
            self._exchange.whole(response.status, head.lines + self._served_by(), body)
            return None
        return await self._stream(response, head)

    async def _forward_error(self, response: Response, held: Held | None) -> Event | None:
        if held is None:
            try:
                held = Held(response.status, response.headers, await response.read(ERROR_LIMIT))
            except TooLarge:
                held = Held(response.status, [], b"")
            except HttpError as error:
                return _before_first_byte(error)
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
                    return _before_first_byte(error)
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
                self._log(exchange.request_id, effect.error.message)
                self._tell(last, effect.error)
            else:
                self._log(exchange.request_id, f"the answer broke off: {error}")
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

    def _served_by(self) -> bytes:
        choice = self._attempt.choice
        assert choice is not None
        return served_by(choice, self._attempt.number)


def _before_first_byte(error: HttpError) -> Event:
    return TimedOut(str(error)) if is_late(error) else Lost(str(error))
