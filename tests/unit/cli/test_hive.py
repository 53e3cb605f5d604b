"""`geniehive up`, as a process, with stand-ins for the daemons."""

import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from geniehive.kit import tls
from geniehive.v1.admin_service_pb2 import CreateJoinTokenResponse
from tests.support.fake_control import fake_control
from tests.support.tls_control import issue
from tests.support.up import CHAT, DEMO, Up, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def test_it_tells_how_to_use_it_and_the_line_to_paste_works(up: Up) -> None:
    run = up.start()
    printed = run.until_up()
    key = (up.state / "client.key").read_text().strip()
    found = json.loads((up.state / "up.json").read_text())
    assert f"base URL    {found['gateway']}/v1" in printed
    assert f"client key  {key}" in printed
    assert str(up.state) in printed
    line = next(line for line in printed.splitlines() if line.startswith("curl "))
    words = shlex.split(line)
    assert words[1] == f"{found['gateway']}/v1/chat/completions"
    assert f"Authorization: Bearer {key}" in words
    assert json.loads(words[-1])["model"] == CHAT["id"]
    assert found["pid"] == run.process.pid
    assert stat.S_IMODE((up.state / "up.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((up.state / "client.key").stat().st_mode) == 0o600


def test_the_key_stays_the_same(up: Up) -> None:
    first = up.start()
    first.until_up()
    key = (up.state / "client.key").read_text()
    first.stop()
    again = up.start()
    again.until_up()
    assert (up.state / "client.key").read_text() == key


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_stops_all_in_order(up: Up, number: int) -> None:
    run = up.start("--embedded")
    run.until_up()
    assert run.stop(number) == 0
    assert [line for line in up.story if line.startswith("end")] == [
        "end gateway",
        "end node",
        "end demo",
        "end control",
    ]
    assert not (up.state / "up.json").exists()
    assert up.nothing_runs()


def test_it_can_be_stopped_before_everything_is_up(up: Up) -> None:
    up.tell("node", notices=[])
    run = up.start()
    until(lambda: len(up.story) == 3)
    assert run.stop(signal.SIGINT) == 0
    assert up.nothing_runs()
    assert run.out == ""


def test_the_daemons_are_told_where_they_and_the_others_are(up: Up) -> None:
    up.start().until_up()
    control, gateway, node = (up.settings(name) for name in ("control", "gateway", "node"))
    assert gateway["control"] == node["control"] == control["listen"]
    assert len({control["listen"], gateway["listen"], node["relay.listen"]}) == 3
    for name in ("control", "gateway", "node"):
        assert up.arguments(name)[:2] == ["--state-dir", str(up.state)]


def test_engines_and_providers_reach_the_node(up: Up, tmp_path: Path) -> None:
    (tmp_path / "k1").write_text("secret-1\n")
    (tmp_path / "k2").write_text("secret-2\n")
    up.start(
        *("--engine", "http://127.0.0.1:9", "--provider", "openai", "--key-file", "k1"),
        *("--engine", "http://127.0.0.1:10", "--key-file", "k2", "--no-embedded"),
        *("--provider", "mine", "--url", "https://models.example/v1", "--key-file", "k2"),
    ).until_up()
    node = up.settings("node")
    assert node["engines+"] == [
        {"url": "http://127.0.0.1:9"},
        {"url": "http://127.0.0.1:10", "key_file": str(tmp_path / "k2")},
    ]
    assert node["providers+"] == [
        {"name": "openai", "key_file": str(tmp_path / "k1")},
        {"name": "mine", "url": "https://models.example/v1", "key_file": str(tmp_path / "k2")},
    ]
    assert "secret" not in (tmp_path / "story").read_text()


def test_the_demo_engine_starts_where_nothing_was_found(up: Up) -> None:
    up.tell("node", notices=[up.look(0), {"notice": "registered", "host_id": "h"}])
    up.tell("gateway", models=[])
    run = up.start()
    until(lambda: "start demo" in up.story)
    up.tell("gateway", models=[DEMO])
    assert "tiny (demo model)" in run.until_up()
    [entry] = up.settings("node")["engines+"]
    given = up.arguments("demo")
    host, port = given[given.index("--host") + 1], given[given.index("--port") + 1]
    assert entry == {
        "name": "demo",
        "url": f"http://{host}:{port}",
        "runtime": "llamacpp",
        "demo": True,
        "operations": ["chat", "completions", "embeddings"],
    }


def test_the_demo_engine_does_not_start_where_a_model_was_found(up: Up) -> None:
    run = up.start()
    run.until_up()
    assert run.stop() == 0
    assert "start demo" not in up.story


def test_only_the_first_look_counts(up: Up) -> None:
    up.start().until_up()
    up.tell("node", notices=[up.look(0), {"notice": "registered", "host_id": "h"}])
    os.kill(up.pids("node")[0], signal.SIGKILL)
    until(lambda: len(up.pids("node")) == 2)
    up.tell("control", exit_later=1)
    until(lambda: len(up.pids("control")) >= 2)
    assert "start demo" not in up.story


def test_no_embedded_forbids_it(up: Up) -> None:
    up.tell("node", notices=[up.look(0), {"notice": "registered", "host_id": "h"}])
    up.tell("gateway", models=[])
    run = up.start("--no-embedded")
    printed = run.until_up()
    assert "No model to chat with was found" in printed
    assert "/v1/models" in next(line for line in printed.splitlines() if line.startswith("curl "))
    run.stop()
    assert "engines+" not in up.settings("node")
    assert "start demo" not in up.story


def test_a_named_engine_that_cannot_be_used_is_told(up: Up) -> None:
    look = {**up.look(0), "troubles": {"http://127.0.0.1:9": "can't be reached: Connection refused"}}
    up.tell("node", notices=[look, {"notice": "registered", "host_id": "h"}])
    up.tell("gateway", models=[])
    printed = up.start("--no-embedded", "--engine", "http://127.0.0.1:9").until_up()
    assert "http://127.0.0.1:9 can't be reached: Connection refused.\n" in printed
    # Not: name one. One was named.
    assert "--engine URL" not in printed


def test_embedded_forces_it(up: Up) -> None:
    up.start("--embedded").until_up()
    assert "start demo" in up.story


def test_everything_else_runs_without_a_demo_engine(up: Up) -> None:
    up.tell("node", notices=[up.look(0), {"notice": "registered", "host_id": "h"}])
    up.tell("gateway", models=[])
    up.tell("demo", unavailable="libgomp is missing; install libgomp1")
    assert "The demo engine could not be started: libgomp is missing; install libgomp1" in up.start().until_up()


def test_a_demo_engine_that_gives_up_says_why(up: Up) -> None:
    up.tell("node", notices=[up.look(0), {"notice": "registered", "host_id": "h"}])
    up.tell("gateway", models=[])
    up.tell("demo", exit=2, stderr="noise\ngeniehive: the model is damaged; install it again")
    printed = up.start().until_up()
    assert "The demo engine could not be started: the model is damaged; install it again" in printed


def test_a_taken_demo_port_is_no_hindrance(up: Up) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up.start("--embedded", "--embedded-listen", f"127.0.0.1:{port}").until_up()
    [entry] = up.settings("node")["engines+"]
    assert entry["url"] != f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("flag", ["--listen", "--control-listen", "--relay-listen"])
def test_a_port_in_use_names_the_flag_and_leaves_nothing_behind(up: Up, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        run = up.start(flag, address)
        assert run.ended() == 2
    assert run.err == (
        f"geniehive: {address} is in use by another program. Stop that, or choose another: {flag} HOST:PORT\n"
    )
    assert up.story == []
    assert not (up.state / "up.json").exists()


def test_a_second_one_is_told_of_the_first(up: Up) -> None:
    first = up.start()
    first.until_up()
    second = up.start()
    assert second.ended() == 2
    assert "runs already with the state folder" in second.err
    assert str(first.process.pid) in second.err
    assert "Traceback" not in second.err
    # And the first one is none the worse.
    assert (up.state / "up.json").exists()
    assert first.process.poll() is None


def test_a_killed_child_is_replaced(up: Up) -> None:
    run = up.start()
    run.until_up()
    os.kill(up.pids("gateway")[0], signal.SIGKILL)
    until(lambda: len(up.pids("gateway")) == 2, within=2.0)
    assert f"gateway was ended by SIGKILL; starting it again; its log is {up.state}/logs/gateway.log" in run.err


@pytest.mark.parametrize("daemon", ["control", "gateway", "node"])
def test_a_daemon_that_cannot_start_ends_everything_with_its_reason(up: Up, daemon: str) -> None:
    up.tell(daemon, exit=2, stderr="2030-01-01 INFO trying\ngeniehive: the database is newer than this version")
    run = up.start()
    assert run.ended() == 2
    assert run.err.splitlines()[-1] == "geniehive: the database is newer than this version"
    assert up.nothing_runs()


def test_a_daemon_that_fails_shows_its_last_lines(up: Up) -> None:
    up.tell("control", exit=1, stderr="something broke")
    run = up.start()
    until(lambda: "something broke" in run.err)
    assert "control ended with exit code 1; starting it again" in run.err
    up.tell("control", exit=2)
    assert run.ended() == 2
    assert "something broke" in (up.state / "logs" / "control.log").read_text()


def test_a_node_that_was_superseded_leaves_the_rest_running(up: Up) -> None:
    run = up.start()
    run.until_up()
    up.tell("node", exit_later=4)
    until(lambda: "node ended with exit code 4, and stays away" in run.err)
    assert run.process.poll() is None
    assert run.stop() == 0
    assert len(up.pids("node")) == 1


def test_a_gateway_that_ends_for_good_ends_everything(up: Up) -> None:
    run = up.start()
    run.until_up()
    up.tell("gateway", exit_later=5)
    assert run.ended() == 5
    assert up.nothing_runs()


def test_a_killed_one_leaves_nothing_and_can_be_started_again(up: Up) -> None:
    first = up.start()
    first.until_up()
    address = up.settings("gateway")["listen"]
    first.process.kill()
    first.process.wait()
    second = up.start("--listen", address)
    second.until_up()
    assert len(up.pids("gateway")) == 2
    until(lambda: up.story.count("end gateway") == 1)


def test_json_for_scripts(up: Up) -> None:
    run = up.start("--json")
    until(lambda: run.out.endswith("\n"))
    told = json.loads(run.out)
    assert told["key"] == (up.state / "client.key").read_text().strip()
    assert told["gateway"] == json.loads((up.state / "up.json").read_text())["gateway"]
    assert told["models"] == [CHAT["id"]]


def test_verbose_shows_the_logs_here(up: Up) -> None:
    up.tell("node", stderr="the node says this")
    run = up.start("--verbose")
    run.until_up()
    assert "the node says this" in run.err
    assert not (up.state / "logs").exists()


def test_a_state_folder_that_cannot_be_made(up: Up, tmp_path: Path) -> None:
    up.state.write_text("a file where the folder should be")
    run = up.start()
    assert run.ended() == 2
    assert "cannot make the state folder" in run.err
    assert "Traceback" not in run.err


def test_nothing_of_the_working_folder_is_imported(up: Up) -> None:
    (up.folder / "gateway").mkdir()
    (up.folder / "gateway" / "__main__.py").write_text("raise SystemExit('not ours')")
    up.start().until_up()


def test_without_the_extra_it_says_what_to_install(up: Up, root: Path) -> None:
    blocker = "import sys; sys.modules['sqlalchemy'] = None; from geniehive.cli.__main__ import main; sys.exit(main())"
    for command in (["up"], ["control", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", blocker, *command],
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "pip install 'geniehive[all]'" in done.stderr
        assert "Traceback" not in done.stderr


LAN = ("--tls-listen", "127.0.0.1:0", "--peers-port", "0")


def test_where_others_are_let_in_the_daemons_are_told(up: Up) -> None:
    run = up.start(*LAN, "--advertise", "192.0.2.9", "--relay")
    run.until_up()
    control, node = up.settings("control"), up.settings("node")
    host, _, port = control["tls.listen"].rpartition(":")
    assert host == "127.0.0.1"
    assert control["tls.peers_port"] != int(port)
    assert control["tls.advertise"] == [f"192.0.2.9:{port}"]
    assert (node["relay.advertise"], node["way"]) == ("192.0.2.9", "relay")
    assert json.loads((up.state / "up.json").read_text())["tls"] == control["tls.listen"]
    # The stand-in makes no tokens.
    assert "there is no join token" in run.err
    assert "geniehive join" not in run.out


def test_without_tls_nothing_of_it_is_said(up: Up) -> None:
    printed = up.start().until_up()
    assert set(up.settings("control")) == {"listen"}
    assert set(up.settings("node")) == {"control", "relay.listen", "engines+"}
    assert "geniehive join" not in printed


def test_who_left_lan_out_is_told_that_the_others_are_shut_out(up: Up) -> None:
    (up.state / "tls").mkdir(parents=True)
    (up.state / "tls" / "ca.key").write_text("a key")
    run = up.start()
    run.until_up()
    assert "machines that have joined can't reach this one: that takes --lan" in run.err


@pytest.mark.parametrize("as_json", [False, True])
def test_the_line_for_the_next_machine_is_printed(up: Up, as_json: bool) -> None:
    up.tell("node", notices=[up.look(1)])
    run = up.start(*LAN, *(["--json"] if as_json else []))
    until(lambda: "start node" in up.story and "start control" in up.story)
    settings = up.settings("control")
    with fake_control(int(settings["listen"].rpartition(":")[2])) as control:
        control.answers["CreateJoinToken"] = CreateJoinTokenResponse(token="ghj-x", addresses=[settings["listen"]])
        up.tell("node", notices=[up.look(1), {"notice": "registered", "host_id": "h"}])
        os.kill(up.pids("node")[0], signal.SIGKILL)
        until(lambda: run.out.endswith("\n"))
    line = f"geniehive join {settings['listen']} --token ghj-x"
    if as_json:
        join = json.loads(run.out)["join"]
        assert (join["token"], join["addresses"], join["line"]) == ("ghj-x", [settings["listen"]], line)
        assert join["install"].startswith("pipx install ")
    else:
        assert f"  {line}\n" in run.out
        assert "\n  pipx install " in run.out


def test_the_gateway_elsewhere(up: Up) -> None:
    run = up.start("--listen", "0.0.0.0:0", *LAN, "--advertise", "gpu.example")
    printed = run.until_up()
    port = up.settings("gateway")["listen"].rpartition(":")[2]
    assert f"base URL    http://127.0.0.1:{port}/v1" in printed
    assert f"elsewhere   http://gpu.example:{port}/v1" in printed


def test_https_by_a_certificate_of_ones_own(up: Up, tmp_path: Path) -> None:
    chain, key = issue(tls.Authority(*tls.make_authority("mine", time.time())), "gpu.example")
    (tmp_path / "cert.pem").write_bytes(chain)
    (tmp_path / "key.pem").write_bytes(key)
    printed = up.start("--cert", "cert.pem", "--key", "key.pem").until_up()
    gateway = up.settings("gateway")
    assert gateway["tls.cert"] == str(tmp_path / "cert.pem")
    assert gateway["tls.key"] == str(tmp_path / "key.pem")
    # By the name that the certificate is for.
    url = f"https://gpu.example:{gateway['listen'].rpartition(':')[2]}"
    assert f"base URL    {url}/v1" in printed
    assert json.loads((up.state / "up.json").read_text())["gateway"] == url


def test_a_certificate_that_is_none(up: Up, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nonsense")
    run = up.start("--cert", "cert.pem", "--key", "cert.pem")
    assert run.ended() == 2
    assert run.err == f"geniehive: --cert: {tmp_path / 'cert.pem'} holds no certificate in PEM\n"
    assert up.story == []
