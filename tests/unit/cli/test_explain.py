"""`geniehive explain`, against a server that speaks as the gateway does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from geniehive.cli.__main__ import main

Capture = pytest.CaptureFixture[str]

TERMS = {"load": 0.0, "queue": 0.25, "prefill": 1.5, "decode": 4.0, "crowd": 0.5}


def endpoint(name: str, **fields: Any) -> dict[str, Any]:
    plain = {
        "endpoint": name, "tier": 0, "chosen": False, "gate": None, "reason": None, "decided_by": None,
        "wait_seconds": None, "wait_terms": None, "not_now": None, "match_score": None, "match_terms": [],
        "request_policy": None, "slots": 4, "slots_known": True, "in_flight": 1, "others": 2, "tokens_per_second": 40.0,
        "speed_from": "learned",
    }  # fmt: skip
    return plain | fields


def found(*endpoints: dict[str, Any], **fields: Any) -> dict[str, Any]:
    plain = {
        "model": "m", "operation": "chat", "kind": "asset", "target": None, "shadows": [], "prompt_tokens": 500,
        "outcome": "sent", "chosen": "gpu-1/ollama/m", "endpoints": list(endpoints), "control_unavailable": None,
        "tiers": [{"tier": 0, "label": "m", "strategy": "soonest", "expected_completion_tokens": 200}],
    }  # fmt: skip
    return plain | fields


class Gateway(ThreadingHTTPServer):
    status = 200
    answer: Any = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None, Any]] = []


class Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append((self.path, self.headers["authorization"], body))
        content = json.dumps(self.server.answer).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    with Gateway() as made:
        monkeypatch.setenv("GENIEHIVE_GATEWAY", f"http://127.0.0.1:{made.server_address[1]}")
        monkeypatch.delenv("GENIEHIVE_KEY", raising=False)
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_a_table(gateway: Gateway, capsys: Capture) -> None:
    gateway.answer = found(
        endpoint("gpu-1/ollama/m", chosen=True, wait_seconds=5.75, wait_terms=TERMS, match_score=0.625),
        endpoint(
            "gpu-2/ollama/m", not_now="gpu-2/ollama is at its limit, 4 at once", speed_from="assumed", slots_known=False
        ),
        endpoint("gpu-3/x/m", tier=None, gate="trust_tier", reason="guest is denied", decided_by="control"),
    )
    assert main(["explain", "m", "--key", "ghc-mine"]) == 0
    assert gateway.requests == [
        ("/v1/cluster/routes/explain", "Bearer ghc-mine",
         {"model": "m", "operation": "chat", "tools": False, "images": False}),
    ]  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "name     m (model)",
        "request  chat, about 500 tokens of prompt",
        "tier 0   m: soonest; answers of about 200 tokens",
        "now      sent to gpu-1/ollama/m",
    ]
    columns, first, second, third = (line.split() for line in lines[5:])
    assert columns == [
        *("NOW", "TIER", "ENDPOINT", "WAIT", "LOAD", "QUEUE", "PREFILL", "DECODE", "CROWD", "SCORE", "BUSY", "TOK/S"),
        *("WHY", "NOT"),
    ]
    assert " ".join(first) == "sent 0 gpu-1/ollama/m 5.8 s 0 250 ms 1.5 s 4.0 s 500 ms 0.62 3/4 40 -"
    assert "40?" in second
    assert "3/4?" in second
    assert lines[7].endswith("gpu-2/ollama is at its limit, 4 at once")
    assert lines[8].endswith("trust tier: guest is denied")
    assert third[2] == "gpu-3/x/m"


def test_what_the_request_is_like(gateway: Gateway, capsys: Capture) -> None:
    gateway.answer = found(outcome="unfit", chosen=None, kind="alias", target="coder", shadows=["asset"])
    given = ["--operation", "messages", "--prompt-tokens", "9000", "--max-tokens", "10", "--tools", "--session", "s"]
    assert main(["explain", "claude", *given, "--key", "k"]) == 0
    assert gateway.requests[0][2] == {
        "model": "claude", "operation": "messages", "prompt_tokens": 9000, "max_tokens": 10, "tools": True,
        "images": False, "session": "s",
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "(alias for coder)" in out
    assert "another asset of this name" in out
    assert "nobody can take such a request" in out
    assert "nobody offers it" in out


def test_policies_are_told_once_if_all_have_the_same(gateway: Gateway, capsys: Capture) -> None:
    policy = {"defaults": {"n": 4096}}
    gateway.answer = found(endpoint("a/e/m", request_policy=policy), endpoint("b/e/m", request_policy=policy))
    main(["explain", "m", "--key", "k"])
    assert capsys.readouterr().out.count('policy  {"defaults": {"n": 4096}}') == 1
    gateway.answer = found(endpoint("a/e/m", request_policy=policy), endpoint("b/e/m"))
    main(["explain", "m", "--key", "k"])
    assert 'policy  a/e/m: {"defaults": {"n": 4096}}' in capsys.readouterr().out


def test_control_is_away(gateway: Gateway, capsys: Capture) -> None:
    why = "there is no connection to it"
    gateway.answer = found(outcome="unserved", chosen=None, control_unavailable=why, kind=None)
    assert main(["explain", "m", "--key", "k"]) == 0
    out = capsys.readouterr().out
    assert f"not asked: {why}" in out
    assert "nobody can serve the name now" in out


def test_json(gateway: Gateway, capsys: Capture) -> None:
    gateway.answer = found(endpoint("a/e/m"))
    assert main(["explain", "m", "--json", "--key", "k"]) == 0
    assert json.loads(capsys.readouterr().out) == gateway.answer


def test_the_key_of_this_machine_is_one_that_may_read(gateway: Gateway, tmp_path: Path) -> None:
    for name in ("client.key", "admin.key"):
        (tmp_path / name).write_text(f"secret-{name}")
        (tmp_path / name).chmod(0o600)
    gateway.answer = found()
    assert main(["explain", "m", "--state-dir", str(tmp_path)]) == 0
    assert gateway.requests[0][1] == "Bearer secret-admin.key"


def test_what_goes_wrong(gateway: Gateway, capsys: Capture) -> None:
    gateway.status = 404
    gateway.answer = {"error": {"message": 'The model "m" does not exist'}}
    assert main(["explain", "m", "--key", "k"]) == 1
    assert 'The model "m" does not exist. `geniehive models` lists' in capsys.readouterr().err
    gateway.status, gateway.answer = 200, [1]
    assert main(["explain", "m", "--key", "k"]) == 1
    assert "is it a gateway?" in capsys.readouterr().err
    assert main(["explain", "m", "--operation", "sing"]) == 2
    assert "use chat, completions" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["explain", "m", "--prompt-tokens", "-1"])
    assert main(["explain", "m", "--key", "k", "--gateway", "http://127.0.0.1:9"]) == 3
