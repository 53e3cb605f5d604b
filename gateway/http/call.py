"""One call: endpoints asked in turn, until an answer can be passed on."""

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from gateway.core import foreign
from gateway.core.api import ApiCall
from gateway.core.attempt import (
    ENDED,
    RETRIED_STATUSES,
    START,
    Answered,
    Attempt,
    Effect,
    Event,
    Fail,
    Forward,
    Lost,
    RelayRefused,
    Try,
    tried_names,
)
from gateway.http.exchange import Exchange
from gateway.http.passing import ERROR_LIMIT, Held, Passing
from gateway.upstream import failure, relay_error
from geniehive.kit.http1 import HeaderLines, HttpError, Response

if TYPE_CHECKING:
    from gateway.http.calls import Calls

log = logging.getLogger(__name__)

# An error is read whole, but not for long, since another endpoint may be waiting.
_ERROR_SECONDS = 5.0


class Content(Protocol):
    """What a client sent, as engines are to get it."""

    @property
    def model(self) -> str:
        """The name in it."""

    def renamed(self, model: str) -> bytes:
        """It, with another name."""


class Call:
    """The attempts of one call, and the passing on of the answer."""

    __slots__ = ("_api", "_attempt", "_calls", "_content", "_exchange", "_headers", "_held", "_passing", "_response")

    def __init__(
        self, calls: "Calls", exchange: Exchange, attempt: Attempt, content: Content, api: ApiCall, headers: HeaderLines
    ) -> None:
        self._calls = calls
        self._exchange = exchange
        self._attempt = attempt
        self._content = content
        self._api = api
        self._headers = headers
        self._response: Response | None = None
        self._held: Held | None = None
        self._passing = Passing(exchange, attempt, self._handle, calls.tell)

    async def run(self) -> None:
        effect = self._handle(START)
        while True:
            match effect:
                case Try():
                    effect = self._handle(await self._ask(effect))
                case Forward():
                    assert self._response is not None
                    event = await self._passing.forward(self._response, self._held)
                    if event is None:
                        return
                    self._drop_response()
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
        return self._attempt.handle(event, self._calls.clock.now())

    def _drop_response(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            self._calls.upstream.done(response)

    async def _ask(self, effect: Try) -> Event:
        self._drop_response()
        self._held = None
        if effect.number > 1:
            log.info("%s: trying %s after %s", self._exchange.request_id, effect.choice.candidate.name,
                     tried_names(self._attempt.failures) or "its first way took no connection")  # fmt: skip
        choice = effect.choice
        body = self._content.renamed(choice.candidate.upstream_name)
        answer = await self._calls.upstream.ask(choice.lane, self._api.path, self._headers, body)
        if not isinstance(answer, Response):
            return answer
        self._response = answer
        if choice.lane.relayed and (word := relay_error(answer)) is not None:
            held = await self._hold(answer)
            said = foreign.message_of(held.body) if isinstance(held, Held) else ""
            return RelayRefused(word, f"the relay of {choice.candidate.host} says {said or word}")
        if answer.status in RETRIED_STATUSES:
            held = await self._hold(answer)
            if not isinstance(held, Held):
                return held
            self._held = held
            return Answered(answer.status, foreign.message_of(held.body))
        return Answered(answer.status)

    async def _hold(self, response: Response) -> Held | Event:
        """The whole of an error; what it means for the attempt if that can't be had."""
        try:
            async with asyncio.timeout(_ERROR_SECONDS):
                body = await response.read(ERROR_LIMIT)
        except HttpError as error:
            return failure(error)
        except TimeoutError:
            return Lost(f"answered {response.status} and did not say why within {_ERROR_SECONDS:g} s")
        return Held(response.status, response.headers, body)
