"""Flags, else the environment, else the state folder."""

import argparse
import json
from pathlib import Path

import pytest

from geniehive.cli import credentials
from geniehive.client import target
from geniehive.kit.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "up.json").write_text(
        json.dumps({"control": "127.0.0.1:7001", "gateway": "http://127.0.0.1:7000", "pid": 5})
    )
    (tmp_path / "admin.key").write_text("gha-local\n")
    (tmp_path / "client.key").write_text("ghc-local\n")
    return tmp_path


def given(folder: Path | None = None, **options: str) -> argparse.Namespace:
    held: dict[str, str | None] = {"control": None, "gateway": None, "key": None, "ca": None}
    return argparse.Namespace(state_dir=folder and str(folder), **{**held, **options})


def test_the_state_folder(folder: Path) -> None:
    assert credentials.control(given(folder))[:2] == ("127.0.0.1:7001", "gha-local")
    assert credentials.gateway(given(folder))[:2] == ("http://127.0.0.1:7000", "ghc-local")


def test_the_environment_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIEHIVE_CONTROL", "127.0.0.1:1")
    monkeypatch.setenv("GENIEHIVE_GATEWAY", "127.0.0.1:2/")
    monkeypatch.setenv("GENIEHIVE_KEY", "k")
    assert credentials.control(given(folder)) == ("127.0.0.1:1", "k", "the environment variable GENIEHIVE_KEY", None)
    assert credentials.gateway(given(folder))[:2] == ("http://127.0.0.1:2", "k")


def test_flags_win_over_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIEHIVE_CONTROL", "127.0.0.1:1")
    monkeypatch.setenv("GENIEHIVE_KEY", "k")
    assert credentials.control(given(folder, control="127.0.0.1:3", key="flag"))[:2] == ("127.0.0.1:3", "flag")


def test_a_local_key_stays_on_this_machine(folder: Path) -> None:
    assert credentials.control(given(folder, control="192.0.2.1:8801", ca="x")).key is None
    assert credentials.gateway(given(folder, gateway="https://example.org/v1")) == credentials.Link(
        "https://example.org", None, "nowhere; give one: --key KEY"
    )


def test_control_on_another_machine_is_known_by_a_ca(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"192\.0\.2\.1:8804 is on another machine.*tls/ca\.pem.*--ca FILE"):
        credentials.control(given(folder, control="192.0.2.1"))
    (folder / "tls").mkdir()
    (folder / "tls" / "ca.pem").write_text("kept")
    assert credentials.control(given(folder, control="192.0.2.1")).ca == folder / "tls" / "ca.pem"
    monkeypatch.setenv("GENIEHIVE_CA", "told")
    assert credentials.control(given(folder, control="192.0.2.1")).ca == Path("told")
    assert credentials.control(given(folder, control="192.0.2.1", ca="flag")).ca == Path("flag")
    # Here it is plain, unless a flag asks for TLS.
    assert credentials.control(given(folder)).ca is None
    assert credentials.control(given(folder, control="127.0.0.1", ca="flag"))[::3] == ("127.0.0.1:8804", Path("flag"))


def test_a_machine_that_joined_asks_its_own_control(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "ca.pem").write_text("kept")
    (tmp_path / "tls" / "cluster.json").write_text(json.dumps({"control": "192.0.2.1:8804"}))
    found = credentials.control(given(tmp_path))
    assert (found.target, found.ca) == ("192.0.2.1:8804", tmp_path / "tls" / "ca.pem")


def test_nothing_is_there(tmp_path: Path) -> None:
    found = credentials.control(given(tmp_path / "none"))
    assert (found.target, found.key) == ("127.0.0.1:8801", None)
    assert "does not exist" in found.key_source


@pytest.mark.parametrize("content", ["", "no json", "[]"])
def test_a_broken_up_file_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "up.json").write_text(content)
    assert credentials.read_up(tmp_path) == {}


def test_a_broken_key_file_is_an_error(folder: Path) -> None:
    (folder / "admin.key").write_text("two words")
    with pytest.raises(UserError, match="must hold one key"):
        credentials.control(given(folder))


def test_a_link_never_shows_its_key(folder: Path) -> None:
    assert "gha-local" not in repr(credentials.control(given(folder)))


def test_the_client_library_goes_by_the_same_names() -> None:
    assert credentials.CONTROL_VARIABLE == target.CONTROL_VARIABLE
    assert credentials.KEY_VARIABLE == target.KEY_VARIABLE
    assert credentials.UP_FILE == target.UP_FILE
    assert credentials.DEFAULT_CONTROL == target.DEFAULT_CONTROL
