"""`geniehive leave`: what it tells control, and what it removes."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from geniehive.cli import enrol, kept
from geniehive.cli.__main__ import main
from geniehive.kit import tls
from geniehive.kit.lock import FileLock
from geniehive.membership import Cluster, Credential
from geniehive.rules import join_token
from geniehive.rules.identity import PeerKind
from tests.support.tls_control import TlsControl, tls_control

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def control() -> Iterator[TlsControl]:
    with tls_control() as made:
        yield made


def member(folder: Path, control: TlsControl, *kinds: PeerKind) -> Path:
    """A state folder of a machine that joined."""
    folder.mkdir(exist_ok=True)
    given = join_token.read(control.token())
    asyncio.run(enrol.ensure(folder, control.address, given, "pc", kinds or (PeerKind.NODE,)))
    kept.Options().save(folder)
    return folder


def test_leaving_tells_control_and_forgets(control: TlsControl, tmp_path: Path, capsys: Capture) -> None:
    folder = member(tmp_path / "state", control, PeerKind.NODE, PeerKind.GATEWAY)
    assert main(["leave", "--state-dir", str(folder)]) == 0
    assert control.left == ["spiffe://c-test/gateway/pc", "spiffe://c-test/node/pc"]
    assert f"left the cluster of {control.address}, of which this machine was pc" in capsys.readouterr().out
    assert Cluster.load(folder) is None
    assert not Credential(folder, PeerKind.NODE).chain
    assert not (folder / "join.json").exists()
    assert (folder / "machine-id").read_text() == "pc\n"
    assert main(["leave", "--state-dir", str(folder)]) == 2
    assert "there is nothing to leave" in capsys.readouterr().err


def test_one_that_was_revoked_can_leave(control: TlsControl, tmp_path: Path) -> None:
    folder = member(tmp_path / "state", control)
    control.revoked.add("spiffe://c-test/node/pc")
    assert main(["leave", "--state-dir", str(folder)]) == 0
    assert Cluster.load(folder) is None


def test_control_out_of_reach_needs_force(tmp_path: Path, capsys: Capture) -> None:
    with tls_control() as control:
        folder = member(tmp_path / "state", control)
    assert main(["leave", "--state-dir", str(folder)]) == 3
    printed = capsys.readouterr().err
    assert f"cannot reach control at {control.peers}: nothing listens there" in printed
    assert "`geniehive leave --force`" in printed
    assert Cluster.load(folder) is not None
    assert main(["leave", "--force", "--state-dir", str(folder)]) == 0
    printed = capsys.readouterr()
    assert "control still knows this machine: geniehive hosts forget pc" in printed.out
    assert Cluster.load(folder) is None


def test_nothing_is_forgotten_under_a_join_that_runs(tmp_path: Path, capsys: Capture) -> None:
    with tls_control() as control:
        folder = member(tmp_path / "state", control)
    with FileLock(folder / "up.lock"):
        assert main(["leave", "--force", "--state-dir", str(folder)]) == 2
    assert "`geniehive join` still runs here; stop it first" in capsys.readouterr().err
    assert Cluster.load(folder) is not None


def test_a_damaged_membership_can_be_forgotten(control: TlsControl, tmp_path: Path, capsys: Capture) -> None:
    folder = member(tmp_path / "state", control)
    (folder / "tls" / "cluster.json").write_text("{")
    assert main(["leave", "--state-dir", str(folder)]) == 2
    assert "geniehive leave --force" in capsys.readouterr().err
    assert main(["leave", "--state-dir", str(folder), "--force"]) == 0
    assert Cluster.load(folder) is None


def test_leave_touches_no_cluster_of_ones_own(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "ca.pem").write_bytes(tls.make_authority("mine", 1.9e9)[0])
    for arguments in (["leave"], ["leave", "--force"]):
        assert main([*arguments, "--state-dir", str(tmp_path)]) == 2
    assert (tmp_path / "tls" / "ca.pem").exists()
