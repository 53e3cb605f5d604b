"""Asking an engine by a lane: the address, the headers and the credential that go with it.

Of the client's headers none that proves who the client is goes further, and none that speaks of its own connection.
The only credential added here is the token of a relay without TLS; an engine's own key is added by the relay, on the
node.
"""

import asyncio
from collections.abc import AsyncIterable, Callable, Collection, Coroutine, Iterable
from functools import lru_cache

from gateway.core.plan import Lane
from gateway.core.trying import ConnectFailed, Lost, TimedOut
from gateway.patience import Patience
from geniehive.kit import http1, http_head
from geniehive.kit.http_head import HOP_BY_HOP
from geniehive.rules.hops import HOPS

Failure = ConnectFailed | Lost | TimedOut
Body = bytes | AsyncIterable[bytes]

RELAY_ERROR = b"x-geniehive-relay-error"

_KEPT_BACK = HOP_BY_HOP | {
    # The client's credentials, and the account they belong to.
    b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"x-auth-token", b"cookie",
    b"openai-organization", b"openai-project",
    # Where it is.
    b"forwarded", b"via", b"x-real-ip",
    # The body has been decoded; and errors and events of the answer must be readable here.
    b"content-encoding", b"accept-encoding",
    # Engines refuse origins that they don't know; the browser's business is with the gateway.
    b"origin", b"referer",
    # Set here.
    b"x-request-id",
}  # fmt: skip
_KEPT_BACK_BEGINNINGS = (b"x-geniehive-", b"sec-", b"access-control-", b"x-forwarded-")

_REQUEST_ID = http1.line_start(b"x-request-id")
_HOPS = http1.line_start(HOPS.lower().encode())


@lru_cache(maxsize=1024)
def _line_start(name: bytes) -> bytes | None:
    return http_head.line_start(name, _KEPT_BACK, _KEPT_BACK_BEGINNINGS)


def request_headers(client: Iterable[tuple[bytes, bytes]], request_id: str, hops: bytes = b"1") -> http1.HeaderLines:
    """What an engine gets to see of the client's headers. Unaskable if that can't be sent.

    hops: gateways that the request has passed, with this one.
    """
    try:
        parts = http_head.request_parts(client, _line_start)
        parts += (_REQUEST_ID, request_id.encode(), _HOPS, hops)
        return http1.join_lines(parts)
    except ValueError as error:
        raise Unaskable(str(error)) from error


# Seconds that a relay may be silent in the middle of an answer once its host is offline. Not none: a node that stops
# leaves the cluster before its last answers are whole.
_LAST_SILENCE = 3.0

_address = lru_cache(maxsize=4096)(http1.split_url)


@lru_cache(maxsize=4096)
def _named_address(base_url: str, tls_name: str) -> tuple[http1.Origin, str]:
    origin, base = http1.split_url(base_url)
    return origin._replace(tls_name=tls_name), base


@lru_cache(maxsize=4096)
def _token_line(token: str) -> http1.HeaderLines:
    return http1.encode_lines([(b"authorization", f"Bearer {token}")])


def _no_relays() -> http1.Client | None:
    return None


class Unaskable(ValueError):
    """A request whose headers can't be sent on."""


class Upstream:
    """Shares one client, and its connections, among all requests. relays: the client for relays with TLS; None while
    this gateway has nothing to prove itself to them by."""

    def __init__(self, client: http1.Client, relays: Callable[[], http1.Client | None] = _no_relays) -> None:
        self._client = client
        self._relays = relays
        # Who waits for an answer through a relay, by service.
        self._waiting: dict[str, set[asyncio.Timeout]] = {}
        # Answers of relays that are being read, with their service.
        self._reading: dict[http1.Response, str] = {}

    def offline(self, services: Collection[str]) -> None:
        """The relays of these services are gone, with their hosts or to another address: nobody need wait for those.

        A host that fell silent would else hold its callers until the limits of the first byte, or of silence.
        """
        now = asyncio.get_running_loop().time()
        for service in services:
            for scope in self._waiting.get(service, ()):
                scope.reschedule(now)
        if self._reading:
            gone = frozenset(services)
            for response, service in self._reading.items():
                if service in gone:
                    response.limit_silence(_LAST_SILENCE, "after its host went offline, or had another address")

    def done(self, response: http1.Response) -> None:
        """Nothing more is read of this answer. To be called for each; idempotent."""
        self._reading.pop(response, None)
        response.release()

    def ask(
        self, lane: Lane, path: str, headers: http1.HeaderLines, body: Body, patience: Patience
    ) -> Coroutine[None, None, http1.Response | Failure]:
        """POSTs `body` to `path` (the client's own, such as "/v1/chat/completions") by this lane.

        Gives the answer as soon as its head is there, or what went wrong. A relay whose host goes offline meanwhile is
        given up.
        """
        return (self._ask_relay if lane.relayed else self._ask)(lane, path, headers, body, patience)

    async def _ask_relay(
        self, lane: Lane, path: str, headers: http1.HeaderLines, body: Body, patience: Patience
    ) -> http1.Response | Failure:
        waiting = self._waiting.setdefault(lane.service, set())
        scope = asyncio.timeout(None)
        try:
            async with scope:
                waiting.add(scope)
                if lane.tls_name is None:
                    answer = await self._ask(lane, path, headers, body, patience)
                else:
                    answer = await self._ask_named(lane, lane.tls_name, path, headers, body, patience)
                if isinstance(answer, http1.Response):
                    self._reading[answer] = lane.service
                return answer
        except TimeoutError:
            return ConnectFailed("its host went offline, or has another address")
        finally:
            waiting.discard(scope)
            if not waiting:
                self._waiting.pop(lane.service, None)

    async def _ask(
        self, lane: Lane, path: str, headers: http1.HeaderLines, body: Body, patience: Patience
    ) -> http1.Response | Failure:
        try:
            origin, base = _address(lane.base_url)
            if lane.token is not None:
                headers = http1.HeaderLines(headers + _token_line(lane.token))
        except ValueError as error:
            return ConnectFailed(f"its address or token is malformed: {error}")
        try:
            return await self._client.request(origin, "POST", base + path, headers, body, patience.timeouts)
        except http1.HttpError as error:
            return failure(error, patience)

    async def _ask_named(
        self, lane: Lane, tls_name: str, path: str, headers: http1.HeaderLines, body: Body, patience: Patience
    ) -> http1.Response | Failure:
        client = self._relays()
        if client is None:
            return ConnectFailed("this gateway has no certificate yet, by which relays would know it")
        try:
            origin, base = _named_address(lane.base_url, tls_name)
        except ValueError as error:
            return ConnectFailed(f"its address is malformed: {error}")
        try:
            return await client.request(origin, "POST", base + path, headers, body, patience.timeouts)
        except http1.HttpError as error:
            return failure(error, patience)


def failure(error: http1.HttpError, patience: Patience) -> Failure:
    """What an error of the client means for the attempt."""
    said = patience.words(error)
    if isinstance(error, http1.ConnectFailed | http1.ConnectTimeout):
        return ConnectFailed(said)
    return TimedOut(said) if is_late(error) else Lost(said)


def is_late(error: http1.HttpError) -> bool:
    return isinstance(error, http1.FirstByteTimeout | http1.IdleTimeout | http1.TotalTimeout)


def relay_error(response: http1.Response) -> str | None:
    """The relay's word for why it could not ask the engine; None if the answer is the engine's."""
    found = response.header(RELAY_ERROR)
    return None if found is None else found.decode("latin-1")
