"""`geniehive tokens` and `geniehive credentials`: what they send and print."""

import json
from pathlib import Path

import pytest

from geniehive.cli.__main__ import main
from geniehive.failures import Refused
from geniehive.v1 import admin_service_pb2 as pb
from geniehive.v1 import credential_pb2, failure_pb2
from tests.support.fake_control import FakeControl
from tests.support.tls_control import tls_control

Capture = pytest.CaptureFixture[str]


def created(*addresses: str) -> pb.CreateJoinTokenResponse:
    made = pb.JoinToken(token_id="t1", uses_left=3, peer_kinds=[credential_pb2.PEER_KIND_NODE])
    made.expire_time.FromSeconds(1_900_000_000)
    return pb.CreateJoinTokenResponse(join_token=made, token="ghj-secret", addresses=addresses)


def test_create_prints_the_line_for_the_machine(control: FakeControl, capsys: Capture) -> None:
    control.answers["CreateJoinToken"] = created("192.0.2.1:8804", "192.0.2.2:8804")
    assert main(["tokens", "create"]) == 0
    printed = capsys.readouterr()
    assert "  geniehive join 192.0.2.1:8804 --token ghj-secret\n" in printed.out
    assert "If control is not reached there, try 192.0.2.2:8804." in printed.out
    assert "can't be shown again" in printed.err
    [request] = control.requests
    assert request == pb.CreateJoinTokenRequest(uses=1)


def test_create_asks_for_what_it_is_told(control: FakeControl, capsys: Capture) -> None:
    control.answers["CreateJoinToken"] = created("192.0.2.1:8804")
    assert (
        main(["tokens", "create", "--uses", "3", "--ttl", "12h", "--kind", "node", "--kind", "gateway", "--json"]) == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["token"] == "ghj-secret"
    assert told["addresses"] == ["192.0.2.1:8804"]
    assert told["line"] == "geniehive join 192.0.2.1:8804 --token ghj-secret --gateway"
    assert told["expires"] == "2030-03-17T17:46:40Z"
    [request] = control.requests
    assert (request.uses, request.ttl.seconds, list(request.peer_kinds)) == (3, 43200, [1, 2])


def test_without_an_address_it_says_so(control: FakeControl, capsys: Capture) -> None:
    control.answers["CreateJoinToken"] = created()
    assert main(["tokens", "create"]) == 0
    printed = capsys.readouterr()
    assert "geniehive join HOST:PORT --token ghj-secret" in printed.out
    assert "put its address in place of HOST:PORT" in printed.err


def test_the_address_of_control_elsewhere_is_the_one_to_join_at(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geniehive.cli import tokens

    assert tokens._addresses(["192.0.2.1:8804", "10.0.0.1:8804"], "10.0.0.1:8804") == [
        "10.0.0.1:8804",
        "192.0.2.1:8804",
    ]
    # And by TLS it is asked as without.
    with tls_control() as elsewhere:
        (tmp_path / "ca.pem").write_bytes(elsewhere.authority.bundle)
        elsewhere.answers["CreateJoinToken"] = created("192.0.2.1:8804")
        assert main(["tokens", "create", "--control", elsewhere.address, "--ca", str(tmp_path / "ca.pem")]) == 0
    assert "geniehive join 192.0.2.1:8804" in capsys.readouterr().out


def test_list_and_revoke(control: FakeControl, capsys: Capture) -> None:
    control.answers["ListJoinTokens"] = pb.ListJoinTokensResponse(join_tokens=[created().join_token])
    assert main(["tokens", "list"]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["ID", "FOR", "USES", "LEFT", "EXPIRES"]
    assert line.split() == ["t1", "node", "3", "2030-03-17T17:46:40Z"]
    assert main(["tokens", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"][0]["kinds"] == ["node"]
    assert main(["tokens", "revoke", "t1"]) == 0
    assert control.requests[-1] == pb.RevokeJoinTokenRequest(token_id="t1")
    assert capsys.readouterr().out == "revoked t1\n"


def test_a_cluster_without_tls_says_what_to_do(control: FakeControl, capsys: Capture) -> None:
    control.answers["CreateJoinToken"] = Refused(failure_pb2.FAILURE_REASON_UNSPECIFIED, "set tls.listen first")
    assert main(["tokens", "create"]) == 1
    assert capsys.readouterr().err == "geniehive: set tls.listen first\n"


@pytest.mark.parametrize("kind", ["node", "gateway"])
def test_credentials_revoke(control: FakeControl, capsys: Capture, kind: str) -> None:
    assert main(["credentials", "revoke", kind, "pc"]) == 0
    number = {"node": credential_pb2.PEER_KIND_NODE, "gateway": credential_pb2.PEER_KIND_GATEWAY}[kind]
    assert control.requests[-1] == pb.RevokeCredentialRequest(kind=number, peer_id="pc")
    assert capsys.readouterr().out == f"revoked the certificates of {kind} pc; to come back it must join again\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["tokens", "create", "--uses", "0"],
        ["tokens", "create", "--uses", "x"],
        ["tokens", "create", "--ttl", "soon"],
        ["tokens", "create", "--kind", "tool"],
        ["credentials", "revoke", "host", "pc"],
    ],
)
def test_wrong_use(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: geniehive" in capsys.readouterr().err


def test_control_elsewhere_that_is_not_reached_says_why(capsys: Capture, tmp_path: Path) -> None:
    with tls_control() as control, tls_control() as other:
        (tmp_path / "ca.pem").write_bytes(other.authority.bundle)
        where = ["--control", control.address, "--ca", str(tmp_path / "ca.pem"), "--key", "gh-secret"]
        assert main(["tokens", "revoke", "t1", *where]) == 3
        assert control.requests == []
    printed = capsys.readouterr().err
    assert f"cannot reach control at {control.address}: its certificate is not of this cluster's CA" in printed
    assert "--ca FILE" in printed
    assert "gh-secret" not in printed
