#!/usr/bin/env python3
"""What has no rival to be compared with: GenieHive's gateway alone, `python bench/own.py [--requests N] [--rounds N]`.

Memory at rest, with 200 streams, and after many requests; six uploads of 25 MB at once; what a request policy costs;
two workers against one, where load and gateway share the machine's cores.
"""

import argparse
import http.client
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ours import ENGINE, Hive

import bench

POLICY = {
    "models": ["shaped-model"],
    "defaults": {"temperature": 0.2, "top_p": 0.9, "chat_template_kwargs": {"enable_thinking": False}},
    "system_prompt": {"prepend": "You answer briefly and say when you do not know."},
}
UPLOAD = 25_000_000
CHAT = Path(__file__).parent / "body_chat.json"


@contextmanager
def hive(cpus: str, load_cpus: str, *gateway: str) -> Iterator[tuple[Hive, bench.Peer]]:
    models = [*ENGINE["models"], "shaped-model"]
    operations = ["chat", "completions", "embeddings", "transcription"]
    engine = {**ENGINE, "operations": operations, "models": models, "request_policies": [POLICY]}
    with tempfile.TemporaryDirectory(prefix="geniehive-bench-") as name:
        made = Hive(Path(name), engine=engine, gateway=gateway)
        try:
            for daemon in (made.control, made.node):
                daemon.pin(load_cpus)
            spec = {
                "port": made.port,
                "pid": made.gateway.process.pid,
                "headers": [f"Authorization: Bearer {made.key}"],
            }
            peer = bench.Peer("geniehive", spec)
            peer.start(cpus)
            # Workers get their tables one after another.
            settled = 0
            while settled < 50:
                found, _ = bench.post_ok(peer.port, "/v1/chat/completions", CHAT.read_bytes(), peer.hdict)
                settled = settled + 1 if found == 200 else 0
            yield made, peer
        finally:
            made.stop()


def rss(peer: bench.Peer) -> float:
    return bench.memory_mb(bench.tree(peer.pid))[0]


def most_during(peer: bench.Peer, work: Callable[[], None]) -> float:
    """The largest memory seen while `work` runs, in MB."""
    worker = threading.Thread(target=work)
    worker.start()
    most = 0.0
    while worker.is_alive():
        most = max(most, rss(peer))
        time.sleep(0.05)
    worker.join()
    return most


def chat_body(folder: Path, model: str) -> str:
    messages = []
    while len(json.dumps(messages)) < 5000:
        messages.append({"role": "user" if len(messages) % 2 == 0 else "assistant", "content": "The quick fox. " * 30})
    path = folder / f"{model}.json"
    path.write_text(json.dumps({"model": model, "messages": messages, "max_tokens": 512}))
    return str(path)


def upload(peer: bench.Peer, answers: list[int]) -> None:
    edge = "edge"
    head = (
        f'--{edge}\r\nContent-Disposition: form-data; name="model"\r\n\r\nmock-model\r\n'
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    ).encode()
    body = head + bytes(UPLOAD) + f"\r\n--{edge}--\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=60)
    headers = {"Content-Type": f"multipart/form-data; boundary={edge}", **peer.hdict}
    connection.request("POST", "/v1/audio/transcriptions", body, headers)
    answers.append(connection.getresponse().status)
    connection.close()


def uploads(peer: bench.Peer) -> None:
    answers: list[int] = []
    threads = [threading.Thread(target=upload, args=(peer, answers)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if answers != [200] * 6:
        print(f"  ! uploads were answered {answers}")


def load(peer: bench.Peer, args: str, seconds: float, cpus: str) -> dict:
    found = peer.load(args, seconds, cpus)
    if found["errors"] or found["short_streams"]:
        print(f"  ! {args}: errors {found['errors']}, short streams {found['short_streams']}, {found['status']}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, help="for the growth of memory (default 1000000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gw-cpus", default="1")
    parser.add_argument("--load-cpus", default="0")
    given = parser.parse_args()
    many = "--body body_chat.json --conns 64"
    rows: list[tuple[str, str]] = []
    mock = bench.start_mock(given.load_cpus)
    try:
        with tempfile.TemporaryDirectory() as name, hive(given.gw_cpus, given.load_cpus) as (_, peer):
            folder = Path(name)
            time.sleep(1.0)
            rest = rss(peer)
            rows.append(("memory at rest, MB", f"{rest:.0f}"))
            load(peer, many, 2.0, given.load_cpus)
            before = rss(peer)
            streams = "--body body_stream10.json --conns 200 --ramp 0.64 --expect-chunks 64"
            most = most_during(peer, lambda: load(peer, streams, 4.0, given.load_cpus) and None)
            rows.append(("added by 200 streams, MB", f"{most - before:.1f}"))
            before = rss(peer)
            most = most_during(peer, lambda: uploads(peer))
            rows.append(("added by six uploads of 25 MB, MB", f"{most - before:.1f}"))
            ratios = []
            plain, shaped = (chat_body(folder, model) for model in ("mock-model", "shaped-model"))
            for _ in range(given.rounds):
                one = load(peer, f"--body {plain} --conns 64", 2.0, given.load_cpus)["cpu_us_per_req"]
                two = load(peer, f"--body {shaped} --conns 64", 2.0, given.load_cpus)["cpu_us_per_req"]
                ratios.append((two / one, one, two))
            ratio, one, two = sorted(ratios)[len(ratios) // 2]
            rows.append(("a policy on a body of 5 kB, CPU", f"{ratio:.2f} times ({one:.0f} and {two:.0f} us)"))
            done, marks = 0, []
            while done < given.requests:
                done += load(peer, many, 10.0, given.load_cpus)["requests"]
                marks.append((done, rss(peer)))
            first, last = marks[len(marks) // 10], marks[-1]
            rows.append(
                (f"memory after {first[0]:,} and {last[0]:,} requests, MB", f"{first[1]:.1f} and {last[1]:.1f}")
            )
        both = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(given.rounds):
            for workers in rates:
                with hive(both, both, f"workers={workers}") as (_, peer):
                    load(peer, many, 1.0, both)
                    rates[workers].append(load(peer, many, 3.0, both)["rps"])
        one, two = (statistics.median(found) for found in rates.values())
        rows.append(("two workers against one, requests a second", f"{two / one:.2f} times ({one:.0f} and {two:.0f})"))
    finally:
        mock.terminate()
        mock.wait()
    print("| figure | seen |\n|---|---|")
    for label, figure in rows:
        print(f"| {label} | {figure} |")


if __name__ == "__main__":
    main()
