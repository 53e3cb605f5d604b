import json
import ssl
import stat
import sys
from pathlib import Path

import pytest

from geniehive import membership
from geniehive.kit.errors import UserError
from geniehive.membership import Cluster, Credential
from geniehive.rules.identity import PeerKind
from tests.unit.node.support import DAY, Ca

CLUSTER = Cluster("c1", "gpu", "192.0.2.1:8804", "192.0.2.1:8805")


def test_where_control_is_is_kept(tmp_path: Path) -> None:
    assert Cluster.load(tmp_path) is None
    CLUSTER.save(tmp_path)
    assert Cluster.load(tmp_path) == CLUSTER


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        json.dumps({**CLUSTER._asdict(), "peers": ""}),
        json.dumps({**CLUSTER._asdict(), "host_id": "A B"}),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    path = membership.ensure(tmp_path) / membership.CLUSTER_FILE
    path.write_text(content)
    with pytest.raises(UserError, match=r"cluster\.json.*geniehive leave"):
        Cluster.load(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="no such modes")
def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    Ca().join(tmp_path, "h", "192.0.2.1:8805")
    files = list((tmp_path / membership.FOLDER).iterdir())
    assert {f.name for f in files} == {"ca.pem", "node.pem", "cluster.json"}
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    assert stat.S_IMODE((tmp_path / membership.FOLDER).stat().st_mode) == 0o700


def test_a_credential_is_there_again_after_a_restart(tmp_path: Path) -> None:
    made = Ca().credential(tmp_path, PeerKind.NODE, "h")
    again = Credential(tmp_path, PeerKind.NODE)
    assert (again.peer, again.serial, again.expires) == (made.peer, made.serial, made.expires)
    assert again.link == made.link
    assert Credential(tmp_path, PeerKind.GATEWAY).peer is None


def test_who_was_revoked_is_so_after_a_restart(tmp_path: Path) -> None:
    made = Ca().credential(tmp_path, PeerKind.NODE, "h")
    made.believe(made.ca, ["a1", "b2"])
    assert Credential(tmp_path, PeerKind.NODE).revoked == {"a1", "b2"}
    made.believe(made.ca, ["b2"])
    assert Credential(tmp_path, PeerKind.GATEWAY).revoked == {"b2"}
    membership.forget(tmp_path)
    assert not Credential(tmp_path, PeerKind.NODE).revoked
    assert not list((tmp_path / membership.FOLDER).iterdir())


def test_an_answer_to_another_request_is_not_taken(tmp_path: Path) -> None:
    ca = Ca()
    made = ca.credential(tmp_path, PeerKind.NODE, "h")
    serial = made.serial
    first = made.request("h")
    second = made.request("h")
    assert not made.accept(ca.issue(first, PeerKind.NODE, "h").chain)
    assert not made.accept(Ca().issue(second, PeerKind.NODE, "h").chain)
    assert not made.accept(ca.issue(second, PeerKind.GATEWAY, "h").chain)
    assert not made.accept(b"nonsense")
    assert made.serial == serial
    assert made.accept(ca.issue(second, PeerKind.NODE, "h").chain)
    assert not made.accept(ca.issue(second, PeerKind.NODE, "h").chain)  # asked once, answered once
    assert made.serial != serial


def test_a_certificate_of_a_ca_that_is_believed_no_more_is_dropped(tmp_path: Path) -> None:
    ca, other = Ca(), Ca()
    made = ca.credential(tmp_path, PeerKind.NODE, "h")
    told: list[bool] = []
    made.listeners.append(lambda: told.append(made.peer is None))
    made.believe(ca.bundle + other.bundle)
    made.believe(ca.bundle, ["1"])
    assert made.revoked == {"1"}
    made.believe(other.bundle)
    assert told == [False, False, True]
    assert made.link is None
    assert Credential(tmp_path, PeerKind.NODE).peer is None


def test_what_does_not_fit_is_not_used(tmp_path: Path) -> None:
    made = Ca().credential(tmp_path, PeerKind.NODE, "h")
    made.path.write_bytes(made.chain)  # without its key
    assert Credential(tmp_path, PeerKind.NODE).peer is None
    (tmp_path / membership.FOLDER / membership.CA_FILE).unlink()
    assert Credential(tmp_path, PeerKind.NODE).ca == b""


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    Ca().join(tmp_path, "h", "192.0.2.1:8805")
    membership.forget(tmp_path)
    assert not list((tmp_path / membership.FOLDER).iterdir())
    membership.forget(tmp_path)


def test_contexts_stay_and_show_the_new_certificate(tmp_path: Path) -> None:
    ca = Ca()
    made = ca.credential(tmp_path, PeerKind.NODE, "h", seconds=DAY)
    serving, asking = made.server_context(), made.client_context()
    assert made.accept(ca.issue(made.request("h"), PeerKind.NODE, "h").chain)
    assert made.server_context() is serving
    assert made.client_context() is asking
    assert serving.verify_mode is asking.verify_mode is ssl.CERT_REQUIRED
    assert asking.check_hostname


def test_no_key_is_shown(tmp_path: Path) -> None:
    made = Ca().credential(tmp_path, PeerKind.NODE, "h")
    assert "PRIVATE" not in f"{made!r} {made.link!r}"
