import json
from pathlib import Path

import pytest

from geniehive.client import target
from geniehive.kit import state
from geniehive.kit.errors import UserError


@pytest.fixture
def folder() -> Path:
    return state.ensure_folder(state.default_folder())


def test_the_default_address_without_a_key() -> None:
    assert target.find() == ("127.0.0.1:8801", None)
    assert target.find().metadata == ()


def test_what_up_left_in_the_state_folder(folder: Path) -> None:
    (folder / "up.json").write_text(json.dumps({"control": "127.0.0.1:9001", "gateway": "http://127.0.0.1:9000"}))
    (folder / "admin.key").write_text("gha-secret\n")
    assert target.find() == ("127.0.0.1:9001", "gha-secret")
    assert target.find().metadata == (("authorization", "Bearer gha-secret"),)


def test_the_environment_wins_over_the_state_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "up.json").write_text(json.dumps({"control": "127.0.0.1:9001"}))
    (folder / "admin.key").write_text("gha-secret\n")
    monkeypatch.setenv("GENIEHIVE_CONTROL", "127.0.0.1:9002")
    monkeypatch.setenv("GENIEHIVE_KEY", "gh-mine")
    assert target.find() == ("127.0.0.1:9002", "gh-mine")


def test_what_is_given_wins_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIEHIVE_CONTROL", "127.0.0.1:9002")
    monkeypatch.setenv("GENIEHIVE_KEY", "gh-mine")
    assert target.find("[::1]:9003", "gh-given") == ("[::1]:9003", "gh-given")
    assert target.find("localhost").control == "localhost:8801"


def test_this_machines_key_goes_to_no_other_machine(folder: Path) -> None:
    (folder / "admin.key").write_text("gha-secret\n")
    assert target.find("192.0.2.7:8801").key is None


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
