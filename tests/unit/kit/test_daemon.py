"""The command line of the daemons, in this process; what signals do is in test_lifecycle."""

import json
import logging
from pathlib import Path

import pytest

from geniehive._version import __version__
from geniehive.kit import daemon, lifecycle, state
from geniehive.kit.errors import EXIT_OK, EXIT_USAGE

seen: list["Tiny"] = []


class Tiny(daemon.DaemonSettings, frozen=True, kw_only=True):
    listen: str = "127.0.0.1:0"


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No signal handlers, no other event loop and no log handlers of this process's."""
    monkeypatch.setattr(lifecycle, "_listen", lambda stop: None)
    monkeypatch.setattr("geniehive.kit.logs.setup", lambda level, form: logging.debug("%s %s", level, form))
    seen.clear()


async def serve(settings: Tiny, stop: lifecycle.Stop) -> None:
    assert settings.state_folder.is_dir()
    seen.append(settings)


def run(*arguments: str) -> int:
    return daemon.main("tiny", "A tiny daemon.", Tiny, serve, arguments)


def test_without_arguments_all_is_at_its_default() -> None:
    assert run() == EXIT_OK
    assert seen == [Tiny()]
    assert seen[0].state_folder == state.default_folder()


def test_file_environment_and_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text("listen: f:1\nlog: {level: error, format: json}\n")
    monkeypatch.setenv("GENIEHIVE_TINY__LISTEN", "e:1")
    monkeypatch.setenv("GENIEHIVE_OTHER__LISTEN", "other:1")
    assert run("--config", str(file), "--log-level", "debug") == EXIT_OK
    assert seen == [Tiny(listen="e:1", log=daemon.LogSettings(level="debug", format="json"))]
    assert run("--config", str(file), "--set", "listen=s:1", "--set", "log.format=text") == EXIT_OK
    assert seen[1] == Tiny(listen="s:1", log=daemon.LogSettings(level="error"))


@pytest.mark.parametrize("name", ["plain", "with space", "yes", "a: b # c", "quo'te\"s"])
def test_the_state_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    assert run("--state-dir", str(tmp_path / name)) == EXIT_OK
    assert seen[0].state_folder == tmp_path / name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "listne=x"), "unknown key 'listne'"),
        (("--config", "/missing/tiny.yaml"), "cannot read the configuration"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == EXIT_USAGE
    err = capsys.readouterr().err
    assert err.startswith("geniehive: ")
    assert said in err
    assert err.count("\n") == 1
    assert not seen


def test_a_state_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run("--state-dir", str(tmp_path / "file")) == EXIT_USAGE
    assert "cannot make the state folder" in capsys.readouterr().err


def test_the_command_line_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--help")
    assert ended.value.code == 0
    assert "configs/tiny.full.yaml" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("--version")
    assert capsys.readouterr().out == f"geniehive {__version__}\n"
    with pytest.raises(SystemExit) as ended:
        run("--log-level", "loud")
    assert ended.value.code == EXIT_USAGE


def test_a_state_folder_in_the_file_may_begin_with_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "tiny.yaml"
    file.write_text("state_dir: " + json.dumps("~/hive"))
    assert run("--config", str(file)) == EXIT_OK
    assert seen[0].state_folder == tmp_path / "hive"
