"""The command `geniehive simulate`, with a control of its own and with an existing one."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from geniehive.cli.__main__ import main
from geniehive.cli.throwaway import ThrowAwayControl
from geniehive.client import connect
from geniehive.kit import lifecycle

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "0"], "write a number from 1 to 100000"),
        (["--services", "x"], "write a number from 1 to 100000"),
        (["--seconds", "0"], "write seconds"),
        (["--interval", "soon"], "write seconds"),
    ],
)
def test_wrong_figures(arguments: list[str], message: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--key", "k"], "--key belongs to an existing control"),
        (["--token", "t"], "--token belongs to an existing control"),
        (["--node-key-file", "f"], "--node-key-file belongs to an existing control"),
        (["--control", "127.0.0.1:1", "--restart"], "--restart kills control"),
        (["--control", "127.0.0.1:1", "--tls"], "needs a join token for 100 machines"),
        (["--control", "192.0.2.1:8804"], "geniehive tokens create --uses 100"),
        (["--control", "127.0.0.1:1"], "cannot read the key file"),
        (["--control", "127.0.0.1:1", "--token", "t"], "this is no join token"),
        (["--control", "192.0.2.1:8804", "--token", "t"], "this is no join token"),
    ],
)
def test_wrong_use_says_what_is_right(arguments: list[str], message: str, capsys: Capture) -> None:
    assert main(["simulate", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_more_nodes_than_the_system_has_files_for(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "allow_many_files", lambda: 1024)
    assert main(["simulate", "--nodes", "1000"]) == 2
    assert "allows 1024 open files" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--tls"]], ids=["plain", "tls"])
def test_a_control_of_its_own(options: list[str], capsys: Capture) -> None:
    size = ["--nodes", "4", "--services", "2", "--seconds", "0.5", "--interval", "0.1"]
    assert main(["simulate", *size, "--restart", "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["complete"], found["online"], found["left_behind"]) == (True, 4, "")
    for storm in (found["storm"], found["restart"]):
        assert storm["registered"] == 4
    assert found["steady"]["messages"] > 4
    assert found["steady"]["sessions_lost"] == 0
    assert found["steady"]["control_us_per_message"] >= 0
    assert found["memory"]["after"] > found["memory"]["before"] > 0


def test_what_people_see(capsys: Capture) -> None:
    assert main(["simulate", "--nodes", "2", "--seconds", "0.2", "--interval", "0.1"]) == 0
    printed = capsys.readouterr()
    assert "2 nodes connect" in printed.err
    assert "2 registered after" in printed.out
    assert "hosts online" in printed.out
    assert "us a message" not in printed.out


@pytest.mark.parametrize("forget", [True, False], ids=["with admin key", "without"])
async def test_an_existing_control(forget: bool, tmp_path: Path) -> None:
    """Its hosts are forgotten at the end, or the user is told that they are not."""
    async with ThrowAwayControl(tmp_path, tls=False) as control:
        await control.ready()
        arguments = ["--control", control.target, "--state-dir", str(tmp_path), "--nodes", "2", "--seconds", "0.1"]
        key = control.link.key if forget else "none"
        command = [sys.executable, "-m", "geniehive.cli", "simulate", *arguments, "--key", str(key), "--json"]
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
        out, err = await process.communicate()
        assert process.returncode == 0, err
        async with connect(control.target, key=control.link.key) as hive:
            left = [view.host.host_id for view in await hive.list_hosts()]
    found = json.loads(out)
    assert found["storm"]["registered"] == 2
    if forget:
        assert (left, found["online"], found["left_behind"]) == ([], 2, "")
    else:
        assert left == ["sim-0001", "sim-0002"]
        assert (found["online"], found["left_behind"]) == (None, "sim-0001 to sim-0002")
        assert b"control still knows the hosts sim-0001 to sim-0002" in err
