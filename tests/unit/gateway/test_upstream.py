import asyncio

import pytest

from gateway.core.attempt import ConnectFailed, Lost, TimedOut
from gateway.core.plan import Lane
from gateway.upstream import Unaskable, Upstream, failure, nominated, request_headers
from geniehive.kit import http1
from tests.support.raw_server import Peer, RawServer


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
    assert failure(error("why", sent=True)) == kind("why")


def test_headers_that_go_on() -> None:
    given = [(b"Accept", b"*/*"), (b"Connection", b"close, X-One"), (b"X-One", b"1"), (b"AUTHORIZATION", b"x")]
    assert request_headers(given, "id") == [(b"Accept", b"*/*"), (b"x-request-id", "id")]
    assert nominated([(b"Connection", b"keep-alive")]) == frozenset()


async def test_an_address_that_is_none() -> None:
    async with http1.Client() as client:
        answer = await Upstream(client, http1.Timeouts()).ask(Lane("a/e", "ftp://x"), "/v1", [], b"")
        assert isinstance(answer, ConnectFailed)


async def test_headers_that_can_not_be_sent() -> None:
    async with http1.Client() as client:
        with pytest.raises(Unaskable, match="X"):
            await Upstream(client, http1.Timeouts()).ask(Lane("a/e", "http://x:1"), "/v1", [(b"X", b"a\nb")], b"")


async def test_the_relays_token_goes_with_its_lane_only() -> None:
    heads = []

    async def script(peer: Peer) -> None:
        while True:
            head, _ = await peer.request()
            heads.append(head)
            await peer.answer()

    async with RawServer(script) as server, http1.Client() as client:
        upstream = Upstream(client, http1.Timeouts())
        url = str(server.origin)
        for lane in (Lane("a/e", url), Lane("a/e", f"{url}/a/e", "t0", True)):
            answer = await upstream.ask(lane, "/v1/x", [], b"{}")
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
        upstream = Upstream(client, http1.Timeouts())
        lane = Lane("a/e", f"{server.origin}/a/e", "t0", True)
        async with asyncio.timeout(5):
            waiting = asyncio.create_task(upstream.ask(lane, "/v1/x", [], b"{}"))
            await asked.wait()
            upstream.offline(["b/e"])
            await asyncio.sleep(0)
            assert not waiting.done()
            upstream.offline(["a/e"])
            assert await waiting == ConnectFailed("its host went offline")
        assert client.open_count == 0
        # Nobody waits any more, and nothing is left to be told.
        upstream.offline(["a/e"])
