"""`geniehive up` and `join` with stand-ins for the daemons.

What these were started with is kept, and they do as they are told.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]

# Stands in for every daemon: sends the notices of its script, serves /v1/models if it listens, obeys SIGTERM and the
# end of its input, and writes down its start and its end.
STAND_IN = """
import http.server, json, os, signal, sys, threading, time

name, folder = sys.argv[1], os.environ["STAND_IN_FOLDER"]

def tell(line):
    with open(os.path.join(folder, "story"), "a") as file:
        file.write(line + "\\n")

def script():
    try:
        with open(os.path.join(folder, name + ".json")) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}

def end(*_):
    tell("end " + name)
    os._exit(0)

signal.signal(signal.SIGTERM, end)
tell("start " + name + " " + str(os.getpid()) + " " + json.dumps(sys.argv[2:]))
told = script()
if told.get("stderr"):
    print(told["stderr"], file=sys.stderr, flush=True)
if "exit" in told:
    sys.exit(told["exit"])
listen = [a[len("listen="):] for a in sys.argv if a.startswith("listen=")]
if listen and name == "gateway":
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"object": "list", "data": script().get("models", [])}).encode()
            self.send_response(200 if self.headers["authorization"].startswith("Bearer ghc-") else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *_):
            pass
    host, _, port = json.loads(listen[0]).rpartition(":")
    server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
    pair = [json.loads(a.split("=", 1)[1]) for a in sys.argv if a.startswith(("tls.cert=", "tls.key="))]
    if pair:
        import ssl
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
for notice in told.get("notices", []):
    print(json.dumps(notice), flush=True)

def obey():
    while True:
        code = script().get("exit_later")
        if code is not None:
            os._exit(code)
        time.sleep(0.02)

threading.Thread(target=obey, daemon=True).start()
while os.read(0, 4096):
    pass
end()
"""
MAIN = "import sys; sys.argv.insert(1, {name!r})\nfrom stand_in import *\n"
AVAILABLE = """
import json, os
def available():
    try:
        with open(os.path.join(os.environ["STAND_IN_FOLDER"], "demo.json")) as file:
            return json.load(file).get("unavailable")
    except FileNotFoundError:
        return None
if __name__ == "__main__":
    import sys; sys.argv.insert(1, "demo")
    import stand_in
"""

CHAT = {"id": "real/chat:1b", "object": "model", "geniehive": {"operations": ["chat"]}}
DEMO = {"id": "tiny", "object": "model", "geniehive": {"operations": ["chat", "embeddings"], "demo": True}}


class Up:
    """One `geniehive up` or `join`, and the folder in which the stand-ins write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self._runs = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        modules = folder / "modules"
        for package, name in (("geniehive_control", "control"), ("gateway", "gateway"), ("geniehive_node", "node")):
            (modules / package).mkdir(parents=True)
            (modules / package / "__init__.py").touch()
            (modules / package / "__main__.py").write_text(MAIN.format(name=name))
        (modules / "geniehive_node" / "demo.py").write_text(AVAILABLE)
        (modules / "stand_in.py").write_text(STAND_IN)
        self.tell("control", notices=[{"notice": "ready", "daemon": "control"}])
        self.tell("gateway", notices=[{"notice": "ready"}, {"notice": "serving", "source": "control"}], models=[CHAT])
        self.tell("node", notices=[self.look(1), {"notice": "registered", "host_id": "h"}])
        self.tell("demo", notices=[{"notice": "ready", "daemon": "demo"}])

    @staticmethod
    def look(chat_models: int) -> dict[str, Any]:
        return {"notice": "first_look", "chat_models": chat_models, "engines": []}

    def tell(self, daemon: str, **script: Any) -> None:
        """What a stand-in does from now on; a running one reads "models" and "exit_later" at once."""
        file = self.folder / f"{daemon}.json"
        held = json.loads(file.read_text()) if file.exists() else {}
        made = file.with_suffix(".new")
        made.write_text(json.dumps({**held, **script}))
        made.replace(file)

    def start(self, *arguments: str, fixed_ports: bool = False, command: str = "up") -> "Run":
        self._runs += 1
        ports = [] if fixed_ports else [p for f in FLAGS[command] for p in (f, "127.0.0.1:0")]
        out, err = self.folder / f"out{self._runs}", self.folder / f"err{self._runs}"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(self.folder / "modules"), str(ROOT))),
            "STAND_IN_FOLDER": str(self.folder),
        }
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "geniehive.cli",
                    command,
                    "--state-dir",
                    str(self.state),
                    *ports,
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                cwd=self.folder,
            )
        self._processes.append(process)
        return Run(process, out, err)

    @property
    def story(self) -> list[str]:
        """ "start NAME" and "end NAME", in order."""
        return [" ".join(line.split(" ")[:2]) for line in self._lines()]

    def arguments(self, daemon: str) -> list[str]:
        """Of its last start."""
        found: list[str] = json.loads(
            [line for line in self._lines() if line.startswith(f"start {daemon} ")][-1].split(" ", 3)[3]
        )
        return found

    def settings(self, daemon: str) -> dict[str, Any]:
        given = self.arguments(daemon)
        pairs = [given[i + 1].split("=", 1) for i, part in enumerate(given) if part == "--set"]
        return {key: json.loads(value) for key, value in pairs}

    def pids(self, daemon: str) -> list[int]:
        return [int(line.split(" ")[2]) for line in self._lines() if line.startswith(f"start {daemon} ")]

    def nothing_runs(self) -> bool:
        return not any(alive(int(line.split(" ")[2])) for line in self._lines() if line.startswith("start "))

    def _lines(self) -> list[str]:
        file = self.folder / "story"
        return file.read_text().splitlines() if file.exists() else []

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        until(self.nothing_runs)


class Run:
    def __init__(self, process: "subprocess.Popen[bytes]", out: Path, err: Path) -> None:
        self.process, self._out, self._err = process, out, err

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def until_up(self) -> str:
        """What it printed."""
        until(lambda: "Ctrl-C stops everything" in self.out or self.process.poll() is not None)
        assert self.process.poll() is None, self.err
        return self.out

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        return self.process.wait(timeout=20)


FLAGS = {
    "up": ("--listen", "--control-listen", "--embedded-listen", "--relay-listen"),
    "join": ("--listen", "--embedded-listen", "--relay-listen"),
}


def alive(pid: int) -> bool:
    """Whether a process runs; one that only nobody has fetched yet does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def until(check: Callable[[], bool], within: float = 15.0) -> None:
    """Waits for what other processes do."""
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
