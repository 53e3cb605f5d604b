"""Relays of other machines, by mutual TLS on real sockets."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.core.plan import Lane
from gateway.core.trying import ConnectFailed, Lost
from gateway.patience import Patience
from gateway.relays import Relays
from gateway.upstream import Failure, Upstream
from geniehive.kit import http1
from geniehive.membership import Credential
from geniehive.rules.identity import PeerKind, relay_name
from tests.support.http1_client import until
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.authority import CLUSTER, Authority

NO_HEADERS = http1.encode_lines([])
PATIENCE = Patience(http1.Timeouts(idle=60.0))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@asynccontextmanager
async def asking(credential: Credential) -> AsyncIterator[Upstream]:
    relays = Relays(credential)
    async with http1.Client() as client:
        try:
            yield Upstream(client, relays.client)
        finally:
            await relays.close()
    assert credential.listeners == []


def lane(server: RawServer, host: str = "far") -> Lane:
    url = f"https://127.0.0.1:{server.port}/{host}/e"
    return Lane(f"{host}/e", url, None, True, relay_name(CLUSTER, host))


async def ask(upstream: Upstream, by: Lane) -> http1.Response | Failure:
    return await upstream.ask(by, "/v1/x", NO_HEADERS, b"{}", PATIENCE)


async def echo(peer: Peer) -> None:
    while True:
        head, _ = await peer.request()
        await peer.answer(head)


async def test_a_request_through_a_relay_shows_no_token(tmp_path: Path, authority: Authority) -> None:
    context, _ = authority.relay("far")
    async with RawServer(echo, tls=context) as server, asking(authority.join(tmp_path)) as upstream:
        for _ in range(2):
            answer = await ask(upstream, lane(server))
            assert isinstance(answer, http1.Response)
            head = await answer.read()
            upstream.done(answer)
            assert head.startswith(b"POST /far/e/v1/x HTTP/1.1\r\n")
            assert b"authorization" not in head.lower()
        assert server.connections == 1


async def test_without_a_certificate_it_is_said_so_and_with_one_it_goes(tmp_path: Path, authority: Authority) -> None:
    context, _ = authority.relay("far")
    credential = Credential(tmp_path, PeerKind.GATEWAY)
    async with RawServer(echo, tls=context) as server, asking(credential) as upstream:
        answer = await ask(upstream, lane(server))
        assert isinstance(answer, ConnectFailed)
        assert answer.reason.startswith("this gateway has no certificate yet")
        assert server.connections == 0
        credential.believe(authority.bundle)
        csr = credential.request("gw")
        assert credential.accept(authority.issue(PeerKind.GATEWAY, "gw", csr).chain)
        answer = await ask(upstream, lane(server))
        assert isinstance(answer, http1.Response)
        await answer.read()


async def test_another_nodes_relay_in_its_place_gets_nothing(tmp_path: Path, authority: Authority) -> None:
    context, _ = authority.relay("near")
    async with RawServer(echo, tls=context) as server, asking(authority.join(tmp_path)) as upstream:
        answer = await ask(upstream, lane(server))
        assert isinstance(answer, ConnectFailed)
        assert "its certificate is for somebody else" in answer.reason


async def test_a_relay_of_another_cluster_gets_nothing(tmp_path: Path, authority: Authority) -> None:
    context, _ = Authority().relay("far")
    async with RawServer(echo, tls=context) as server, asking(authority.join(tmp_path)) as upstream:
        answer = await ask(upstream, lane(server))
        assert isinstance(answer, ConnectFailed)
        assert "not of this cluster's CA" in answer.reason


async def test_what_was_revoked_gets_no_request_and_what_is_under_way_ends(
    tmp_path: Path, authority: Authority
) -> None:
    context, serial = authority.relay("far")
    credential = authority.join(tmp_path)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
        await peer.gone()

    async with RawServer(script, tls=context) as server, asking(credential) as upstream:
        answer = await ask(upstream, lane(server))
        assert isinstance(answer, http1.Response)
        assert await answer.chunk() == b"part"
        credential.believe(authority.bundle, ["ab"])
        credential.believe(authority.bundle, ["ab", serial])
        with pytest.raises(http1.Truncated, match="its certificate was revoked"):
            await answer.chunk()
        again = await ask(upstream, lane(server))
        assert isinstance(again, ConnectFailed)
        assert "its certificate was revoked" in again.reason


async def test_our_renewed_certificate_is_shown_from_then_on(tmp_path: Path, authority: Authority) -> None:
    context, _ = authority.relay("far")
    credential = authority.join(tmp_path)
    shown: list[str] = []

    async def script(peer: Peer) -> None:
        certificate = peer.writer.get_extra_info("peercert")
        shown.append(f"{int(certificate['serialNumber'], 16):x}")
        await peer.request()
        await peer.answer(extra=b"Connection: close\r\n")

    async with RawServer(script, tls=context) as server, asking(credential) as upstream:
        expected = []
        for _ in range(2):
            answer = await ask(upstream, lane(server))
            assert isinstance(answer, http1.Response)
            await answer.read()
            expected.append(credential.serial)
            csr = credential.request("gw")
            assert credential.accept(authority.issue(PeerKind.GATEWAY, "gw", csr).chain)
        assert shown == expected


async def test_direct_lanes_do_not_use_the_clusters_trust(tmp_path: Path, authority: Authority) -> None:
    context, _ = authority.relay("far")
    async with RawServer(echo, tls=context) as server, asking(authority.join(tmp_path)) as upstream:
        answer = await ask(upstream, Lane("far/e", f"https://localhost:{server.port}"))
        assert isinstance(answer, ConnectFailed)
        assert "not trusted" in answer.reason


async def test_an_address_that_is_none(tmp_path: Path, authority: Authority) -> None:
    async with asking(authority.join(tmp_path)) as upstream:
        answer = await ask(upstream, Lane("a/e", "https://x:port", None, True, "x"))
        assert isinstance(answer, ConnectFailed)
        assert "malformed" in answer.reason


async def test_a_host_that_goes_offline_may_finish_but_not_be_silent(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream._LAST_SILENCE", 0.05)
    context, _ = authority.relay("far")
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npart")
        if peer.number == 1:
            await go_on.wait()
            await peer.send(b"rest")
        await peer.gone()

    async with RawServer(script, tls=context) as server, asking(authority.join(tmp_path)) as upstream:
        silent, lively, other = [await ask(upstream, lane(server)) for _ in range(3)]
        assert isinstance(silent, http1.Response)
        assert isinstance(lively, http1.Response)
        assert isinstance(other, http1.Response)
        for response in (silent, lively, other):
            assert await response.chunk() == b"part"
        upstream.done(other)
        waiting = asyncio.create_task(silent.chunk())
        finishing = asyncio.create_task(lively.chunk())
        await asyncio.sleep(0)
        upstream.offline(["near/e"])
        upstream.offline(["far/e"])
        go_on.set()
        assert await finishing == b"rest"
        with pytest.raises(http1.IdleTimeout, match=re.escape("sent nothing for 0.05 s after its host went offline")):
            await waiting
        upstream.done(silent)
        upstream.done(lively)
        assert upstream._reading == {}


async def test_a_relay_that_leaves_before_it_answers(tmp_path: Path, authority: Authority) -> None:
    context, _ = authority.relay("far")

    async def script(peer: Peer) -> None:
        await peer.request()

    async with RawServer(script, tls=context) as server, asking(authority.join(tmp_path)) as upstream:
        assert isinstance(await ask(upstream, lane(server)), Lost)
        await until(lambda: not upstream._waiting)
