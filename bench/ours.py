#!/usr/bin/env python3
"""GenieHive's own gateway against the other peers: `python bench/ours.py [options of bench.py]`.

Starts control, node and gateway as they are installed, with a state folder of their own and the bench's mock as the
only engine, then runs bench.py with a peer named "geniehive". CPU and memory are those of the gateway process alone;
control and node run on the load core, where they cost next to nothing. Run it with the interpreter that GenieHive is
installed in.

`--relay [--rounds N] [--scale X]` compares the ways to one engine instead, in one run: direct; by the relay on loopback
without TLS; by the relay on this machine's own address, with TLS. Gateway and node share the gateway core then, and
the CPU of both is told.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import bench

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MOCK = "http://127.0.0.1:9000"
ENGINE = {
    "url": MOCK,
    "name": "mock",
    "operations": ["chat", "completions", "embeddings"],
    # 498 besides, so that the table is that of a large household.
    "models": ["mock-model", "mock-embed", *(f"model-{n}" for n in range(498))],
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

    def pin(self, cpus: str) -> None:
        command = ["taskset", "-a", "-cp", cpus, str(self.process.pid)]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Hive:
    """Control, node and gateway. way: of the node to its engine. control, gateway, relay: more settings."""

    def __init__(
        self,
        folder: Path,
        control: tuple[str, ...] = (),
        relay: str = "127.0.0.1:0",
        way: str = "auto",
        engine: dict = ENGINE,
        gateway: tuple[str, ...] = (),
    ):
        self.daemons: list[Daemon] = []
        self.folder = folder
        self.control = self._start("geniehive_control", "listen=127.0.0.1:0", *control)
        address = self.control.ready()["address"]
        self.node = self._start(
            "geniehive_node",
            f"control={address}",
            "discover=false",
            f"relay.listen={relay}",
            f"way={way}",
            f"engines={json.dumps([engine])}",
        )
        self.gateway = self._start("gateway", "listen=127.0.0.1:0", f"control={address}", *gateway)
        self.port = int(self.gateway.ready()["url"].rpartition(":")[2])
        self.key = (folder / "client.key").read_text().strip()

    def _start(self, module: str, *settings: str) -> Daemon:
        self.daemons.append(Daemon(module, self.folder, *settings))
        return self.daemons[-1]

    def stop(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.stop()


def value(arguments: list[str], option: str, otherwise: str) -> str:
    return arguments[arguments.index(option) + 1] if option in arguments else otherwise


def peers(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="geniehive-bench-") as name:
        hive = Hive(Path(name))
        try:
            for daemon in (hive.control, hive.node):
                daemon.pin(value(arguments, "--load-cpus", "0"))
            peer = f"name=geniehive;port={hive.port};pid={hive.gateway.process.pid}"
            peer += f";header=Authorization: Bearer {hive.key}"
            others = value(arguments, "--peers", "direct,nginx,aio-v1")
            wanted = others if "geniehive" in others.split(",") else f"{others},geniehive"
            rest = [*arguments]
            if "--peers" in rest:
                at = rest.index("--peers")
                del rest[at : at + 2]
            command = [sys.executable, str(HERE / "bench.py"), "--gateway", peer, "--peers", wanted, *rest]
            return subprocess.run(command).returncode
        finally:
            hive.stop()


Figures = dict[str, list[float]]


def measure(hive: Hive, scale: float, load_cpus: str, into: Figures) -> None:
    """One round of one way."""
    peer = bench.Peer("geniehive", {"port": hive.port, "headers": [f"Authorization: Bearer {hive.key}"]})
    peer.start(load_cpus)
    peer.pid = hive.gateway.process.pid
    node = bench.tree(hive.node.process.pid)

    def load(case: str) -> tuple[dict, float]:
        before = bench.cpu_seconds(node)
        found = peer.load(bench.CASES[case]["args"], bench.CASES[case]["d"] * scale, load_cpus)
        good = found["requests"] - found["errors"]
        if found["errors"] or found["short_streams"]:
            print(f"  ! {case}: errors {found['errors']}, short streams {found['short_streams']}", flush=True)
        return found, (bench.cpu_seconds(node) - before) / max(1, good) * 1e6

    load("chat_c16")
    one, _ = load("chat_c1")
    many, of_node = load("chat_c64")
    stream, of_node_stream = load("stream0")
    for label, figure in {
        "c1 p50 us": one["latency_us"]["p50"],
        "c1 p99 us": one["latency_us"]["p99"],
        "c64 req/s": many["rps"],
        "gateway CPU us/req": many["cpu_us_per_req"],
        "node CPU us/req": of_node,
        "gateway CPU us/stream": stream["cpu_us_per_req"],
        "node CPU us/stream": of_node_stream,
    }.items():
        into.setdefault(label, []).append(figure)


def ways(arguments: list[str]) -> int:
    from geniehive.kit import machine

    own = next((a for a in machine.addresses() if ":" not in a), None)
    if own is None:
        sys.exit("this machine has no address but loopback, so its relay would have no TLS: nothing to compare")
    rounds, scale = int(value(arguments, "--rounds", "3")), float(value(arguments, "--scale", "1"))
    gw_cpus, load_cpus = value(arguments, "--gw-cpus", "1"), value(arguments, "--load-cpus", "0")
    kinds = {
        "direct": {"way": "direct"},
        "relay": {"way": "relay"},
        "relay with TLS": {
            "way": "relay",
            "relay": f"{own}:0",
            "control": ("tls.listen=127.0.0.1:0", "tls.peers_port=0"),
        },
    }
    figures: dict[str, Figures] = {name: {} for name in kinds}
    mock = bench.start_mock(load_cpus)
    hives: dict[str, Hive] = {}
    with tempfile.TemporaryDirectory(prefix="geniehive-bench-") as parent:
        try:
            for number, (name, settings) in enumerate(kinds.items()):
                folder = Path(parent, str(number))
                folder.mkdir()
                hives[name] = Hive(folder, **settings)
                hives[name].control.pin(load_cpus)
                hives[name].node.pin(gw_cpus)
                hives[name].gateway.pin(gw_cpus)
            for _ in range(rounds):
                for name, hive in hives.items():
                    measure(hive, scale, load_cpus, figures[name])
        finally:
            for hive in hives.values():
                hive.stop()
            mock.terminate()
            mock.wait()
    labels = list(figures["direct"])
    print(f"medians of {rounds} rounds; gateway and node on one core\n")
    print("| way | " + " | ".join(labels) + " |\n|" + "---|" * (len(labels) + 1))
    for name, found in figures.items():
        print(f"| {name} | " + " | ".join(f"{statistics.median(found[label]):.0f}" for label in labels) + " |")
    return 0


def main(arguments: list[str]) -> int:
    return ways(arguments) if "--relay" in arguments else peers(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
