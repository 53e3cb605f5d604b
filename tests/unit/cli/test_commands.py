"""Commands that ask control: what they send, what they print, how they fail."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from geniehive.cli.__main__ import main
from geniehive.failures import Refused
from geniehive.kit import address
from geniehive.v1 import (
    admin_service_pb2,
    credential_pb2,
    failure_pb2,
    registry_pb2,
    registry_service_pb2,
    routing_service_pb2,
)
from tests.support.fake_control import FakeControl
from tests.unit.cli.test_views import route, service

Capture = pytest.CaptureFixture[str]


def fill(control: FakeControl) -> None:
    """A cluster with a host, a service that is routed to, and one that is not."""
    health = registry_service_pb2.ClusterHealth(
        cluster_id="c-1", state=registry_pb2.HEALTH_STATE_HEALTHY, host_count=1, hosts_online=1, service_count=2
    )
    health.gateways.add(gateway_id="pc", instance_id="i", base_url="http://127.0.0.1:8800", current=True)
    health.warnings.append("a name is shadowed")
    host = registry_service_pb2.HostView(agent_version="1.2")
    host.host.host_id = "pc"
    host.host.machine.os = "Debian 13"
    host.condition.availability = registry_pb2.AVAILABILITY_AVAILABLE
    control.answers = {
        "GetClusterHealth": registry_service_pb2.GetClusterHealthResponse(health=health),
        "ListHosts": registry_service_pb2.ListHostsResponse(hosts=[host]),
        "ListServices": registry_service_pb2.ListServicesResponse(
            services=[service(), service("pc/demo", routable=False, demo=True)]
        ),
        "ListRoutes": routing_service_pb2.ListRoutesResponse(routes=[route("endpoint/pc/ollama/library/qwen3:8b")]),
    }


def test_status(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    assert main(["status"]) == 0
    printed = capsys.readouterr()
    assert "c-1, healthy" in printed.out
    assert "1 of 1 online" in printed.out
    lines = printed.out.splitlines()
    [routed] = [line for line in lines if line.startswith("pc/ollama")]
    assert "direct on its host (on loopback), else relay" in routed
    assert "qwen3:8b" in routed
    [demo] = [line for line in lines if line.startswith("pc/demo")]
    assert "(demo)" in demo
    assert "no  " in demo
    assert "does not answer" in demo
    assert "pc http://127.0.0.1:8800 current" in printed.out
    assert printed.err == "geniehive: a name is shadowed\n"


def test_status_says_what_to_do_about_a_service_that_is_cut_off(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    cut_off = service("pc/vllm", routable=False)
    del cut_off.upstream.ways[:]
    cut_off.upstream.condition.reason = registry_pb2.CONDITION_REASON_UNREACHABLE
    cut_off.upstream.condition.detail = "needs a key, so --direct can't be"
    relayed = service("pc/llamacpp")
    del relayed.upstream.ways[:]
    relayed.upstream.ways.add(reason="it needs a key").relayed.SetInParent()
    control.answers["ListServices"] = registry_service_pb2.ListServicesResponse(services=[relayed, cut_off])
    assert main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    [line] = [line for line in lines if line.startswith("pc/vllm")]
    assert "  unreachable  none: needs a key, so --direct can't be  " in line
    [line] = [line for line in lines if line.startswith("pc/llamacpp")]
    assert "  relay (it needs a key)  " in line


def test_status_says_which_side_finds_a_service_unwell(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    by_node, by_probe = service("pc/vllm", routable=False), service("pc/tei", routable=False)
    by_node.upstream.condition.reason = registry_pb2.CONDITION_REASON_ENGINE
    by_node.upstream.condition.detail = "does not answer"
    by_probe.upstream.condition.reason = registry_pb2.CONDITION_REASON_PROBE
    by_probe.upstream.condition.detail = "control's probe failed: by its relay: it answers 503"
    control.answers["ListServices"] = registry_service_pb2.ListServicesResponse(services=[by_node, by_probe])
    health = registry_service_pb2.ClusterHealth(cluster_id="c-1")
    left_out = [f"endpoint/pc/vllm/m{number}" for number in range(6)]
    health.gateways.add(gateway_id="g", instance_id="1", current=True, ejected_endpoints=left_out)
    control.answers["GetClusterHealth"] = registry_service_pb2.GetClusterHealthResponse(health=health)
    assert main(["status"]) == 0
    printed = capsys.readouterr().out
    assert "its node says: does not answer" in printed
    assert "  control's probe failed: by its relay: it answers 503  " in printed
    assert "current, leaves out for now, since they failed: pc/vllm/m0, " in printed
    assert "pc/vllm/m3 and 2 more" in printed


def test_status_as_json(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    assert main(["status", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"cluster", "hosts", "services", "gateways", "warnings"}
    assert report["services"][0]["ways"][0]["kind"] == "direct"


def test_models(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    assert main(["models"]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["MODEL", "KIND", "FOR", "LOADED", "CONTEXT", "SERVED", "BY", "NOTES"]
    assert line.split() == ["qwen3:8b", "model", "chat", "yes", "4096", "pc/ollama", "-"]
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["usable"] is True


def test_models_labels_the_demo_and_says_why_nobody_serves(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    routes = [route(ruled_out=("endpoint/pc/demo/library/qwen3:8b",))]
    control.answers["ListRoutes"] = routing_service_pb2.ListRoutesResponse(routes=routes)
    assert main(["models"]) == 0
    assert "demo model; nobody serves it now: does not answer" in capsys.readouterr().out


def test_models_leaves_service_names_out_unless_asked(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    named = route("endpoint/pc/ollama/library/qwen3:8b")
    named.model = "pc/ollama"
    named.branches[0].kind = 3  # type: ignore[assignment]
    control.answers["ListRoutes"] = routing_service_pb2.ListRoutesResponse(routes=[named])
    assert main(["models"]) == 0
    assert "no models yet" in capsys.readouterr().out
    assert main(["models", "--all"]) == 0
    assert "pc/ollama  service" in capsys.readouterr().out


def test_hosts(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    assert main(["hosts", "list"]) == 0
    assert "Debian 13" in capsys.readouterr().out
    assert main(["hosts", "forget", "pc", "--force"]) == 0
    assert control.requests[-1] == admin_service_pb2.ForgetHostRequest(host_id="pc")
    assert capsys.readouterr().out == "forgot pc\n"
    assert main(["hosts", "forget", "pc", "--json", "--force"]) == 0
    assert json.loads(capsys.readouterr().out) == {"forgotten": "pc"}


@pytest.mark.parametrize(
    ("availability", "code"), [(registry_pb2.AVAILABILITY_AVAILABLE, 2), (registry_pb2.AVAILABILITY_OFFLINE, 0)]
)
def test_a_host_that_is_online_is_not_forgotten_by_accident(
    control: FakeControl, capsys: Capture, availability: registry_pb2.Availability.ValueType, code: int
) -> None:
    view = registry_service_pb2.HostView()
    view.condition.availability = availability
    control.answers["GetHost"] = registry_service_pb2.GetHostResponse(host=view)
    assert main(["hosts", "forget", "pc"]) == code
    forgotten = admin_service_pb2.ForgetHostRequest(host_id="pc") in control.requests
    assert forgotten is (code == 0)
    assert ("--force" in capsys.readouterr().err) is (code == 2)


def test_a_state_folder_without_a_key_gives_none(
    control: FakeControl, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "admin.key").write_text("gha-of-another-folder")
    monkeypatch.setenv("GENIEHIVE_STATE_DIR", str(tmp_path / "other"))
    assert main(["keys", "revoke", "k1", "--state-dir", str(tmp_path)]) == 0
    assert control.keys == [""]


def test_keys_create(control: FakeControl, capsys: Capture) -> None:
    control.answers["CreateClientKey"] = lambda request: admin_service_pb2.CreateClientKeyResponse(
        client_key=credential_pb2.ClientKey(key_id="k1", display_name=request.display_name, scopes=request.scopes),
        key="gh-secret",
    )
    assert main(["keys", "create", "laptop"]) == 0
    printed = capsys.readouterr()
    assert "gh-secret" in printed.out
    assert "can't be shown again" in printed.err
    [request] = control.requests
    assert list(request.scopes) == [credential_pb2.SCOPE_INFER, credential_pb2.SCOPE_READ]
    assert not request.HasField("expire_time")
    assert main(["keys", "create", "x", "--scope", "infer", "--scope", "admin,read", "--expires", "30d", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == "gh-secret"
    assert list(control.requests[-1].scopes) == [1, 4, 2]
    assert control.requests[-1].HasField("expire_time")


def test_keys_list_reads_every_page(control: FakeControl, capsys: Capture) -> None:
    def page(request: admin_service_pb2.ListClientKeysRequest) -> admin_service_pb2.ListClientKeysResponse:
        number = int(request.page_token or 1)
        key = credential_pb2.ClientKey(key_id=f"k{number}", scopes=[credential_pb2.SCOPE_INFER], configured=number == 2)
        return admin_service_pb2.ListClientKeysResponse(
            client_keys=[key], next_page_token=str(number + 1) if number < 3 else ""
        )

    control.answers["ListClientKeys"] = page
    assert main(["keys", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["k1", "k2", "k3"]
    assert "configuration" in lines[2]


def test_keys_revoke(control: FakeControl, capsys: Capture) -> None:
    assert main(["keys", "revoke", "k1"]) == 0
    assert control.requests[-1] == admin_service_pb2.RevokeClientKeyRequest(key_id="k1")
    assert capsys.readouterr().out == "revoked k1\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "create", "x", "--scope", "all"],
        ["keys", "create", "x", "--expires", "soon"],
        ["keys", "create", "x", "--expires", "2001-01-01"],
        ["keys", "create", "x", "--expires", "0d"],
        ["keys"],
        ["nonsense"],
        [],
    ],
)
def test_wrong_use(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: geniehive" in capsys.readouterr().err


def test_a_refusal_is_one_line(control: FakeControl, capsys: Capture) -> None:
    control.answers["ForgetHost"] = Refused(failure_pb2.FAILURE_REASON_OBJECT_NOT_FOUND, "no host is called 'pc'")
    assert main(["hosts", "forget", "pc", "--force"]) == 1
    assert capsys.readouterr().err == "geniehive: no host is called 'pc'\n"


def test_a_refused_key_says_where_it_came_from(control: FakeControl, capsys: Capture) -> None:
    control.answers["GetClusterHealth"] = Refused(failure_pb2.FAILURE_REASON_CREDENTIAL_REFUSED, "unknown key")
    assert main(["status", "--key", "wrong-key"]) == 1
    printed = capsys.readouterr().err
    assert printed == "geniehive: unknown key (the key came from --key)\n"
    assert "wrong-key" not in printed
    assert control.keys == ["Bearer wrong-key"]


def test_without_a_key_it_says_where_one_comes_from(
    control: FakeControl, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GENIEHIVE_KEY", raising=False)
    control.answers["GetClusterHealth"] = Refused(failure_pb2.FAILURE_REASON_CREDENTIAL_REFUSED, "no key was sent")
    assert main(["status", "--state-dir", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert "wants a key, and none was given. `geniehive keys create NAME --scope read` on control's machine" in printed
    assert "--key KEY" in printed
    assert "GENIEHIVE_KEY" in printed


def test_nobody_there(capsys: Capture) -> None:
    where = f"127.0.0.1:{address.free_port()}"
    assert main(["status", "--control", where]) == 3
    printed = capsys.readouterr().err
    assert f"cannot reach control at {where}" in printed
    assert "geniehive up" in printed
    assert printed.count("\n") == 1


def test_the_admin_key_of_the_state_folder_is_used(control: FakeControl, tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("gha-mine\n")
    assert main(["hosts", "forget", "pc", "--force", "--state-dir", str(tmp_path)]) == 0
    assert control.keys == ["Bearer gha-mine"]


def test_a_proxy_for_the_web_is_not_asked(control: FakeControl, root: Path) -> None:
    # In a process of its own: gRPC reads the variable when it likes.
    done = subprocess.run(
        [sys.executable, "-m", "geniehive.cli", "hosts", "forget", "pc", "--force"],
        env={**os.environ, "PYTHONPATH": str(root), "http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_address_that_is_none(capsys: Capture) -> None:
    assert main(["status", "--control", "127.0.0.1:port"]) == 2
    assert "'127.0.0.1:port' is no address" in capsys.readouterr().err


def test_columns_fit_a_terminal(control: FakeControl, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(control)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    assert main(["status"]) == 0
    assert main(["models"]) == 0
    shown = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, shown.splitlines())) <= 80
