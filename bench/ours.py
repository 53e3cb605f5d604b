#!/usr/bin/env python3
"""GenieHive's own gateway against the other peers: `python bench/ours.py [options of bench.py]`.

Starts control, node and gateway as they are installed, with a state folder of their own and the bench's mock as the
only engine, then runs bench.py with a peer named "geniehive". CPU and memory are those of the gateway process alone;
control and node run on the load core, where they cost next to nothing. Run it with the interpreter that GenieHive is
installed in.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MOCK = "http://127.0.0.1:9000"
ENGINE = {
    "url": MOCK,
    "name": "mock",
    "operations": ["chat", "completions", "embeddings"],
    "models": ["mock-model", "mock-embed"],
}


class Daemon:
    """One daemon, ended by the end of its standard input, however this script ends."""

    def __init__(self, module: str, folder: Path, *settings: str) -> None:
        arguments = [part for setting in settings for part in ("--set", setting)]
        environment = {**os.environ, "GENIEHIVE_NOTICES": "1", "GENIEHIVE_STOP_AT_STDIN_END": "1"}
        log = (folder / f"{module}.log").open("wb")
        self.module, self.log = module, folder / f"{module}.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "--state-dir", str(folder), "--log-level", "warning", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            cwd=ROOT,
        )

    def ready(self) -> dict[str, str]:
        """What it says of itself when it can be used."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            if said.get("notice") == "ready":
                return {key: str(value) for key, value in said.items()}
        sys.exit(f"{self.module} did not start:\n{self.log.read_text()}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def value(arguments: list[str], option: str, otherwise: str) -> str:
    return arguments[arguments.index(option) + 1] if option in arguments else otherwise


def main(arguments: list[str]) -> int:
    daemons: list[Daemon] = []
    with tempfile.TemporaryDirectory(prefix="geniehive-bench-") as name:
        folder = Path(name)
        try:
            daemons.append(control := Daemon("geniehive_control", folder, "listen=127.0.0.1:0"))
            address = control.ready()["address"]
            daemons.append(
                Daemon(
                    "geniehive_node",
                    folder,
                    f"control={address}",
                    "discover=false",
                    "relay.listen=127.0.0.1:0",
                    f"engines={json.dumps([ENGINE])}",
                )
            )
            gateway = Daemon("gateway", folder, "listen=127.0.0.1:0", f"control={address}")
            daemons.append(gateway)
            url = gateway.ready()["url"]
            for daemon in daemons[:2]:
                cpus = value(arguments, "--load-cpus", "0")
                command = ["taskset", "-a", "-cp", cpus, str(daemon.process.pid)]
                subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            key = (folder / "client.key").read_text().strip()
            peer = f"name=geniehive;port={url.rpartition(':')[2]};pid={gateway.process.pid}"
            peer += f";header=Authorization: Bearer {key}"
            others = value(arguments, "--peers", "direct,nginx,aio-v1")
            peers = others if "geniehive" in others.split(",") else f"{others},geniehive"
            rest = [*arguments]
            if "--peers" in rest:
                at = rest.index("--peers")
                del rest[at : at + 2]
            command = [sys.executable, str(HERE / "bench.py"), "--gateway", peer, "--peers", peers, *rest]
            return subprocess.run(command).returncode
        finally:
            for daemon in reversed(daemons):
                daemon.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
