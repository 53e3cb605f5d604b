"""The session by mutual TLS, and the certificates that come over it."""

import asyncio
import logging
import ssl
from pathlib import Path

import pytest

from geniehive.failures import Refused
from geniehive.kit.errors import EXIT_REFUSED, UserError
from geniehive.membership import Credential
from geniehive.rules.identity import PeerKind
from geniehive.v1 import failure_pb2
from tests.unit.node.support import DAY, DEADLINE, Ca, FakeControl, until
from tests.unit.node.test_session import OFFER, Owner


async def test_a_joined_node_proves_itself_by_its_certificate(tmp_path: Path) -> None:
    ca = Ca()
    async with FakeControl(ca, ca.serve()) as control:
        owner = Owner(control.address, ca.credential(tmp_path, PeerKind.NODE, "h"))
        async with owner.running():
            owner.link.offer(OFFER)
            await until(lambda: owner.registered == ["h"])
            await control.tell_trust("abc")
            await until(lambda: owner.credential.revoked == {"abc"})
    assert control.proofs == ["spiffe://cluster-1/node/h"]
    assert "x-geniehive-node-key" not in control.metadata[0]
    assert not control.of("certificate_request")


async def test_its_host_id_is_that_of_the_certificate(tmp_path: Path) -> None:
    ca = Ca()
    async with FakeControl(ca, ca.serve()) as control:
        owner = Owner(control.address, ca.credential(tmp_path, PeerKind.NODE, "certified"))
        async with owner.running():
            await until(lambda: control.of("hello"))
    assert control.of("hello")[0].host_id == "certified"


async def test_a_certificate_is_renewed_over_the_open_stream(tmp_path: Path) -> None:
    ca = Ca()
    credential = ca.credential(tmp_path, PeerKind.NODE, "h", seconds=30 * DAY, ago=11 * DAY)
    before = credential.serial
    context = credential.server_context()
    async with FakeControl(ca, ca.serve()) as control:
        owner = Owner(control.address, credential)
        async with owner.running():
            owner.link.offer(OFFER)
            await until(lambda: credential.serial != before)
            assert control.sessions == 1
            control.kick()
            await until(lambda: control.sessions == 2 and owner.registered == ["h", "h"])
    assert len(control.of("certificate_request")) == 1
    assert credential.server_context() is context
    assert Credential(tmp_path, PeerKind.NODE).serial == credential.serial


async def test_a_renewal_is_due_so_long_after_receipt(tmp_path: Path) -> None:
    ca = Ca()
    async with FakeControl(ca) as control:
        control.renew_after = 1.0
        owner = Owner(control.address, Credential(tmp_path, PeerKind.NODE), certify=True)
        async with owner.running():
            await until(lambda: len(control.of("certificate_request")) == 2)
    assert control.sessions == 1


async def test_a_node_of_controls_own_machine_gets_its_certificate_over_the_session(tmp_path: Path) -> None:
    ca = Ca()
    async with FakeControl(ca) as control:
        owner = Owner(control.address, Credential(tmp_path, PeerKind.NODE), certify=True)
        async with owner.running():
            await until(lambda: owner.credential.peer)
    assert owner.credential.peer is not None
    assert owner.credential.peer.uri == "spiffe://cluster-1/node/h"
    assert control.metadata[0]["x-geniehive-node-key"] == "ghn-secret"


async def test_none_is_asked_for_where_it_is_of_no_use() -> None:
    ca = Ca()
    async with FakeControl(ca) as control:
        owner = Owner(control.address)
        async with owner.running():
            owner.link.offer(OFFER)
            await until(lambda: len(control.of("load")) == 2)
    assert owner.credential.ca == ca.bundle
    assert not control.of("certificate_request")


async def test_renamed_it_asks_for_a_certificate_of_that_name_and_uses_it(tmp_path: Path) -> None:
    ca = Ca()
    credential = ca.credential(tmp_path, PeerKind.NODE, "h")
    async with FakeControl(ca, ca.serve()) as control:
        control.rename = "h-2"
        owner = Owner(control.address, credential)
        async with owner.running():
            owner.link.offer(OFFER)
            await until(lambda: credential.peer is not None and credential.peer.peer_id == "h-2")
            control.rename = None
            control.kick()
            await until(lambda: len(control.proofs) == 2 and len(control.of("hello")) == 2)
    assert control.proofs[1] == "spiffe://cluster-1/node/h-2"
    assert control.of("hello")[1].host_id == "h-2"


async def test_a_certificate_that_cannot_be_kept_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    ca = Ca()
    async with FakeControl(ca) as control:
        owner = Owner(control.address, Credential(tmp_path, PeerKind.NODE), certify=True)
        monkeypatch.setattr("geniehive.kit.state.write_private", full)
        async with owner.running():
            owner.link.offer(OFFER)
            await until(lambda: owner.credential.peer and owner.registered)
    assert "No space left on device" in caplog.text


async def test_a_certificate_that_does_not_fit_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca = Ca()
    async with FakeControl(ca) as control:
        owner = Owner(control.address, Credential(tmp_path, PeerKind.NODE), certify=True)
        control.issuer = Ca()  # another than the one it tells of
        async with owner.running():
            await until(lambda: "none for this node's key" in caplog.text)
            assert owner.credential.peer is None


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


async def explained(control: FakeControl, credential: Credential, words: str, caplog: pytest.LogCaptureFixture) -> None:
    async with control, Owner(control.address, credential).running():
        await until(lambda: any(words in line for line in lines(caplog)))
        await asyncio.sleep(0.5)  # some attempts more
    assert len([line for line in lines(caplog) if "lost control" in line]) == 1
    assert control.sessions == 0


async def test_a_control_of_another_cluster_gets_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca, other = Ca(), Ca()
    await explained(
        FakeControl(other, other.serve()),
        ca.credential(tmp_path, PeerKind.NODE, "h"),
        "another cluster, or somebody in between",
        caplog,
    )


async def test_a_server_that_is_not_control_gets_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca = Ca()
    credential = ca.credential(tmp_path, PeerKind.NODE, "h")
    await explained(FakeControl(ca, ca.serve(name="node.example")), credential, "is for somebody else", caplog)


async def test_a_certificate_of_control_that_expired(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca = Ca()
    credential = ca.credential(tmp_path, PeerKind.NODE, "h")
    await explained(FakeControl(ca, ca.serve(DAY, 2 * DAY)), credential, "clock of one of the machines", caplog)


async def test_nobody_listens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with Owner("127.0.0.1:1", Ca().credential(tmp_path, PeerKind.NODE, "h")).running():
        await until(lambda: "nothing listens there" in caplog.text)


async def test_expired_by_both_clocks_it_ends_and_says_what_to_do(tmp_path: Path) -> None:
    ca = Ca()
    credential = ca.credential(tmp_path, PeerKind.NODE, "h", seconds=DAY, ago=2 * DAY)
    async with FakeControl(ca, ca.serve()) as control, Owner(control.address, credential).running() as task:
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(UserError, match=r"expired on .*geniehive join") as error:
                await task
    assert error.value.exit_code == EXIT_REFUSED


async def test_revoked_it_ends_and_says_what_to_do(tmp_path: Path) -> None:
    ca = Ca()
    async with FakeControl(ca, ca.serve()) as control:
        control.refuses = Refused(failure_pb2.FAILURE_REASON_CREDENTIAL_REVOKED, "its certificate was revoked")
        async with Owner(control.address, ca.credential(tmp_path, PeerKind.NODE, "h")).running() as task:
            async with asyncio.timeout(DEADLINE):
                with pytest.raises(UserError, match=r"was revoked.*geniehive join"):
                    await task


async def test_moved_it_opens_another_stream_at_once(tmp_path: Path) -> None:
    ca = Ca()
    async with FakeControl(ca, ca.serve()) as control:
        owner = Owner(control.address, ca.credential(tmp_path, PeerKind.NODE, "h"))
        async with owner.running():
            owner.link.offer(OFFER)
            await until(lambda: len(owner.registered) == 1)
            owner.link.moved()
            async with asyncio.timeout(1.0):
                await until(lambda: len(owner.registered) == 2)


async def test_no_secret_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca = Ca()
    credential = ca.credential(tmp_path, PeerKind.NODE, "h")
    with caplog.at_level("DEBUG"):
        async with FakeControl(ca, ca.serve()) as control, Owner(control.address, credential).running():
            await until(lambda: control.of("load"))
    assert "PRIVATE KEY" not in caplog.text
    assert "PRIVATE KEY" not in repr(credential)
    assert "PRIVATE KEY" not in repr(credential.link)
    assert isinstance(credential.client_context(), ssl.SSLContext)
