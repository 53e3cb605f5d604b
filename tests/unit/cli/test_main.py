"""The command as a whole."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from geniehive import __version__
from geniehive.cli import daemons
from geniehive.cli.__main__ import main


def run(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "geniehive.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"geniehive {__version__}\n"
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == __version__


@pytest.mark.parametrize("arguments", [["version"], ["--help"], ["up", "--help"]])
def test_it_starts_fast(root: Path, arguments: list[str]) -> None:
    # Its CPU time: what else the machine does at the moment is not its fault, and it waits for nothing.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run(root, *arguments).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def test_nothing_slow_is_imported_before_it_is_needed(root: Path) -> None:
    slow = ["grpc", "google.protobuf", "aiohttp", "sqlalchemy", "msgspec", "yaml", "rich", "http.client", "httptools"]
    code = (
        "import sys; from geniehive.cli.__main__ import main, parser; main(['version']); parser().format_help(); "
        f"print([m for m in {slow} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_lists_every_command_and_the_exit_codes(root: Path) -> None:
    printed = run(root, "--help").stdout
    for command in ("up", "join", "leave", "control", "node", "gateway", "status", "models", "chat", "version"):
        assert f"\n    {command} " in printed
    for command in ("keys", "tokens", "hosts", "credentials"):
        assert re.search(rf"\n    {command}\s", printed)
    assert "exit codes: 0 done; 1 failed" in printed


def test_a_reader_that_leaves_is_no_error(root: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "geniehive.cli", "version"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait() == 0


@pytest.mark.parametrize("name", daemons.MODULES)
def test_a_daemon_reads_its_own_options(root: Path, name: str) -> None:
    done = run(root, name, "--set", "nonsense=1")
    assert done.returncode == 2, done.stderr
    assert "unknown key 'nonsense'" in done.stderr
    assert "Traceback" not in done.stderr
