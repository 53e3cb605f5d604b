import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from geniehive.kit import state, tls, tls_probe

DAY = 86400.0


def make() -> tls.Authority:
    return tls.Authority(*tls.make_authority("test", time.time()))


@pytest.fixture(scope="module")
def authority() -> tls.Authority:
    return make()


def identity(authority: tls.Authority, seconds: float = DAY, ago: float = 0.0) -> bytes:
    """Chain and key, for "control"."""
    key = tls.new_key()
    public = tls.read_csr(tls.make_csr(key, "x"))
    issued = authority.issue(public, "x", now=time.time() - ago, seconds=seconds, dns=["control"])
    return issued.chain + key


def context(kind: int, authority: tls.Authority | None, own: bytes | None = None) -> ssl.SSLContext:
    made = ssl.SSLContext(kind)
    if authority is not None:
        made.load_verify_locations(cadata=authority.bundle.decode())
    if own is not None:
        path = state.temporary(own)
        made.load_cert_chain(path)
        path.unlink()
    return made


@asynccontextmanager
async def server(own: bytes | None, demands: tls.Authority | None = None) -> AsyncIterator[int]:
    """The port of a TLS server; without `own` one that speaks no TLS."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if own is None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        try:
            await reader.read()
        except OSError:
            pass
        writer.close()

    tls_of = None
    if own is not None:
        tls_of = context(ssl.PROTOCOL_TLS_SERVER, demands, own)
        tls_of.verify_mode = ssl.CERT_REQUIRED if demands is not None else ssl.CERT_NONE
    running = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls_of)
    async with running:
        yield running.sockets[0].getsockname()[1]


async def why(
    port: int, authority: tls.Authority, own: bytes | None = None, name: str = "control", timeout: float = 5.0
) -> str | None:
    return await tls_probe.why_not("127.0.0.1", port, context(ssl.PROTOCOL_TLS_CLIENT, authority, own), name, timeout)


async def test_the_chain_of_a_server_that_nobody_knows_yet(authority: tls.Authority) -> None:
    async with server(identity(authority)) as port:
        chain = await tls_probe.fetch_chain("127.0.0.1", port, 5.0)
    assert len(chain) == 2
    assert tls.sha256(chain[-1]) == authority.sha256


async def test_no_chain_without_tls() -> None:
    async with server(None) as port:
        with pytest.raises(ssl.SSLError):
            await tls_probe.fetch_chain("127.0.0.1", port, 5.0)


async def test_nothing_is_wrong(authority: tls.Authority) -> None:
    async with server(identity(authority), authority) as port:
        assert await why(port, authority, identity(authority)) is None


async def test_what_is_wrong_with_the_server(authority: tls.Authority) -> None:
    async with server(identity(make())) as port:
        assert "another cluster, or somebody in between" in (await why(port, authority) or "")
    async with server(identity(authority)) as port:
        assert "for somebody else" in (await why(port, authority, name="other") or "")
    async with server(identity(authority, DAY, 5 * DAY)) as port:
        assert "has expired" in (await why(port, authority) or "")
    async with server(identity(authority, 30 * DAY, -5 * DAY)) as port:
        assert "not valid yet" in (await why(port, authority) or "")
    async with server(None) as port:
        assert "does not speak TLS" in (await why(port, authority) or "")


@contextmanager
def strict(own: bytes, demands: tls.Authority) -> Iterator[int]:
    """The port of a server that says why it refuses a certificate, which asyncio's do not. For one connection."""
    tls_of = context(ssl.PROTOCOL_TLS_SERVER, demands, own)
    tls_of.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            plain, _ = listening.accept()
            with plain:
                try:
                    tls_of.wrap_socket(plain, server_side=True).close()
                except ssl.SSLError:
                    try:
                        plain.shutdown(socket.SHUT_WR)
                        plain.recv(1)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


async def test_what_is_wrong_with_us(authority: tls.Authority) -> None:
    with strict(identity(authority), authority) as port:
        assert "we have none" in (await why(port, authority) or "")
    with strict(identity(authority), authority) as port:
        assert "another cluster" in (await why(port, authority, identity(make())) or "")
    with strict(identity(authority), authority) as port:
        assert await why(port, authority, identity(authority, DAY, 5 * DAY)) == tls_probe.OURS_EXPIRED


async def test_what_is_wrong_with_us_and_nobody_says_it(authority: tls.Authority) -> None:
    async with server(identity(authority), authority) as port:
        assert await why(port, authority, identity(make())) == tls_probe.REFUSES


async def test_nobody_there(authority: tls.Authority) -> None:
    assert await why(1, authority) == "nothing listens there"
    answer = await tls_probe.why_not(
        "no-such-host.invalid", 1, context(ssl.PROTOCOL_TLS_CLIENT, authority), "control", 5.0
    )
    assert "its name is not known" in (answer or "")


async def test_it_takes_connections_and_says_nothing(authority: tls.Authority) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    running = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with running:
        port = running.sockets[0].getsockname()[1]
        assert "does not answer" in (await why(port, authority, timeout=0.2) or "")
