import json
import time
from pathlib import Path

import pytest

from geniehive.channels import Tls
from geniehive.client import target
from geniehive.kit import state, tls
from geniehive.kit.errors import UserError


@pytest.fixture
def folder() -> Path:
    return state.ensure_folder(state.default_folder())


def ca_file(path: Path) -> bytes:
    certificate, _ = tls.make_authority("a test", time.time())
    path.write_bytes(certificate)
    return certificate


def test_the_default_address_without_a_key() -> None:
    assert target.find() == ("127.0.0.1:8801", None, None)
    assert target.find().metadata == ()


def test_what_up_left_in_the_state_folder(folder: Path) -> None:
    (folder / "up.json").write_text(json.dumps({"control": "127.0.0.1:9001", "gateway": "http://127.0.0.1:9000"}))
    (folder / "admin.key").write_text("gha-secret\n")
    assert target.find() == ("127.0.0.1:9001", "gha-secret", None)
    assert target.find().metadata == (("authorization", "Bearer gha-secret"),)


def test_the_environment_wins_over_the_state_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "up.json").write_text(json.dumps({"control": "127.0.0.1:9001"}))
    (folder / "admin.key").write_text("gha-secret\n")
    monkeypatch.setenv("GENIEHIVE_CONTROL", "127.0.0.1:9002")
    monkeypatch.setenv("GENIEHIVE_KEY", "gh-mine")
    assert target.find() == ("127.0.0.1:9002", "gh-mine", None)


def test_what_is_given_wins_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIEHIVE_CONTROL", "127.0.0.1:9002")
    monkeypatch.setenv("GENIEHIVE_KEY", "gh-mine")
    assert target.find("[::1]:9003", "gh-given") == ("[::1]:9003", "gh-given", None)
    assert target.find("localhost").control == "localhost:8801"


def test_this_machines_key_goes_to_no_other_machine(folder: Path) -> None:
    (folder / "admin.key").write_text("gha-secret\n")
    ca_file(folder / "ca.pem")
    assert target.find("192.0.2.7:8801", ca=folder / "ca.pem").key is None


def test_control_elsewhere_is_known_by_the_ca_that_is_given_told_or_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"192\.0\.2\.7:8804 is on another machine.*--ca FILE"):
        target.find("192.0.2.7")
    (folder / "tls").mkdir()
    kept, told, given = (ca_file(folder / name) for name in ("tls/ca.pem", "told.pem", "given.pem"))
    assert target.find("192.0.2.7") == ("192.0.2.7:8804", None, Tls(kept))
    monkeypatch.setenv("GENIEHIVE_CA", str(folder / "told.pem"))
    assert target.find("192.0.2.7").tls == Tls(told)
    assert target.find("192.0.2.7", ca=folder / "given.pem").tls == Tls(given)
    # Here it is plain, unless the caller wants TLS.
    assert target.find("localhost").tls is None
    assert target.find("localhost", ca=folder / "given.pem") == ("localhost:8804", None, Tls(given))


def test_a_machine_that_joined_calls_its_own_control(folder: Path) -> None:
    (folder / "tls").mkdir()
    (folder / "tls" / "cluster.json").write_text(json.dumps({"control": "192.0.2.7:8804"}))
    kept = ca_file(folder / "tls" / "ca.pem")
    assert target.find() == ("192.0.2.7:8804", None, Tls(kept))


@pytest.mark.parametrize(
    "content", ["", "no PEM", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "ümlaut"]
)
def test_a_ca_that_is_none(folder: Path, content: str) -> None:
    (folder / "ca.pem").write_text(content)
    with pytest.raises(UserError, match="holds no certificate in PEM"):
        target.find("192.0.2.7", ca=folder / "ca.pem")
    with pytest.raises(UserError, match="cannot read the CA's certificate"):
        target.find("192.0.2.7", ca=folder / "none.pem")


def test_an_empty_key_is_none(folder: Path) -> None:
    (folder / "admin.key").write_text("gha-secret\n")
    assert target.find(key="").key is None


def test_a_broken_file_is_named(folder: Path) -> None:
    (folder / "up.json").write_text("{")
    with pytest.raises(UserError, match=r"up\.json.*Delete it"):
        target.find()


@pytest.mark.parametrize("key", ["two words", "new\nline", "ümlaut", "tab\t"])
def test_a_key_that_can_be_no_header_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(UserError) as refused:
        target.find(key=key)
    assert key not in str(refused.value)


def test_no_key_in_its_repr() -> None:
    assert "gh-secret" not in repr(target.find(key="gh-secret"))


def test_an_address_that_is_none() -> None:
    with pytest.raises(UserError, match="HOST:PORT"):
        target.find("127.0.0.1:port")
