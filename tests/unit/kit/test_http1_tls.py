import asyncio
import os
import socket
import ssl

import pytest
import trustme

from geniehive.kit.http1 import Client, ConnectFailed, Origin, Truncated
from tests.support.http1_client import on_both_loops
from tests.support.raw_server import Peer, RawServer


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA, name: str = "localhost") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return serving, trusting


@on_both_loops
async def test_requests_with_sni_and_reuse(client: Client, authority: trustme.CA) -> None:
    serving, client._ssl_context = contexts(authority)
    names: list[str | None] = []
    serving.sni_callback = lambda _, name, __: names.append(name)  # type: ignore[assignment]
    payload = bytes(range(256)) * 4000

    async def script(peer: Peer) -> None:
        for _ in range(3):
            _, body = await peer.request()
            await peer.answer(body)

    async with RawServer(script, tls=serving) as server:
        for _ in range(3):
            async with await client.request(server.origin, "POST", "/", [], payload) as response:
                assert await response.read() == payload
        assert server.connections == 1
    assert names == ["localhost"]


@on_both_loops
async def test_an_unknown_authority_is_refused_by_default(client: Client, authority: trustme.CA) -> None:
    serving, _ = contexts(authority)

    async def script(peer: Peer) -> None:
        await peer.gone()

    async with RawServer(script, tls=serving) as server:
        with pytest.raises(ConnectFailed, match="certificate is not trusted") as failed:
            await client.request(server.origin, "GET", "/", [])
        assert not failed.value.sent
        asyncio.get_running_loop().set_exception_handler(None)


@on_both_loops
async def test_the_name_is_verified(client: Client, authority: trustme.CA) -> None:
    serving, client._ssl_context = contexts(authority, "elsewhere.example")

    async def script(peer: Peer) -> None:
        await peer.gone()

    async with RawServer(script, tls=serving) as server:
        with pytest.raises(ConnectFailed, match="certificate is not trusted"):
            await client.request(server.origin, "GET", "/", [])


@on_both_loops
async def test_no_tls_there(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with RawServer(script) as server:
        with pytest.raises(ConnectFailed):
            await client.request(Origin("https", "localhost", server.port), "GET", "/", [])


@on_both_loops
async def test_truncation(client: Client, authority: trustme.CA) -> None:
    serving, client._ssl_context = contexts(authority)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")

    async with RawServer(script, tls=serving) as server:
        response = await client.request(server.origin, "GET", "/", [])
        with pytest.raises(Truncated):
            await response.read()


@on_both_loops
async def test_no_delay(client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        await peer.gone()

    async with RawServer(script) as server:
        response = await client.request(server.origin, "GET", "/", [])
        (connection,) = client._open
        assert connection._transport is not None
        number = connection._transport.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(number)) as same:
            assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        response.release()
