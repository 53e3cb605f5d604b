"""How a machine becomes a member: what it checks, sends and keeps."""

import json
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from geniehive.cli import enrol
from geniehive.kit import tls
from geniehive.kit.errors import UserError
from geniehive.membership import Cluster, Credential
from geniehive.rules import join_token
from geniehive.rules.identity import PeerKind
from geniehive.rules.join_token import JoinToken
from tests.support.tls_control import Impostor, TlsControl, tls_control

NODE, GATEWAY = PeerKind.NODE, PeerKind.GATEWAY
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def control() -> Iterator[TlsControl]:
    with tls_control() as made:
        yield made


def token(control: TlsControl) -> JoinToken:
    return join_token.read(control.token())


async def join(folder: Path, control: TlsControl, *kinds: PeerKind) -> Cluster:
    return await enrol.ensure(folder, control.address, token(control), "pc", kinds or (NODE,))


def asked(control: TlsControl) -> int:
    return sum(type(request).__name__ == "EnrollRequest" for request in control.requests)


async def test_it_keeps_what_it_was_given(control: TlsControl, tmp_path: Path) -> None:
    cluster = await join(tmp_path, control, NODE, GATEWAY)
    assert cluster == Cluster("c-test", "pc", control.address, control.peers)
    assert Cluster.load(tmp_path) == cluster
    for kind in (NODE, GATEWAY):
        credential = Credential(tmp_path, kind)
        assert credential.peer is not None
        assert credential.peer.uri == f"spiffe://c-test/{kind.value}/pc"
        assert credential.ca == control.authority.bundle
        if sys.platform != "win32":
            assert stat.S_IMODE(credential.path.stat().st_mode) == 0o600
    assert (tmp_path / "machine-id").read_text() == "pc\n"
    [request] = control.requests
    assert request.display_name


async def test_without_a_name_the_machines_own_is_offered(control: TlsControl, tmp_path: Path) -> None:
    (tmp_path / "machine-id").write_text("kept-name\n")
    cluster = await enrol.ensure(tmp_path, control.address, token(control), None, (NODE,))
    assert cluster.host_id == "kept-name"


async def test_nothing_is_sent_to_a_server_of_another_ca(control: TlsControl, tmp_path: Path) -> None:
    impostor = Impostor(tls.Authority(*tls.make_authority("in between", time.time())))
    try:
        given = token(control)
        with pytest.raises(UserError, match=r"is not the control of this token.*nothing was sent") as refused:
            await enrol.ensure(tmp_path, impostor.address, given, "pc", (NODE,))
    finally:
        impostor.close()
    assert impostor.handshakes == 1
    assert impostor.heard == b""
    assert given.text not in str(refused.value)
    assert not (tmp_path / "tls" / "cluster.json").exists()


async def test_showing_the_right_ca_without_its_key_is_not_enough(control: TlsControl, tmp_path: Path) -> None:
    class Parrot(tls.Authority):
        """Issues by a key of its own, and shows control's CA beside that."""

    forger = Parrot(*tls.make_authority("c-test", time.time()))
    forger.bundle = control.authority.bundle
    impostor = Impostor(forger)
    try:
        with pytest.raises(UserError, match=r"cannot reach control at .*certificate"):
            await enrol.ensure(tmp_path, impostor.address, token(control), "pc", (NODE,))
    finally:
        impostor.close()
    assert impostor.heard == b""


async def test_a_refused_token_says_why(control: TlsControl, tmp_path: Path) -> None:
    used = token(control)
    await enrol.ensure(tmp_path / _made(tmp_path, "a"), control.address, used, "a", (NODE,))
    with pytest.raises(UserError, match=r"refused the token: this join token is used up$") as e:
        await enrol.ensure(tmp_path / _made(tmp_path, "b"), control.address, used, "b", (NODE,))
    assert e.value.exit_code == 1
    assert used.text not in str(e.value)


def _made(folder: Path, name: str) -> str:
    (folder / name).mkdir()
    return name


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot reach control at 127\.0\.0\.1:1: nothing listens there") as error:
        await enrol.ensure(tmp_path, "127.0.0.1:1", JoinToken(b"0" * 32, b"1" * 16), "pc", (NODE,))
    assert error.value.exit_code == 3


async def test_the_port_for_those_that_have_joined(control: TlsControl, tmp_path: Path) -> None:
    words = f"{control.peers} is where control serves machines that have joined; join at its other port, usually 8804"
    with pytest.raises(UserError, match=words):
        await enrol.ensure(tmp_path, control.peers, token(control), "pc", (NODE,))
    cluster = await join(tmp_path, control)
    for given in (None, token(control)):
        with pytest.raises(UserError, match=words):
            await enrol.ensure(tmp_path, control.peers, given, None, (NODE,))
    assert Cluster.load(tmp_path) == cluster


async def test_a_taken_name_is_changed_with_a_warning(control: TlsControl, tmp_path: Path, capsys: Capture) -> None:
    control.taken.add("pc")
    cluster = await join(tmp_path, control)
    assert cluster.host_id == "pc-2"
    assert (tmp_path / "machine-id").read_text() == "pc-2\n"
    assert "is called pc already; this one goes by pc-2" in capsys.readouterr().err


async def test_the_same_line_again_uses_no_token(control: TlsControl, tmp_path: Path, capsys: Capture) -> None:
    first = await join(tmp_path, control)
    assert await join(tmp_path, control) == first
    assert "a member of that cluster already, as pc; the token is not used" in capsys.readouterr().err
    assert asked(control) == 1
    # And none is needed.
    assert await enrol.ensure(tmp_path, None, None, None, (NODE,)) == first
    assert await enrol.ensure(tmp_path, control.address, None, None, (NODE,)) == first
    assert asked(control) == 1


async def test_another_cluster_must_be_left_first(control: TlsControl, tmp_path: Path) -> None:
    await join(tmp_path, control)
    with tls_control("c-other") as other:
        for given in (token(other), None):
            with pytest.raises(UserError, match=r"member of another cluster already.*geniehive leave"):
                await enrol.ensure(tmp_path, other.address, given, None, (NODE,))
        assert other.requests == []
    assert Cluster.load(tmp_path) is not None


async def test_control_at_another_address_is_recognised(control: TlsControl, tmp_path: Path) -> None:
    await join(tmp_path, control)
    moved = control.address.replace("127.0.0.1", "localhost")
    cluster = await enrol.ensure(tmp_path, moved, None, None, (NODE,))
    assert cluster.control == moved
    assert cluster.peers == control.peers.replace("127.0.0.1", "localhost")
    assert Cluster.load(tmp_path) == cluster


async def test_an_expired_certificate_needs_a_token(control: TlsControl, tmp_path: Path) -> None:
    control.seconds = -3600.0
    with pytest.MonkeyPatch.context() as patched:
        # What it was given is good for a second.
        await join(tmp_path, control)
        late = time.time() + 100
        patched.setattr(time, "time", lambda: late)
        with pytest.raises(UserError, match=r"certificate of its node expired on 20.*tokens create.*--token TOKEN"):
            await enrol.ensure(tmp_path, None, None, None, (NODE,))
    control.seconds = 3600.0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "time", lambda: late)
        cluster = await enrol.ensure(tmp_path, None, token(control), None, (NODE,))
    assert cluster.host_id == "pc"
    assert asked(control) == 2


async def test_a_gateway_beside_a_node_needs_a_token(control: TlsControl, tmp_path: Path) -> None:
    await join(tmp_path, control)
    with pytest.raises(UserError, match=r"certificate of its gateway is missing.*--token TOKEN --gateway"):
        await enrol.ensure(tmp_path, None, None, None, (NODE, GATEWAY))
    await enrol.ensure(tmp_path, None, token(control), None, (NODE, GATEWAY))
    assert [len(r.peers) for r in control.requests if type(r).__name__ == "EnrollRequest"] == [1, 1]
    assert Credential(tmp_path, GATEWAY).chain


async def test_after_a_revocation_a_token_brings_it_back(control: TlsControl, tmp_path: Path) -> None:
    await join(tmp_path, control)
    control.revoked.add("spiffe://c-test/node/pc")
    cluster = await join(tmp_path, control)
    assert cluster.host_id == "pc"
    assert asked(control) == 2


@pytest.mark.parametrize(
    ("where", "with_token", "message"),
    [
        (None, False, "has not joined a cluster. `geniehive tokens create` on control's machine prints the line"),
        (None, True, "has not joined a cluster"),
        ("192.0.2.1", False, "joining 192.0.2.1:8804 needs a token: --token TOKEN, or --token-file FILE"),
    ],
)
async def test_what_is_missing(tmp_path: Path, where: str | None, with_token: bool, message: str) -> None:
    given = JoinToken(b"0" * 32, b"1" * 16) if with_token else None
    with pytest.raises(UserError) as error:
        await enrol.ensure(tmp_path, where, given, None, (NODE,))
    assert message in str(error.value)


async def test_a_name_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--name My PC: up to 63 of .* are allowed, as in my-pc"):
        await enrol.ensure(tmp_path, "192.0.2.1", None, "My PC", (NODE,))


async def test_a_cluster_of_ones_own_is_not_overwritten(control: TlsControl, tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "ca.key").write_text("its key")
    (tmp_path / "tls" / "ca.pem").write_text("its CA")
    with pytest.raises(UserError, match=r"holds the CA of a cluster of this machine's own.*--state-dir DIR"):
        await join(tmp_path, control)
    assert (tmp_path / "tls" / "ca.pem").read_text() == "its CA"
    assert control.requests == []


async def test_no_token_in_what_is_kept(control: TlsControl, tmp_path: Path) -> None:
    given = token(control)
    await enrol.ensure(tmp_path, control.address, given, "pc", (NODE,))
    for file in _files(tmp_path):
        assert given.text.encode() not in file.read_bytes()
    assert json.loads((tmp_path / "tls" / "cluster.json").read_text())["host_id"] == "pc"


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]
