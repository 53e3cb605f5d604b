"""Control as a process of its own."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from geniehive.channels import Tls, sync_channel
from geniehive.kit import machine
from geniehive.kit.errors import EXIT_OK, EXIT_USAGE, UserError
from geniehive.rules.model import Strategy
from geniehive.v1 import admin_service_pb2, admin_service_pb2_grpc, credential_pb2
from geniehive_control.app import advertised, routing_defaults
from geniehive_control.core.defaults import RoutingDefaults
from geniehive_control.settings import ControlSettings, RoutingSettings, TlsSettings, WeightSettings
from geniehive_control.store import migrate


class Process:
    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        # The one that it is ready.
        self.notice: dict[str, str] = {}
        environment = {**os.environ, "GENIEHIVE_NOTICES": "1", "GENIEHIVE_STOP_AT_STDIN_END": "1"}
        self.child = subprocess.Popen(
            [sys.executable, "-m", "geniehive_control", "--state-dir", str(folder), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ready(self) -> str:
        """The address, once it is ready."""
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            raise AssertionError(self.end())
        notice = json.loads(line)
        assert (notice["notice"], notice["daemon"]) == ("ready", "control")
        self.notice = notice
        return str(notice["address"])

    def end(self, signal_: int | None = None) -> tuple[int, str]:
        """Exit code and log."""
        if signal_ is not None:
            self.child.send_signal(signal_)
            # Before its standard input ends, which would stop it too.
            self.child.wait(timeout=20)
        _, log = self.child.communicate(timeout=20)
        return self.child.returncode, log

    def keys(self, address: str, *, create: bool) -> list[str]:
        """Ids of the keys there are, after one more was created if asked."""
        metadata = (("authorization", "Bearer " + (self.folder / "admin.key").read_text().strip()),)
        with grpc.insecure_channel(address) as channel:
            admin = admin_service_pb2_grpc.AdminServiceStub(channel)
            if create:
                request = admin_service_pb2.CreateClientKeyRequest(display_name="x", scopes=[credential_pb2.SCOPE_READ])
                admin.CreateClientKey(request, metadata=metadata, timeout=10)
            answer = admin.ListClientKeys(admin_service_pb2.ListClientKeysRequest(), metadata=metadata, timeout=10)
            return [key.key_id for key in answer.client_keys]


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        if process.child.poll() is None:
            process.child.kill()
        process.child.communicate()


def start(processes: list[Process], folder: Path, *arguments: str) -> Process:
    process = Process(folder, "--set", "listen=127.0.0.1:0", *arguments)
    processes.append(process)
    return process


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path, processes: list[Process]) -> None:
    first = start(processes, tmp_path)
    keys = first.keys(first.ready(), create=True)
    assert len(keys) == 3
    first.end(signal.SIGKILL)
    second = start(processes, tmp_path)
    assert second.keys(second.ready(), create=False) == keys
    code, log = second.end(signal.SIGTERM)
    assert code == EXIT_OK
    assert "control stops: SIGTERM" in log
    assert "Traceback" not in log
    for name in ("control.db", "admin.key", "client.key", "node.key"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0


def test_with_listeners_for_other_machines(tmp_path: Path, processes: list[Process]) -> None:
    sets = ("--set", "tls.listen=127.0.0.1:0", "--set", "tls.peers_port=0", "--set", "tls.advertise=[c.example, 'd:9']")
    first = start(processes, tmp_path, *sets)
    first.ready()
    tls_address, peers = first.notice["tls_address"], first.notice["peers_address"]
    ca = (tmp_path / "tls" / "ca.pem").read_bytes()
    assert (tmp_path / "tls" / "ca.key").stat().st_mode & 0o077 == 0
    metadata = (("authorization", "Bearer " + (tmp_path / "admin.key").read_text().strip()),)
    with sync_channel(tls_address, Tls(ca)) as channel:
        admin = admin_service_pb2_grpc.AdminServiceStub(channel)
        request = admin_service_pb2.CreateJoinTokenRequest()
        answer = admin.CreateJoinToken(request, metadata=metadata, timeout=10)
    port = tls_address.rpartition(":")[2]
    assert list(answer.addresses) == [f"c.example:{port}", "d:9"]
    with sync_channel(peers, Tls(ca)) as channel, pytest.raises(grpc.RpcError) as caught:
        admin_service_pb2_grpc.AdminServiceStub(channel).CreateJoinToken(request, metadata=metadata, timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    first.end(signal.SIGTERM)
    second = start(processes, tmp_path, *sets)
    second.ready()
    assert (tmp_path / "tls" / "ca.pem").read_bytes() == ca
    with sync_channel(second.notice["tls_address"], Tls(ca)) as channel:
        admin = admin_service_pb2_grpc.AdminServiceStub(channel)
        listed = admin.ListJoinTokens(admin_service_pb2.ListJoinTokensRequest(), metadata=metadata, timeout=10)
    assert [token.token_id for token in listed.join_tokens] == [answer.join_token.token_id]
    code, log = second.end(signal.SIGTERM)
    assert code == EXIT_OK
    assert answer.token not in log
    assert "PRIVATE KEY" not in log


def test_where_others_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "addresses", lambda: ["192.0.2.7", "2001:db8::7"])
    for listen, advertise, expected in (
        ("0.0.0.0:1", None, ["192.0.2.7:5", "[2001:db8::7]:5"]),
        ("[::]:1", None, ["192.0.2.7:5", "[2001:db8::7]:5"]),
        ("192.0.2.1:1", None, ["192.0.2.1:5"]),
        ("0.0.0.0:1", ["[2001:db8::1]", "a.b:7"], ["[2001:db8::1]:5", "a.b:7"]),
    ):
        settings = ControlSettings(tls=TlsSettings(listen=listen, advertise=advertise))
        assert advertised(settings.tls, 5) == expected


def test_it_ends_with_its_supervisor(tmp_path: Path, processes: list[Process]) -> None:
    process = start(processes, tmp_path)
    process.ready()
    code, log = process.end()
    assert code == EXIT_OK
    assert "the supervisor ended" in log


def fails(process: Process) -> str:
    """What a user sees when control can't start."""
    code, log = process.end()
    assert code == EXIT_USAGE, log
    assert "Traceback" not in log
    return log


def test_a_port_in_use(tmp_path: Path, processes: list[Process]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"cannot listen on {where}" in fails(start(processes, tmp_path, "--set", f"listen={where}"))


def test_a_database_of_a_newer_version(tmp_path: Path, processes: list[Process]) -> None:
    with sqlite3.connect(tmp_path / "control.db") as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    connection.close()
    log = fails(start(processes, tmp_path))
    assert "9999" in log
    assert migrate.HEAD in log
    assert "Upgrade GenieHive" in log


def test_what_is_no_database(tmp_path: Path, processes: list[Process]) -> None:
    (tmp_path / "control.db").write_text("something else " * 100)
    assert "file is not a database" in fails(start(processes, tmp_path))


def test_a_state_folder_that_cannot_be(tmp_path: Path, processes: list[Process]) -> None:
    (tmp_path / "file").write_text("")
    assert "state folder" in fails(start(processes, tmp_path / "file" / "state"))


def test_wrong_settings(tmp_path: Path, processes: list[Process]) -> None:
    started = [
        start(processes, tmp_path, *(word for setting in settings for word in ("--set", setting)))
        for settings in (
            ["lease_tll=3"],
            ["database_url=mysql://x/y"],
            ["listen=127.0.0.1:0", "tls.listen=127.0.0.1:0", "auth.require=false"],
            ["database_url=postgresql://u:hidden@127.0.0.1:1/d"],
        )
    ]
    unknown, kind, open_, away = map(fails, started)
    assert "lease_tll" in unknown
    assert "mysql" in kind
    assert "authentication is off" in open_
    assert "hidden" not in away
    assert "127.0.0.1:1" in away


def test_routing_as_it_is_set() -> None:
    assert routing_defaults(RoutingSettings()) == RoutingDefaults()
    weights = WeightSettings(role_text=0.5, role_runtime=0.5, role_benchmark=0.0, role_family=0.0)
    found = routing_defaults(
        RoutingSettings(
            default_strategy="least_loaded",
            allow_hosted=True,
            found_names=False,
            disable_thinking=False,
            weights=weights,
        )
    )
    assert (found.strategy, found.allow_hosted) == (Strategy.LEAST_LOADED, True)
    assert (found.found_names, found.thinking_off) == (False, False)
    assert (found.weights.role_text, found.weights.service_runtime) == (0.5, 0.45)
    with pytest.raises(UserError, match=r"service_text, service_runtime, service_benchmark must add up to 1, .* 1\.8"):
        routing_defaults(RoutingSettings(weights=WeightSettings(service_text=1.0)))


def test_a_catalogue_that_is_none(tmp_path: Path, processes: list[Process]) -> None:
    file = tmp_path / "roles.yaml"
    file.write_text("roles:\n- {role_id: a, operation: chat, routing_policy: {strategy: fastest}}\n")
    code, log = start(processes, tmp_path, "--set", f"catalogue={file}").end()
    assert code == EXIT_USAGE
    assert f"{file}, line 2: roles[0].routing_policy.strategy: " in log
    code, log = start(processes, tmp_path, "--set", "routing.default_strategy=fastest").end()
    assert code == EXIT_USAGE
    assert "routing.default_strategy" in log
