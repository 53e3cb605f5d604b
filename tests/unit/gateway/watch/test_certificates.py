"""Certificates over the stream of routes, and control off this machine, against a control that a test plays."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.core.table import Table
from gateway.watch.certificates import Certificates
from gateway.watch.kept import KeptTable
from gateway.watch.link import Link
from gateway.watch.stream import Identity, RouteStream
from geniehive.failures import Refused
from geniehive.kit.backoff import Backoff
from geniehive.kit.clock import SystemClock
from geniehive.kit.errors import UserError
from geniehive.kit.tasks import Tasks
from geniehive.membership import Credential
from geniehive.rules.identity import PeerKind
from geniehive.v1 import failure_pb2
from tests.unit.gateway.authority import DAY, Authority
from tests.unit.gateway.builders import served, until
from tests.unit.gateway.watch.fake_routing import FakeRouting, certificate, trust, update


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@asynccontextmanager
async def watching(link: Link, credential: Credential, folder: Path) -> AsyncIterator[asyncio.Task[None]]:
    clock = SystemClock()
    stream = RouteStream(
        link,
        Identity(gateway_id="gw", instance_id="i1", version="1"),
        Table("gw"),
        KeptTable(folder / "table.pb"),
        lambda _: None,
        Certificates(credential, "gw", clock),
        backoff=Backoff(source=random.Random(1)),
        sleep=lambda _: asyncio.sleep(0.01),
    )
    tasks = Tasks()
    try:
        yield tasks.start(stream.run(), "watch")
    finally:
        await tasks.close()


def local(control: FakeRouting) -> Link:
    return Link(control.address, SystemClock(), "ghn-x")


async def test_a_gateway_beside_control_asks_for_its_first_certificate_once_told_whom_to_believe(
    tmp_path: Path, authority: Authority
) -> None:
    credential = Credential(tmp_path, PeerKind.GATEWAY)
    async with FakeRouting() as control, watching(local(control), credential, tmp_path):
        stream = await control.stream()
        await stream.subscribed()
        stream.say(update("1"))
        await stream.acked("1")
        assert stream.silent  # it was not told of any TLS
        stream.say(trust(authority.bundle, "ab"))
        csr = await stream.asked_for_certificate()
        stream.say(update("2"))  # the table does not wait for it
        await stream.acked("2")
        issued = authority.issue(PeerKind.GATEWAY, "gw", csr)
        stream.say(certificate(issued.chain))
        await until(lambda: credential.serial == issued.serial)
        assert credential.revoked == {"ab"}
    kept = Credential(tmp_path, PeerKind.GATEWAY)
    assert (kept.serial, kept.ca) == (issued.serial, authority.bundle)


async def test_it_asks_again_when_control_says_so(tmp_path: Path, authority: Authority) -> None:
    credential = Credential(tmp_path, PeerKind.GATEWAY)
    async with FakeRouting() as control, watching(local(control), credential, tmp_path):
        stream = await control.stream()
        await stream.subscribed()
        stream.say(trust(authority.bundle))
        keys = set()
        for _ in range(2):
            csr = await stream.asked_for_certificate()
            issued = authority.issue(PeerKind.GATEWAY, "gw", csr)
            stream.say(certificate(issued.chain, renew_after=0.0))
            await until(lambda issued=issued: credential.serial == issued.serial)  # type: ignore[misc]
            keys.add(credential.key)
        assert len(keys) == 2


async def test_what_was_asked_on_a_broken_stream_is_asked_on_the_next(tmp_path: Path, authority: Authority) -> None:
    credential = Credential(tmp_path, PeerKind.GATEWAY)
    async with FakeRouting() as control, watching(local(control), credential, tmp_path):
        for _ in range(2):
            stream = await control.stream()
            await stream.subscribed()
            stream.say(trust(authority.bundle))
            await stream.asked_for_certificate()
            stream.end(Refused(failure_pb2.FAILURE_REASON_CONTROL_UNAVAILABLE, "stopping"))


async def test_a_certificate_that_does_not_fit_is_not_taken(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    credential = Credential(tmp_path, PeerKind.GATEWAY)
    async with FakeRouting() as control, watching(local(control), credential, tmp_path):
        stream = await control.stream()
        await stream.subscribed()
        stream.say(trust(authority.bundle))
        await stream.asked_for_certificate()
        for chain in (b"nonsense", authority.pair(PeerKind.GATEWAY, "gw")[0]):
            stream.say(certificate(chain))
        stream.say(update("1"))
        await stream.acked("1")
        assert not credential.chain
    assert caplog.text.count("not for this gateway's request") == 2


async def test_a_kept_certificate_of_another_name_is_replaced(tmp_path: Path, authority: Authority) -> None:
    credential = authority.join(tmp_path, "other")
    async with FakeRouting() as control, watching(local(control), credential, tmp_path):
        stream = await control.stream()
        await stream.subscribed()
        stream.say(trust(authority.bundle))
        csr = await stream.asked_for_certificate()
        stream.say(certificate(authority.issue(PeerKind.GATEWAY, "gw", csr).chain))
        await until(lambda: credential.peer is not None and credential.peer.peer_id == "gw")


async def test_a_kept_certificate_past_a_third_of_its_life_is_renewed(tmp_path: Path, authority: Authority) -> None:
    credential = authority.join(tmp_path, now=time.time() - DAY / 2)
    async with FakeRouting() as control, watching(local(control), credential, tmp_path):
        stream = await control.stream()
        await stream.subscribed()
        stream.say(trust(authority.bundle))
        await stream.asked_for_certificate()


async def test_by_mutual_tls_without_a_node_key(tmp_path: Path, authority: Authority) -> None:
    async with FakeRouting(credentials=authority.control()) as control:
        credential = authority.join(tmp_path, peers=control.address)
        link = Link(control.address, SystemClock(), credential=credential)
        async with watching(link, credential, tmp_path):
            stream = await control.stream()
            assert "x-geniehive-node-key" not in stream.metadata
            assert (await stream.subscribed()).gateway_id == "gw"
            stream.say(trust(authority.bundle), update("1", *served("m", a="http://x:1")))
            await stream.acked("1")
            assert stream.silent  # its certificate is young
        assert await link.why_not() is None


async def test_a_control_of_another_ca_is_told_in_words_once(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeRouting(credentials=Authority().control()) as control:
        credential = authority.join(tmp_path, peers=control.address)
        link = Link(control.address, SystemClock(), credential=credential)
        async with watching(link, credential, tmp_path):
            await until(lambda: "is away" in caplog.text)
            await asyncio.sleep(0.1)
    said = [r.message for r in caplog.records if "is away" in r.message]
    assert len(said) == 1
    assert "its certificate is not of this cluster's CA" in said[0]


async def test_an_expired_certificate_is_told_in_words(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeRouting(credentials=authority.control()) as control:
        credential = authority.join(tmp_path, peers=control.address, seconds=60.0, now=time.time() - 3600)
        link = Link(control.address, SystemClock(), credential=credential, join="192.0.2.1:8804")
        async with watching(link, credential, tmp_path):
            await until(lambda: "is away" in caplog.text)
    assert "this gateway's certificate expired on" in caplog.text
    assert "join again: geniehive join 192.0.2.1:8804 --gateway --token" in caplog.text


async def test_a_revoked_certificate_ends_it_with_what_to_do(tmp_path: Path, authority: Authority) -> None:
    async with FakeRouting(credentials=authority.control()) as control:
        credential = authority.join(tmp_path, peers=control.address)
        link = Link(control.address, SystemClock(), credential=credential, join="192.0.2.1:8804")
        async with watching(link, credential, tmp_path) as running:
            (await control.stream()).end(Refused(failure_pb2.FAILURE_REASON_CREDENTIAL_REVOKED, "it was revoked"))
            with pytest.raises(UserError, match="To let it in, join again: geniehive join"):
                await running


async def test_a_certificate_that_is_gone_does_not_end_the_gateway(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    credential = authority.join(tmp_path, peers="192.0.2.1:8805")
    link = Link("192.0.2.1:8805", SystemClock(), credential=credential)
    credential.drop()
    async with watching(link, credential, tmp_path):
        await until(lambda: "has no certificate any more" in caplog.text)


async def test_a_url_on_all_addresses_is_told_as_others_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geniehive.kit.machine.addresses", lambda: ["192.0.2.7"])
    monkeypatch.setattr("geniehive.kit.address.local_towards", lambda host: {"192.0.2.1": "192.0.2.8"}.get(host))
    near, far = Link("127.0.0.1:1", SystemClock()), Link("192.0.2.1:1", SystemClock())
    assert await near.advertised("http://127.0.0.1:8800") == "http://127.0.0.1:8800"
    assert await near.advertised("https://0.0.0.0:8800") == "https://192.0.2.7:8800"
    assert await far.advertised("http://[::]:8800") == "http://192.0.2.8:8800"
