"""What a user who got something wrong is told: a clear error, never a traceback, and nothing lost."""

import os
import resource
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import geniehive
from geniehive.failures import Refused
from geniehive.kit import address
from geniehive.v1 import failure_pb2
from tests.support.daemons import Cluster, client_keys, cluster_health, make_key
from tests.support.processes import ROOT, until

DAEMONS = ["geniehive_control", "geniehive_node", "gateway"]


def run(module: str, *arguments: str, limit: int | None = None, wrapper: Sequence[str] = ()) -> tuple[int, str]:
    """Exit code and standard error of a daemon that is expected to end by itself."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit is not None else None,
    )
    return done.returncode, done.stderr


def told(result: tuple[int, str], *words: str) -> None:
    code, text = result
    assert code == 2, text
    assert "Traceback" not in text
    for word in words:
        assert word in text, text


@pytest.mark.parametrize("module", DAEMONS)
class TestConfiguration:
    def test_broken_yaml(self, module: str, tmp_path: Path) -> None:
        file = tmp_path / "broken.yaml"
        file.write_text("listen: [\n")
        told(run(module, "--config", str(file)), str(file), "not valid YAML")

    def test_unknown_key(self, module: str, tmp_path: Path) -> None:
        file = tmp_path / "unknown.yaml"
        file.write_text("lissten: 127.0.0.1:1\n")
        told(run(module, "--config", str(file)), str(file), "lissten", "state_dir", "log")

    def test_wrong_type(self, module: str, tmp_path: Path) -> None:
        told(run(module, "--set", "log.level=7"), "--set log.level", "log.level", "debug")

    def test_missing_file(self, module: str, tmp_path: Path) -> None:
        told(run(module, "--config", str(tmp_path / "none.yaml")), "none.yaml", "No such file")

    def test_state_folder_that_cannot_be_made(self, module: str, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_text("")
        told(run(module, "--state-dir", str(file / "below")), str(file), "--state-dir")

    def test_state_folder_that_is_read_only(self, module: str, tmp_path: Path) -> None:
        folder = tmp_path / "state"
        folder.mkdir(mode=0o500)
        # Permissions don't bind root; a file system mounted for reading does, in a namespace of its own.
        remount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
        wrapper = ["unshare", "--mount", "sh", "-c", remount, "sh", str(folder)] if os.geteuid() == 0 else []
        told(run(module, "--state-dir", str(folder), wrapper=wrapper), str(folder), "--state-dir")


@pytest.mark.parametrize(
    ("module", "setting"),
    [("geniehive_control", "listen"), ("gateway", "listen"), ("geniehive_node", "relay.listen")],
)
def test_port_in_use(module: str, setting: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run(module, "--state-dir", str(tmp_path / "s"), "--set", f"{setting}=127.0.0.1:{port}")
    told(result, f"127.0.0.1:{port}", "in use")


@pytest.mark.parametrize(
    ("module", "settings", "named"),
    [
        # HTTP with keys may be served anywhere; without keys only here.
        ("gateway", ["listen=0.0.0.0:0", "auth.require=false"], "127.0.0.1"),
        ("gateway", ["control=192.0.2.9:8801"], "join"),
        ("geniehive_control", ["listen=0.0.0.0:0"], "tls.listen"),
        ("geniehive_control", ["tls.listen=0.0.0.0:0", "auth.require=false"], "authentication"),
        ("geniehive_node", ["control=192.0.2.9:8801"], "join"),
    ],
)
def test_nothing_is_open_or_plain_off_loopback(module: str, settings: list[str], named: str, tmp_path: Path) -> None:
    result = run(module, "--state-dir", str(tmp_path / "s"), *(part for s in settings for part in ("--set", s)))
    told(result, settings[0].partition("=")[2], named)


def test_a_full_disk_at_the_first_start(tmp_path: Path) -> None:
    result = run("geniehive_control", "--state-dir", str(tmp_path / "s"), limit=4096)
    told(result, str(tmp_path / "s"))


def contents(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


async def test_a_database_of_a_newer_version(cluster: Cluster) -> None:
    await cluster.start_control()
    await cluster.control.close()
    database = cluster.state / "control.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffff_from_the_future'")
    before = contents(database)
    result = run("geniehive_control", "--state-dir", str(cluster.state), "--set", f"listen={cluster.control_address}")
    told(result, "ffff_from_the_future", "newer")
    assert contents(database) == before


async def test_a_database_that_can_no_longer_be_written(cluster: Cluster) -> None:
    await cluster.start_control()
    engine = await cluster.start_engine("a", "m")
    await cluster.start_node("a", {"engine": engine})
    await cluster.start_gateway()
    await cluster.until_answers("m")
    async with geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive:
        await make_key(hive, "before")
        # No file of control's may grow any more: what a full disk does, whoever runs the test.
        hard = resource.prlimit(cluster.control.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(cluster.control.pid, resource.RLIMIT_FSIZE, (1, hard))
        with pytest.raises(Refused) as caught:
            await make_key(hive, "while full")
        assert caught.value.reason == failure_pb2.FAILURE_REASON_STORE_UNAVAILABLE
        assert (await cluster.chat("m"))[0] == 200
        assert (await cluster_health(hive)).HasField("store"), cluster.control.text()
        resource.prlimit(cluster.control.pid, resource.RLIMIT_FSIZE, (hard, hard))
        await make_key(hive, "after")
        assert {"before", "after"} <= {k.display_name for k in await client_keys(hive)}

        async def well() -> bool:
            return not (await cluster_health(hive)).HasField("store")

        await until("health says the store is well again", well)
    assert "Traceback" not in cluster.control.text(), cluster.control.text()


async def test_a_wrong_node_key(cluster: Cluster) -> None:
    await cluster.start_control()
    wrong = cluster.folder / "wrong.key"
    wrong.write_text("ghn-wrong")
    node = await cluster.start_node("a", {}, f"node_key.file={wrong}", wait=False)

    async def said() -> bool:
        return "key" in node.text() and "refused" in node.text().lower()

    await until("the log says that the key was refused", said)
    assert "ghn-wrong" not in node.text() + cluster.control.text()
    assert "Traceback" not in node.text()


async def test_what_clients_get_wrong(cluster: Cluster) -> None:
    await cluster.start_control()
    engine = await cluster.start_engine("a", "org/model:7b")
    await cluster.start_node("a", {"engine": engine})
    await cluster.start_gateway()
    await cluster.until_answers("org/model:7b")
    url = f"{cluster.url}/v1/chat/completions"

    async def error(status: int, **call: Any) -> dict[str, Any]:
        async with cluster.http.post(url, **call) as answer:
            body = await answer.json()
            assert answer.status == status, body
            assert set(body["error"]) >= {"message", "type", "param", "code"}
            return body["error"]  # type: ignore[no-any-return]

    good = cluster.headers()
    assert (await error(401, json={}))["code"] == "invalid_api_key"
    assert (await error(401, json={}, headers=cluster.headers("gh-wrong")))["code"] == "invalid_api_key"
    assert "JSON" in (await error(400, data=b"{broken", headers=good))["message"]
    missing = await error(404, json={"model": "org/modle:7b", "messages": []}, headers=good)
    assert missing["code"] == "model_not_found"
    assert "org/model:7b" in missing["message"]
    assert (await error(400, json={"messages": []}, headers=good))["param"] == "model"
    async with cluster.http.get(
        f"{cluster.url}/v1/models/org/model:7b", headers={"x-api-key": cluster.client_key}
    ) as answer:
        assert (await answer.json())["id"] == "org/model:7b"
    async with cluster.http.get(f"{cluster.url}/v1/models/nope", headers=good) as answer:
        assert answer.status == 404


async def test_a_tool_with_a_wrong_key_or_too_small_a_scope(cluster: Cluster) -> None:
    await cluster.start_control()
    async with geniehive.connect(cluster.control_address, key="gh-wrong") as hive:
        with pytest.raises(Refused) as caught:
            await hive.list_hosts()
        assert caught.value.reason == failure_pb2.FAILURE_REASON_CREDENTIAL_REFUSED
    async with geniehive.connect(cluster.control_address, key=cluster.client_key) as hive:
        assert list(await hive.list_hosts()) == []
        with pytest.raises(Refused) as caught:
            await make_key(hive, "no")
        assert caught.value.reason == failure_pb2.FAILURE_REASON_SCOPE_MISSING
        assert caught.value.metadata["needs"].lower() == "admin"


async def test_a_cold_gateway_without_control_says_so(cluster: Cluster) -> None:
    cluster.control_address = f"127.0.0.1:{address.free_port()}"
    await cluster.start_gateway(wait=False)
    async with cluster.http.get(f"{cluster.url}/readyz") as answer:
        assert answer.status == 503
        assert "control" in await answer.text()
    async with cluster.http.get(f"{cluster.url}/healthz") as answer:
        assert answer.status == 200
    try:
        status, body, headers = await cluster.chat("m")
    except aiohttp.ClientError as failed:
        pytest.fail(repr(failed))
    assert status == 503
    assert "control" in body["error"]["message"]
    assert "retry-after" in headers
