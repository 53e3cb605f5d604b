"""`geniehive chat`, against a server that speaks as the gateway does."""

import io
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from geniehive.cli import credentials
from geniehive.cli.__main__ import main
from geniehive.kit import address, tls
from geniehive.membership import Cluster
from tests.support.tls_control import Impostor
from tests.support.up import until

Capture = pytest.CaptureFixture[str]


class Gateway(socketserver.ThreadingTCPServer):
    """Answers with `status` and `parts`; None as a part is the end of the connection in the middle."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.parts: list[bytes | None] = []
        self.hold = threading.Event()
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.lost_client = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has heard enough leaves, which is not to be seen in the output that tests look at."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def completion(self, text: str) -> None:
        self.parts = [json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()]

    def stream(self, *texts: str) -> None:
        self.parts = [
            b"data: " + json.dumps({"choices": [{"delta": {"content": t}}]}).encode() + b"\n\n" for t in texts
        ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
        self.send_response(self.server.status)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for part in self.server.parts:
            if part is None:
                self.close_connection = True
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.flush()
        if self.server.hold.is_set():
            # Until the client leaves.
            self.rfile.read(1)
            self.server.lost_client.set()
        else:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    with Gateway() as made:
        monkeypatch.setenv("GENIEHIVE_GATEWAY", made.url)
        monkeypatch.setenv("GENIEHIVE_KEY", "ghc-mine")
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_an_answer(gateway: Gateway, capsys: Capture) -> None:
    gateway.completion("Hello.")
    assert main(["chat", "a/b:c", "say", "hello", "--system", "Be brief.", "--max-tokens", "5"]) == 0
    assert capsys.readouterr().out == "Hello.\n"
    [(path, headers, body)] = gateway.requests
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer ghc-mine"
    assert body == {
        "model": "a/b:c",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "say hello"}],
        "max_tokens": 5,
    }


def test_the_prompt_from_standard_input(gateway: Gateway, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.completion("Hello.")
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe\n"))
    assert main(["chat", "m"]) == 0
    assert gateway.requests[0][2]["messages"][0]["content"] == "from a pipe"
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["chat", "m"]) == 2
    assert "nothing to ask" in capsys.readouterr().err


def test_the_prompt_may_follow_the_options(gateway: Gateway, capsys: Capture) -> None:
    gateway.parts = [b'data: {"choices":[{"delta":{"content":"yes"}}]}\n\n', b"data: [DONE]\n\n"]
    assert main(["chat", "m", "--stream", "say", "yes", "--gateway", gateway.url]) == 0
    assert gateway.requests[0][2]["messages"] == [{"role": "user", "content": "say yes"}]


def test_an_unknown_option_is_no_prompt(gateway: Gateway, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["chat", "m", "--streem", "say", "--gateway", gateway.url])
    assert gateway.requests == []


def test_the_url_may_have_v1(gateway: Gateway) -> None:
    gateway.completion("Hello.")
    assert main(["chat", "m", "x", "--gateway", gateway.url + "/v1/"]) == 0
    assert gateway.requests[0][0] == "/v1/chat/completions"


def test_a_stream(gateway: Gateway, capsys: Capture) -> None:
    gateway.stream("Hel", "lo", "")
    gateway.parts += [b": comment\n\n", b'data: {"choices": [], "usage": {}}\n\ndata: [DO', b"NE]\n\n"]
    assert main(["chat", "m", "x", "--stream"]) == 0
    assert capsys.readouterr().out == "Hello\n"
    assert gateway.requests[0][2]["stream"] is True


def test_a_stream_as_json_is_its_events(gateway: Gateway, capsys: Capture) -> None:
    gateway.stream("a", "b")
    gateway.parts.append(b"data: [DONE]\n\n")
    assert main(["chat", "m", "x", "--stream", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["choices"][0]["delta"]["content"] for e in events] == ["a", "b"]


@pytest.mark.parametrize("end", [[], [None]])
def test_a_stream_that_is_cut_off_is_no_success(gateway: Gateway, capsys: Capture, end: list[bytes | None]) -> None:
    gateway.stream("Hel")
    gateway.parts += end
    assert main(["chat", "m", "x", "--stream"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "Hel\n"
    assert "the answer was cut off" in printed.err


def test_an_error_within_a_stream(gateway: Gateway, capsys: Capture) -> None:
    gateway.stream("Hel")
    gateway.parts.append(b'data: {"error": {"message": "the engine died", "type": "server_error"}}\n\n')
    assert main(["chat", "m", "x", "--stream"]) == 1
    assert capsys.readouterr().err == "geniehive: the engine died\n"


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_a_refusal(gateway: Gateway, capsys: Capture, stream: list[str]) -> None:
    gateway.status = 404
    gateway.parts = [b'{"error": {"message": "no model is called \'m\'.", "code": "model_not_found"}}']
    assert main(["chat", "m", "x", *stream]) == 1
    assert capsys.readouterr().err == (
        "geniehive: no model is called 'm'. `geniehive models` lists the names that there are\n"
    )
    gateway.status = 401
    gateway.parts = [b'{"error": {"message": "wrong key"}}']
    assert main(["chat", "m", "x", *stream]) == 1
    assert "wrong key (the key came from the environment variable GENIEHIVE_KEY)" in capsys.readouterr().err
    gateway.status, gateway.parts = 502, [b"<html>"]
    assert main(["chat", "m", "x", *stream]) == 1
    assert capsys.readouterr().err == "geniehive: 502 Bad Gateway\n"


@pytest.mark.parametrize("body", [b"[]", b"{}", b"not json", b'{"choices": []}'])
def test_an_answer_that_is_none(gateway: Gateway, capsys: Capture, body: bytes) -> None:
    gateway.parts = [body]
    assert main(["chat", "m", "x"]) == 1
    assert "no chat completion" in capsys.readouterr().err


def test_a_machine_without_gateway_and_key_says_where_they_come_from(
    gateway: Gateway, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GENIEHIVE_GATEWAY", "GENIEHIVE_KEY"):
        monkeypatch.delenv(name, raising=False)
    usual = address.free_port()
    monkeypatch.setattr(credentials, "DEFAULT_GATEWAY", f"http://127.0.0.1:{usual}")
    Cluster("c", "pc", "192.0.2.1:8804", "192.0.2.1:8805").save(tmp_path)
    assert main(["chat", "m", "x", "--state-dir", str(tmp_path)]) == 3
    printed = capsys.readouterr().err
    assert f"joined the cluster of 192.0.2.1:8804. Name a gateway of it: --gateway http://192.0.2.1:{usual};" in printed
    assert "geniehive up" not in printed
    gateway.status, gateway.parts = 401, [b'{"error": {"message": "No API key was sent."}}']
    assert main(["chat", "m", "x", "--gateway", gateway.url, "--state-dir", str(tmp_path)]) == 1
    assert "No API key was sent. `geniehive keys create NAME` on control's machine makes one" in capsys.readouterr().err


def test_a_port_that_is_no_gateways(capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"127.0.0.1:{server.getsockname()[1]}"

        def hang_up() -> None:
            for _ in range(2):
                server.accept()[0].close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        assert main(["chat", "m", "x", "--gateway", where]) == 1
        assert f"http://{where} gave no answer that a gateway gives" in capsys.readouterr().err
        assert main(["chat", "m", "x", "--gateway", f"https://{where}"]) == 3
        assert "SSL" not in capsys.readouterr().err
        thread.join()


def test_nobody_there(capsys: Capture) -> None:
    where = f"http://127.0.0.1:{address.free_port()}"
    assert main(["chat", "m", "x", "--gateway", where]) == 3
    assert f"cannot reach the gateway at {where}" in capsys.readouterr().err
    assert main(["chat", "m", "x", "--gateway", "ftp://x"]) == 2
    assert "no URL of a gateway" in capsys.readouterr().err


def test_a_certificate_that_is_not_accepted(capsys: Capture) -> None:
    impostor = Impostor(tls.Authority(*tls.make_authority("mine", time.time())))
    try:
        assert main(["chat", "m", "hello", "--gateway", f"https://{impostor.address}", "--key", "gh-secret"]) == 3
    finally:
        impostor.close()
    printed = capsys.readouterr().err
    assert f"the certificate of the gateway at https://{impostor.address} is not accepted: " in printed
    assert "SSL_CERT_FILE=FILE" in printed
    assert impostor.heard == b""


def test_silence(gateway: Gateway, capsys: Capture) -> None:
    gateway.stream("Hel")
    gateway.hold.set()
    assert main(["chat", "m", "x", "--stream", "--timeout", "0.1"]) == 1
    assert "was silent for 0.1 s" in capsys.readouterr().err
    assert gateway.lost_client.wait(5)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_the_request_and_the_line(gateway: Gateway, tmp_path: Path, root: Path) -> None:
    gateway.stream("Hel")
    gateway.hold.set()
    out = tmp_path / "out"
    with out.open("wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-m", "geniehive.cli", "chat", "m", "x", "--stream"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
    until(lambda: out.read_bytes() == b"Hel")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, b"")
    assert out.read_bytes() == b"Hel\n"
    assert gateway.lost_client.wait(5)
