"""The way of an answer from an engine to the client: whole, in pieces, or as an error; and what it tells of tokens."""

import asyncio
from collections.abc import Callable

import msgspec

from gateway.core import errors, foreign
from gateway.core.attempt import Attempt
from gateway.core.plan import Choice
from gateway.core.sse import End, Events
from gateway.core.trying import Broke, Effect, Event, FailInStream
from gateway.core.usage import Tail, tokens_of
from gateway.http.exchange import JSON, Exchange
from gateway.http.headers import served_by
from gateway.patience import Patience
from gateway.upstream import failure, is_late
from geniehive.kit.http1 import HttpError, Response, TooLarge
from geniehive.kit.http_head import EMPTY_STATUSES, AnswerHead, read_head
from geniehive.rules.operations import Operation

# An answer up to this size is collected and sent in one piece; a larger one is passed on as it comes.
_WHOLE = 192 << 10
# An error is read whole, to be understood.
ERROR_LIMIT = 1 << 20

_ENDS: dict[Operation | None, End] = {
    Operation.CHAT: End.CHAT,
    Operation.COMPLETIONS: End.CHAT,
    Operation.MESSAGES: End.MESSAGES,
    Operation.RESPONSES: End.RESPONSES,
}
_CUT = Broke("it ended too early: nothing said that it was complete", True)
_TOLD = Broke("the engine told an error in it", True)


class Held(msgspec.Struct, frozen=True):
    """An answer that was read whole because it may not be the one that the client gets."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Passing:
    """Of one call. handle: tells the attempt what happened. log: takes the request's id and a failure in words."""

    __slots__ = ("_attempt", "_exchange", "_handle", "_log", "_patience", "asked")

    def __init__(
        self,
        exchange: Exchange,
        attempt: Attempt,
        handle: Callable[[Event], Effect],
        log: Callable[[str, str], None],
        patience: Patience,
    ) -> None:
        self._exchange = exchange
        self._attempt = attempt
        self._handle = handle
        self._log = log
        self._patience = patience
        # The gateway asked for usage at the end of the stream, and the client did not.
        self.asked = False

    async def forward(self, response: Response, held: Held | None) -> Event | None:
        """Passes the answer on; None when that is done, else what prevented it, with nothing sent.

        held: the answer, if it has been read.
        """
        if response.status >= 400:
            return await self._forward_error(response, held)
        head = read_head(response.headers)
        length = 0 if response.status in EMPTY_STATUSES else head.length
        if length is not None and length <= _WHOLE and not head.events:
            body = response.whole()
            if body is None:
                try:
                    body = await response.read()
                except HttpError as error:
                    return failure(error, self._patience)
            exchange = self._exchange
            tally = exchange.tally
            tally.answering()
            exchange.whole(response.status, head.lines + self._served_by(), body)
            tally.tokens = tokens_of(body)
            return None
        if head.events:
            await self._stream_events(response, head)
            return None
        return await self._stream(response, head)

    async def _forward_error(self, response: Response, held: Held | None) -> Event | None:
        if held is None:
            try:
                held = Held(response.status, response.headers, await response.read(ERROR_LIMIT))
            except TooLarge:
                held = Held(response.status, [], b"")
            except HttpError as error:
                return failure(error, self._patience)
        body = foreign.normalised(held.status, held.body, self._exchange.dialect, self._exchange.request_id)
        if body is held.body:
            lines = read_head(held.headers).lines
        else:
            lines = JSON + read_head(h for h in held.headers if h[0].lower() != b"content-type").lines
        self._exchange.whole(held.status, lines + self._served_by(), body)
        return None

    async def _stream(self, response: Response, head: AnswerHead) -> Event | None:
        """Passes pieces on as they come."""
        exchange = self._exchange
        tail = Tail()
        try:
            piece = await response.chunk()
        except HttpError as error:
            return failure(error, self._patience)
        exchange.tally.answering()
        exchange.begin(response.status, head.lines + self._served_by(), head.length, piece)
        try:
            while piece:
                tail.pass_by(piece)
                piece = await response.chunk()
                if response.complete:
                    break
                await exchange.send(piece)
            exchange.end(piece)
            tail.pass_by(piece)
            exchange.tally.tokens = tail.tokens
        except HttpError as error:
            words = self._patience.words(error)
            self._handle(Broke(words, False, is_late(error)))
            self._log(exchange.request_id, f"the answer broke off: {words}")
            exchange.abort()
        return None

    async def _stream_events(self, response: Response, head: AnswerHead) -> None:
        """Passes events on as they come; between them an error can be told."""
        exchange, tally = self._exchange, self._exchange.tally
        end = _ENDS.get(tally.operation, End.NONE)
        events = Events(end, self.asked, end is End.CHAT and self._choice.candidate.timed)
        # The client learns at once that it is being served, however long the first token takes. Without a length: an
        # event may be taken out, or an error added.
        exchange.begin(response.status, head.lines + self._served_by(), None)
        sent = b""
        try:
            piece = await response.chunk()
            tally.answering()
            self._attempt.began(tally.now())
            while piece and not response.complete:
                if out := events.feed(piece):
                    sent = out
                    await exchange.send(out)
                piece = await response.chunk()
            out = events.feed(piece) + events.finish() if piece else events.finish()
            if events.failed:
                self._log(exchange.request_id, f"{self._choice.candidate.name} told an error in its answer")
                self._handle(_TOLD)
                exchange.end(out)
            elif events.ended:
                exchange.end(out)
            else:
                self._cut(_CUT, sent, out)
        except HttpError as error:
            self._cut(Broke(self._patience.words(error), True, is_late(error)), sent)
        except asyncio.CancelledError:
            # The client left; or we are stopping and have no more time, which can be said.
            if exchange.alive:
                tally.failed = True
                self._tell(errors.stopping(), sent)
            raise
        finally:
            tally.tokens = events.tokens

    def _cut(self, event: Broke, sent: bytes, rest: bytes = b"") -> None:
        effect = self._handle(event)
        assert isinstance(effect, FailInStream)
        self._log(self._exchange.request_id, effect.error.message)
        self._tell(effect.error, sent, rest)

    def _tell(self, error: errors.ApiError, sent: bytes, rest: bytes = b"") -> None:
        """The rest of the answer, and an error as its last event.

        That begins on a line of its own even if the answer broke off within one. sent: what the client got last.
        """
        last = rest or sent
        border = b"" if not last or last.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")) else b"\n\n"
        exchange = self._exchange
        exchange.close_after()
        exchange.end(rest + border + error.event(exchange.dialect, exchange.request_id))

    @property
    def _choice(self) -> Choice:
        choice = self._attempt.choice
        assert choice is not None
        return choice

    def _served_by(self) -> bytes:
        return served_by(self._choice, self._attempt.number)
