"""The wheel, installed where nothing else of ours is."""

import json
import resource
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

from geniehive import __version__
from geniehive.kit import address
from tests.packaging.conftest import Environment
from tests.support.up import until

pytestmark = pytest.mark.timeout(240)


def test_what_the_wheel_holds(wheel: Path, root: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert wheel.name == f"geniehive-{__version__}-py3-none-any.whl"
    for needed in ("geniehive/py.typed", "geniehive/v1/registry_pb2.pyi", "geniehive_control/_migrations/env.py"):
        assert needed in names
    migrations = {
        f"geniehive_control/_migrations/versions/{f.name}" for f in (root / "migrations/versions").glob("*.py")
    }
    assert migrations
    assert migrations <= names
    tops = {name.split("/")[0] for name in names}
    assert tops == {
        *("geniehive", "geniehive_control", "geniehive_node", "gateway"),
        f"geniehive-{__version__}.dist-info",
    }
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_the_base_install_is_the_client_alone(base: Environment) -> None:
    code = (
        "import importlib.util as u, json, geniehive, geniehive.client; "
        "from geniehive.v1 import registry_service_pb2_grpc, admin_service_pb2_grpc, node_service_pb2_grpc; "
        "print(json.dumps([geniehive.__file__, geniehive.connect.__name__, geniehive.connect_sync.__name__, "
        "[m for m in ('sqlalchemy', 'aiohttp', 'msgspec', 'yaml', 'alembic', 'psutil') if u.find_spec(m)]]))"
    )
    done = base.run(base.python, "-c", code)
    assert done.returncode == 0, done.stderr
    place, connect, connect_sync, extra = json.loads(done.stdout)
    assert Path(place).is_relative_to(base.folder)
    assert (connect, connect_sync, extra) == ("connect", "connect_sync", [])


def test_the_command_of_the_base_install(base: Environment) -> None:
    assert base.geniehive("version").stdout == f"geniehive {__version__}\n"
    unreachable = base.geniehive("status", "--control", f"127.0.0.1:{address.free_port()}")
    assert unreachable.returncode == 3, unreachable.stderr
    for command in ("up", "control", "node", "gateway"):
        done = base.geniehive(command)
        assert done.returncode == 2
        assert "pip install 'geniehive[all]'" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_command_starts_fast(everything: Environment) -> None:
    # Once before: an installed module is compiled at its first use.
    assert everything.geniehive("version").returncode == 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert everything.geniehive("version").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def test_the_daemons_of_the_full_install(everything: Environment) -> None:
    for daemon in ("control", "node", "gateway"):
        done = everything.geniehive(daemon, "--version")
        assert (done.returncode, done.stdout) == (0, f"geniehive {__version__}\n"), done.stderr


def test_a_cluster_from_the_wheel_answers_a_request(everything: Environment, tmp_path: Path, root: Path) -> None:
    port = address.free_port()
    ports = [p for f in ("listen", "control-listen", "relay-listen") for p in (f"--{f}", "127.0.0.1:0")]
    engine = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.support.fake_engine", "--port", str(port)),
            *("--runtime", "openai", "--models", "m", "--name", "A"),
        ],
        cwd=root,
        stdout=subprocess.DEVNULL,
    )
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        up = subprocess.Popen(
            [
                *(str(everything.bin / "geniehive"), "up", "--state-dir", str(tmp_path / "state"), "--json", *ports),
                *("--no-embedded", "--engine", f"http://127.0.0.1:{port}"),
            ],
            cwd=tmp_path,
            env=everything.environment(GENIEHIVE_NODE__DISCOVER="false"),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    try:
        until(lambda: out.read_bytes().endswith(b"\n") or up.poll() is not None, within=60)
        assert up.poll() is None, err.read_text()
        told = json.loads(out.read_text())

        def models() -> list[str]:
            listed = urllib.request.Request(f"{told['gateway']}/v1/models", headers=authorization)
            with urllib.request.urlopen(listed) as answer:
                return [entry["id"] for entry in json.load(answer)["data"]]

        authorization = {"Authorization": f"Bearer {told['key']}"}
        until(lambda: "m" in models())
        request = urllib.request.Request(
            f"{told['gateway']}/v1/chat/completions",
            json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode(),
            {**authorization, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            assert "engine A" in json.load(answer)["choices"][0]["message"]["content"]
        status = everything.geniehive("status", "--json", "--state-dir", str(tmp_path / "state"))
        assert status.returncode == 0, status.stderr
        assert json.loads(status.stdout)["cluster"]["hosts_online"] == 1
    finally:
        up.terminate()
        assert up.wait(timeout=30) == 0
        engine.kill()
        engine.wait()
