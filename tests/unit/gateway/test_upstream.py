import asyncio

import pytest

from gateway.core.plan import Lane
from gateway.core.trying import ConnectFailed, Lost, TimedOut
from gateway.patience import Patience
from gateway.upstream import Unaskable, Upstream, failure, request_headers
from geniehive.kit import http1
from geniehive.kit.http_head import nominated
from tests.support.raw_server import Peer, RawServer

NO_HEADERS = http1.encode_lines([])
PATIENCE = Patience(http1.Timeouts())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (http1.ConnectFailed, ConnectFailed),
        (http1.ConnectTimeout, ConnectFailed),
        (http1.FirstByteTimeout, TimedOut),
        (http1.IdleTimeout, TimedOut),
        (http1.TotalTimeout, TimedOut),
        (http1.ConnectionLost, Lost),
        (http1.ProtocolError, Lost),
        (http1.Truncated, Lost),
    ],
)
def test_every_error_of_the_client_has_a_meaning(error: type[http1.HttpError], kind: type) -> None:
    assert failure(error("why", sent=True), PATIENCE) == kind("why")


def test_headers_that_go_on() -> None:
    given = [(b"Accept", b"*/*"), (b"Connection", b"close, X-One"), (b"X-One", b"1"), (b"AUTHORIZATION", b"x")]
    assert request_headers(given, "id") == b"\r\nAccept: */*\r\nx-request-id: id\r\nx-geniehive-hops: 1"
    twice = [(b"connection", b"keep-alive"), (b"X-One", b"1"), (b"B", b""), (b"Connection", b"x-one")]
    assert request_headers(twice, "id") == b"\r\nB: \r\nx-request-id: id\r\nx-geniehive-hops: 1"
    assert nominated(b"keep-alive, , Close") == frozenset()


def test_what_agents_and_tracers_say_goes_on_and_what_proves_who_they_are_does_not() -> None:
    said = [(b"anthropic-version", b"2023-06-01"), (b"Anthropic-Beta", b"a,b"), (b"traceparent", b"00-1-2-01"),
            (b"tracestate", b"a=b"), (b"User-Agent", b"x")]  # fmt: skip
    kept = [(n.encode(), b"secret") for n in ("Authorization", "X-Api-Key", "api-key", "Cookie", "X-Goog-Api-Key",
            "OpenAI-Organization", "OpenAI-Project", "Proxy-Authorization", "X-Auth-Token", "X-Forwarded-For",
            "Forwarded", "Via", "X-Real-Ip", "X-Geniehive-Hops")]  # fmt: skip
    sent = request_headers(said + kept, "id", b"3")
    assert b"secret" not in sent
    assert sent == b"".join(b"\r\n%b: %b" % line for line in said) + b"\r\nx-request-id: id\r\nx-geniehive-hops: 3"


async def test_an_address_that_is_none() -> None:
    async with http1.Client() as client:
        upstream = Upstream(client)
        assert isinstance(await upstream.ask(Lane("a/e", "ftp://x"), "/v1", NO_HEADERS, b"", PATIENCE), ConnectFailed)
        answer = await upstream.ask(Lane("a/e", "http://x:1", "t\n0", True), "/v1", NO_HEADERS, b"", PATIENCE)
        assert isinstance(answer, ConnectFailed)
        assert "malformed" in answer.reason
        assert "t\n0" not in answer.reason


def test_headers_that_can_not_be_sent() -> None:
    with pytest.raises(Unaskable, match="X-Y") as raised:
        request_headers([(b"A", b"b"), (b"X-Y", b"a\nb")], "id")
    assert r"a\nb" not in str(raised.value)


async def test_the_relays_token_goes_with_its_lane_only() -> None:
    heads = []

    async def script(peer: Peer) -> None:
        while True:
            head, _ = await peer.request()
            heads.append(head)
            await peer.answer()

    async with RawServer(script) as server, http1.Client() as client:
        upstream = Upstream(client)
        url = str(server.origin)
        for lane in (Lane("a/e", url), Lane("a/e", f"{url}/a/e", "t0", True)):
            answer = await upstream.ask(lane, "/v1/x", NO_HEADERS, b"{}", PATIENCE)
            assert isinstance(answer, http1.Response)
            await answer.read()
    assert b"authorization" not in heads[0]
    assert heads[1].startswith(b"POST /a/e/v1/x HTTP/1.1\r\n")
    assert b"authorization: Bearer t0\r\n" in heads[1]


async def test_a_relay_whose_host_goes_offline_is_waited_for_no_longer() -> None:
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()

    async with RawServer(script) as server, http1.Client() as client:
        upstream = Upstream(client)
        lane = Lane("a/e", f"{server.origin}/a/e", "t0", True)
        async with asyncio.timeout(5):
            waiting = asyncio.create_task(upstream.ask(lane, "/v1/x", NO_HEADERS, b"{}", PATIENCE))
            await asked.wait()
            upstream.offline(["b/e"])
            await asyncio.sleep(0)
            assert not waiting.done()
            upstream.offline(["a/e"])
            assert await waiting == ConnectFailed("its host went offline, or has another address")
        assert client.open_count == 0
        # Nobody waits any more, and nothing is left to be told.
        upstream.offline(["a/e"])
