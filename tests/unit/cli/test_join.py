"""`geniehive join`: wrong use in process, the whole as a process with stand-ins for the daemons."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from geniehive import membership
from geniehive.cli import enrol
from geniehive.cli.__main__ import main
from geniehive.rules import join_token
from geniehive.rules.identity import PeerKind
from tests.support.tls_control import TlsControl, tls_control
from tests.support.up import Up, until

Capture = pytest.CaptureFixture[str]
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture
def control() -> Iterator[TlsControl]:
    with tls_control() as made:
        yield made


# Wrong use.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["h", "--token", "x"], '--token: this is no join token: one begins with "ghj-"'),
        (["h", "--token", "ghj-secret"], "--token: this join token is damaged"),
        (["h", "--token-file", "none"], "cannot read the key file none"),
        (["h"], "joining h:8804 needs a token"),
        (["http://h:8804"], "'http://h:8804' is no address of control: write HOST or HOST:PORT, such as 192.168.1.10"),
        ([], "has not joined a cluster"),
    ],
)
def test_wrong_use_says_what_is_right(arguments: list[str], message: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["join", "--state-dir", str(tmp_path), *arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "ghj-secret" not in printed


def test_the_token_may_come_from_file_or_environment(
    control: TlsControl, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("no token\n".replace(" ", "-"))
    assert main(["join", "h", "--state-dir", str(tmp_path), "--token-file", str(tmp_path / "token")]) == 2
    assert f"--token-file {tmp_path / 'token'}: this is no join token" in capsys.readouterr().err
    monkeypatch.setenv("GENIEHIVE_JOIN_TOKEN", "nonsense")
    assert main(["join", "h", "--state-dir", str(tmp_path)]) == 2
    assert "GENIEHIVE_JOIN_TOKEN: this is no join token" in capsys.readouterr().err
    assert "GENIEHIVE_JOIN_TOKEN" not in os.environ, "daemons that are started need it not"


# The whole.


@posix
def test_it_joins_and_tells_what_it_is(up: Up, control: TlsControl) -> None:
    run = up.start(control.address, "--token", control.token(), "--name", "pc", command="join")
    printed = run.until_up()
    assert f"This machine is h of the cluster of {control.address}." in printed
    assert "base URL" not in printed
    assert "start gateway" not in up.story
    assert set(up.settings("node")) == {"relay.listen"}
    told = json.loads((up.state / "up.json").read_text())
    assert (told["command"], told["control"], told["gateway"]) == ("join", control.address, None)
    assert run.stop(signal.SIGINT) == 0
    assert not (up.state / "up.json").exists()
    assert up.nothing_runs()


@posix
def test_a_gateway_and_engines_are_kept_for_the_next_start(up: Up, control: TlsControl) -> None:
    first = up.start(
        *(control.address, "--token", control.token(), "--gateway", "--engine", "http://127.0.0.1:9"),
        *("--advertise", "192.0.2.9", "--relay", "--name", "pc"),
        command="join",
    )
    assert "/v1\n" in first.until_up()
    assert "geniehive keys create" in first.out
    listen = up.settings("gateway")["listen"]
    first.stop()
    again = up.start(command="join", fixed_ports=True)
    again.until_up()
    node = up.settings("node")
    assert node["engines+"] == [{"url": "http://127.0.0.1:9"}]
    assert (node["relay.advertise"], node["way"]) == ("192.0.2.9", "relay")
    assert listen.endswith(":0") is False
    assert "control" not in node
    assert "control" not in up.settings("gateway")
    again.stop()
    assert sum(type(r).__name__ == "EnrollRequest" for r in control.requests) == 1


@posix
def test_a_wrong_server_gets_no_token_and_nothing_is_started(up: Up, control: TlsControl) -> None:
    with tls_control("c-other") as other:
        run = up.start(other.address, "--token", control.token(), command="join")
        assert run.ended() == 1
        assert other.requests == []
    assert "is not the control of this token" in run.err
    assert run.err.count("\n") == 1
    assert up.story == []
    assert not (up.state / "join.json").exists()


@posix
def test_it_waits_with_a_word_and_json_is_for_scripts(up: Up, control: TlsControl) -> None:
    run = up.start(control.address, "--token", control.token(), "--name", "pc", "--json", command="join")
    until(lambda: run.out.endswith("\n"))
    told = json.loads(run.out)
    assert (told["host_id"], told["cluster_id"], told["gateway"]) == ("h", "c-test", None)
    assert "ghj-" not in run.out


@posix
def test_a_node_that_is_no_longer_wanted_ends_it_with_its_words(up: Up, control: TlsControl) -> None:
    run = up.start(control.address, "--token", control.token(), "--name", "pc", command="join")
    run.until_up()
    up.tell("node", exit_later=5)
    assert run.ended() == 5
    assert up.nothing_runs()


@posix
def test_a_gateway_outlives_its_node(up: Up, control: TlsControl) -> None:
    run = up.start(control.address, "--token", control.token(), "--gateway", command="join")
    run.until_up()
    up.tell("node", exit_later=4)
    until(lambda: "node ended with exit code 4, and stays away; the gateway runs on" in run.err)
    assert run.process.poll() is None
    assert run.stop() == 0


@posix
def test_the_demo_engine_only_if_asked_for(up: Up, control: TlsControl) -> None:
    up.tell("node", notices=[up.look(0), {"notice": "registered", "host_id": "h"}])
    run = up.start(control.address, "--token", control.token(), command="join")
    assert "No engine was found." in run.until_up()
    assert "start demo" not in up.story
    run.stop()
    run = up.start("--embedded", command="join")
    assert "engines     none yet" in run.until_up()
    assert "start demo" in up.story


@posix
def test_one_of_up_and_join_per_folder(up: Up, control: TlsControl) -> None:
    first = up.start()
    first.until_up()
    second = up.start(control.address, "--token", control.token(), command="join")
    assert second.ended() == 2
    assert "`geniehive up` runs already with the state folder" in second.err
    assert control.requests == []
    first.stop()


@posix
@pytest.mark.parametrize("command", ["join", "up"])
def test_a_join_that_runs_is_told_of(up: Up, control: TlsControl, command: str) -> None:
    first = up.start(control.address, "--token", control.token(), command="join")
    first.until_up()
    second = up.start(command=command)
    assert second.ended() == 2
    assert f"`geniehive join` runs already with the state folder {up.state} (process {first.process.pid})" in second.err
    assert second.err.count("\n") == 1
    assert first.stop() == 0


@posix
def test_a_port_in_use_costs_no_token(up: Up, control: TlsControl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        run = up.start(control.address, "--token", control.token(), "--relay-listen", where, command="join")
        assert run.ended() == 2
    assert f"{where} is in use by another program" in run.err
    assert control.requests == []


@posix
def test_to_leave_while_it_runs_is_no_failure(up: Up, control: TlsControl) -> None:
    run = up.start(control.address, "--token", control.token(), command="join")
    run.until_up()
    membership.forget(up.state)
    up.tell("node", exit_later=5)
    assert run.ended() == 0
    assert "this machine has left the cluster" in run.err
    assert up.nothing_runs()


@posix
def test_a_member_does_not_run_a_cluster_of_its_own_by_accident(up: Up, control: TlsControl) -> None:
    given = join_token.read(control.token())
    up.state.mkdir()
    asyncio.run(enrol.ensure(up.state, control.address, given, "pc", (PeerKind.NODE,)))
    run = up.start()
    assert run.ended() == 2
    assert f"has joined a cluster, whose control is {control.address}: `geniehive join` runs it" in run.err
    assert up.story == []
