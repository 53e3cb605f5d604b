"""A fleet as large as a cluster may be: nobody is refused, nobody is lost, and what it costs is known."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ROOT

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]

NODES = 1000


def simulate(folder: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "geniehive.cli", "simulate", "--nodes", str(NODES), "--services", "8", "--json"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    (folder / "log").write_text(done.stderr)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(found, indent=2))
    return found


@pytest.mark.parametrize("options", [[], ["--tls"]], ids=["plain", "tls"])
def test_a_thousand_nodes_at_one_message_a_second(options: list[str], tmp_path: Path) -> None:
    found = simulate(tmp_path, "--seconds", "20", "--restart", *options)
    assert found["complete"]
    assert found["online"] == NODES
    # All at once, and nobody is turned away or taken for lost.
    assert (found["storm"]["retried"], found["storm"]["troubles"]) == (0, {})
    steady = found["steady"]
    assert steady["sessions_lost"] == 0
    assert 0.95 * NODES <= steady["messages_per_second"] <= 1.05 * NODES
    # With room for a machine that is slow or busy: this guards against the next cost of another order.
    assert found["storm"]["control_ms_per_node"] < 8
    assert steady["control_us_per_message"] < 500
    assert found["memory"]["per_node"] < (250 if options else 150) * 1024
    # Those who come back too early are told by their own gRPC that nobody listens; control itself refuses nobody.
    assert found["restart"]["registered"] == NODES
    refused = [what for what in found["restart"]["troubles"] if "onnect" not in what]
    assert not refused
