"""HTTPS for clients."""

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from gateway.http.certificate import Certificate
from gateway.http.server import HttpServer
from geniehive.kit import http1
from geniehive.kit.errors import UserError
from tests.unit.gateway.builders import until
from tests.unit.gateway.http.gateways import Gateway


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write(folder: Path, pair: trustme.LeafCert) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
    key.write_bytes(pair.private_key_pem.bytes())
    return cert, key


@asynccontextmanager
async def served(certificate: Certificate, authority: trustme.CA) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """Asks over a new connection, and gives the serial that was seen."""
    async with Gateway() as gateway:
        server = HttpServer(gateway.handler)
        url = await server.start("127.0.0.1:0", certificate.context)
        assert url.startswith("https://127.0.0.1:")
        origin = http1.Origin.parse(url)._replace(tls_name="gw.example")
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        seen: list[str] = []

        def admit(shown: Mapping[str, Any]) -> None:
            seen.append(shown["serialNumber"])

        async def look() -> str:
            async with http1.Client(trusting, admit=admit) as client:
                response = await client.request(origin, "GET", "/healthz")
                assert await response.read() == b'{"status":"ok"}'
            return seen[-1]

        yield look
        await server.drain(0.0)


def touch(file: Path) -> None:
    """As if written a second later: the clocks of file systems are coarse."""
    now = file.stat()
    os.utime(file, ns=(now.st_atime_ns, now.st_mtime_ns + 10**9))


async def test_a_new_certificate_is_used_for_new_connections(tmp_path: Path, authority: trustme.CA) -> None:
    certificate = Certificate(*write(tmp_path, authority.issue_cert("gw.example")))
    async with served(certificate, authority) as look:
        first = await look()
        assert await look() == first
        running = asyncio.create_task(certificate.run(0.01))
        try:
            touch(write(tmp_path, authority.issue_cert("gw.example"))[0])
            async with asyncio.timeout(5):
                while await look() == first:
                    pass
        finally:
            running.cancel()


async def test_a_broken_new_pair_leaves_the_old_one_and_is_told_of_once(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cert, key = write(tmp_path, authority.issue_cert("gw.example"))
    certificate = Certificate(cert, key)
    async with served(certificate, authority) as look:
        first = await look()
        running = asyncio.create_task(certificate.run(0.01))
        try:
            # A new certificate whose key is not there yet.
            cert.write_bytes(authority.issue_cert("gw.example").cert_chain_pems[0].bytes())
            touch(cert)
            await until(lambda: "The certificate in use stays" in caplog.text)
            assert await look() == first
            cert.unlink()
            await asyncio.sleep(0.05)
            assert await look() == first
            touch(write(tmp_path, authority.issue_cert("gw.example"))[0])
            await until(lambda: "is in use" in caplog.records[-1].message)
            assert await look() != first
        finally:
            running.cancel()
    assert [r.levelname for r in caplog.records if "certificate" in r.message] == ["ERROR", "INFO"]


async def test_who_speaks_no_tls_harms_nothing(tmp_path: Path, authority: trustme.CA) -> None:
    certificate = Certificate(*write(tmp_path, authority.issue_cert("gw.example")))
    async with Gateway() as gateway, http1.Client() as client:
        server = HttpServer(gateway.handler)
        url = await server.start("127.0.0.1:0", certificate.context)
        plain = http1.Origin.parse(url)._replace(scheme="http")
        with pytest.raises(http1.HttpError):
            await client.request(plain, "GET", "/healthz")
        await server.drain(0.0)


def test_files_that_can_not_be_used(tmp_path: Path, authority: trustme.CA) -> None:
    cert, key = write(tmp_path, authority.issue_cert("gw.example"))
    other = tmp_path / "other.pem"
    with pytest.raises(UserError, match=r"cannot read .*other\.pem: No such file.*tls\.cert"):
        Certificate(cert, other)
    other.write_bytes(authority.issue_cert("gw.example").private_key_pem.bytes())
    with pytest.raises(UserError, match="are no certificate with its key"):
        Certificate(cert, other)
    other.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="are no certificate with its key"):
        Certificate(other, key)


def test_a_key_with_a_password_is_refused_and_not_asked_for(tmp_path: Path, authority: trustme.CA) -> None:
    cert, key = write(tmp_path, authority.issue_cert("gw.example"))
    locked = tmp_path / "locked.pem"
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    with pytest.raises(UserError, match="the key has a password; remove it"):
        Certificate(cert, locked)


def test_an_expired_one_is_used_with_a_warning(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    Certificate(*write(tmp_path, authority.issue_cert("gw.example", not_after=yesterday)))
    assert "expired on" in caplog.text
