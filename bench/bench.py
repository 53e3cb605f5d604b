#!/usr/bin/env python3
"""Side-by-side performance of OpenAI-compatible gateways. Python 3.11+, no packages needed; see README.md.

  python ours.py --rounds 3                                 # with GenieHive's own gateway
  python bench.py --peers direct,nginx,litellm --rounds 3
  python bench.py --peers direct,nginx,other --peers-file my.toml
  python bench.py --gateway 'name=other;port=8080;pid=1234;header=Authorization: Bearer sk-x' --peers direct,nginx,other
  python bench.py --table results/x.jsonl [more.jsonl]      # print the tables of earlier runs again

Each round starts every peer in turn, measures all its cases and stops it (A B C A B C), so slow drift of the machine
touches all alike. The peer's processes are pinned to the --gw-cpus core, mock and load to the --load-cpus core.
"""

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("BENCH_CACHE", Path.home() / ".cache" / "geniehive-bench"))  # binaries, logs, results
VENV = Path(os.environ.get("BENCH_VENV", CACHE / "venv"))
BIN, RUN, RESULTS = CACHE / "bin", CACHE / "run", CACHE / "results"
MOCK_PORT = 9000
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

# name -> loadgen arguments; {d} is the case's seconds
CASES = {
    "chat_c1": dict(args="--body body_chat.json --conns 1", d=1.5),
    "chat_c16": dict(args="--body body_chat.json --conns 16", d=1.5),
    "chat_c64": dict(args="--body body_chat.json --conns 64", d=4),
    "chat_c256": dict(args="--body body_chat.json --conns 256", d=2),
    "embed_c64": dict(args="--path /v1/embeddings --body body_embed.json --conns 64", d=2),
    "rate50": dict(args="--body body_chat.json --conns 64 --rate 50", d=4),
    "stream0": dict(args="--body body_stream0.json --conns 16 --expect-chunks 64", d=3),
    "stream_rate20": dict(args="--body body_stream0.json --conns 64 --rate 20 --expect-chunks 64", d=3),
    "stream10": dict(args="--body body_stream10.json --conns 200 --ramp 0.64 --expect-chunks 64", d=4),
}
QUICK = ["chat_c64", "rate50", "stream0", "stream10"]


def stat_fields(pid):
    """/proc/PID/stat after the command's name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def tree(pid):
    """pid and its living descendants"""
    kids = {}
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                f = stat_fields(p)
                kids.setdefault(int(f[1]), []).append(int(p))
            except OSError:
                pass
    out, todo = [], [pid]
    while todo:
        p = todo.pop()
        if os.path.exists(f"/proc/{p}"):
            out.append(p)
        todo += kids.get(p, [])
    return out


def cpu_seconds(pids):
    s = 0
    for p in pids:
        try:
            f = stat_fields(p)
            s += sum(int(x) for x in f[11:15])  # utime stime cutime cstime
        except OSError:
            pass
    return s / TICK


def memory_mb(pids):
    rss = pss = 0
    for p in pids:
        try:
            rss += int(Path(f"/proc/{p}/statm").read_text().split()[1]) * PAGE
            for line in Path(f"/proc/{p}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    pss += int(line.split()[1]) * 1024
        except OSError:
            pass
    return round(rss / 2**20, 1), round(pss / 2**20, 1)


def steal():
    f = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(f[8]) / TICK


def post_ok(port, path, body, headers, timeout=5):
    try:
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        c.request("POST", path, body, {"Content-Type": "application/json", **headers})
        r = c.getresponse()
        data = r.read()
        c.close()
        return r.status, data
    except (OSError, http.client.HTTPException) as e:
        return 0, str(e).encode()


class Peer:
    def __init__(self, name, spec):
        self.name, self.s = name, spec
        self.port = spec["port"]
        self.headers = [h for h in spec.get("headers", [])]
        self.hdict = dict(h.split(": ", 1) for h in self.headers)
        self.prefix = spec.get("prefix", "")
        self.proc = None

    def start(self, cpus):
        """seconds until the first chat request is served, or None for a gateway that runs already"""
        if self.s.get("pid"):
            self.pid = int(self.s["pid"])
            for p in tree(self.pid):
                subprocess.run(["taskset", "-a", "-cp", cpus, str(p)], stdout=subprocess.DEVNULL)
            t0 = None
        elif not self.s.get("cmd"):
            self.pid = 0
            t0 = None
        else:
            env = {**os.environ, **{k: str(v) for k, v in self.s.get("env", {}).items()}}
            log = (RUN / f"{self.name}.log").open("wb")
            t0 = time.monotonic()
            self.proc = subprocess.Popen(
                ["taskset", "-c", cpus, *(x.format(here=HERE, venv=VENV, run=RUN) for x in self.s["cmd"])],
                cwd=self.s.get("cwd", HERE),
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.pid = self.proc.pid
        body = (HERE / "body_chat.json").read_bytes()
        limit = time.monotonic() + self.s.get("start_timeout", 90)
        setup = self.s.get("setup")
        while True:
            if setup:  # a registration call, tried until it works
                st, data = post_ok(self.port, setup["path"], json.dumps(setup["body"]), setup.get("headers", {}))
                if 200 <= st < 300:
                    setup = None
            if not setup:
                st, data = post_ok(self.port, self.prefix + "/v1/chat/completions", body, self.hdict)
                if st == 200:
                    break
            if time.monotonic() > limit or (self.proc and self.proc.poll() is not None):
                raise RuntimeError(f"{self.name} does not serve: {st} {data[:300]!r}; see {RUN}/{self.name}.log")
            time.sleep(0.01)
        return round(time.monotonic() - t0, 3) if t0 else None

    def stop(self):
        if self.proc:
            for sig, wait in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
                try:
                    os.killpg(self.proc.pid, sig)
                except ProcessLookupError:
                    break
                try:
                    self.proc.wait(wait)
                    break
                except subprocess.TimeoutExpired:
                    pass
            self.proc = None
            time.sleep(0.2)

    def load(self, args, duration, cpus):
        cmd = [
            "taskset",
            "-c",
            cpus,
            str(BIN / "loadgen"),
            "--port",
            str(self.port),
            "--duration",
            str(duration),
            "--timeout",
            "20",
        ]
        args = args.split()
        path = "/v1/chat/completions"
        if "--path" in args:
            i = args.index("--path")
            path = args[i + 1]
            del args[i : i + 2]
        cmd += ["--path", self.prefix + path, *args]
        for h in self.headers:
            cmd += ["--header", h]
        pids = tree(self.pid) if self.pid else []
        s0, c0 = steal(), cpu_seconds(pids)
        out = subprocess.run(cmd, capture_output=True, text=True, cwd=HERE).stdout
        c1, s1 = cpu_seconds(pids), steal()
        r = json.loads(out)
        r["gw_cpu_s"] = round(c1 - c0, 3)
        r["gw_cores"] = round((c1 - c0) / r["seconds"], 3)
        good = r["requests"] - r["errors"]
        r["cpu_us_per_req"] = round((c1 - c0) / good * 1e6, 1) if good and pids else None
        r["cpu_us_per_token"] = round((c1 - c0) / r["tokens"] * 1e6, 2) if r["tokens"] and pids else None
        r["steal_s"] = round(s1 - s0, 2)
        r["rss_mb"], r["pss_mb"] = memory_mb(tree(self.pid)) if self.pid else (None, None)
        return r


def start_mock(cpus):
    p = subprocess.Popen(["taskset", "-c", cpus, str(BIN / "mock_upstream"), str(MOCK_PORT)])
    for _ in range(200):
        if post_ok(MOCK_PORT, "/v1/chat/completions", b"{}", {})[0] == 200:
            return p
        time.sleep(0.02)
    raise RuntimeError("the mock does not serve")


def run(a, peers):
    RUN.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    out = Path(a.out) if a.out else RESULTS / time.strftime("%Y%m%d-%H%M%S.jsonl")
    cases = a.cases.split(",") if a.cases else (QUICK if a.quick else list(CASES))
    mock = start_mock(a.load_cpus)
    try:
        with open(out, "a") as f:
            for rnd in range(a.rounds):
                for p in peers:
                    row = dict(peer=p.name, round=a.round_base + rnd, time=time.time(), note=p.s.get("note", ""))
                    try:
                        row["startup_s"] = p.start(a.gw_cpus)
                        time.sleep(0.5)
                        row["idle_rss_mb"], row["idle_pss_mb"] = memory_mb(tree(p.pid)) if p.pid else (None, None)
                        if p.pid:
                            c0 = cpu_seconds(tree(p.pid))
                            time.sleep(1.0)
                            row["idle_cpu"] = round(cpu_seconds(tree(p.pid)) - c0, 3)
                        p.load("--body body_chat.json --conns 16", 1.0 * a.scale, a.load_cpus)  # warm-up
                        for c in cases:
                            if c in p.s.get("skip", []):
                                continue
                            row[c] = p.load(CASES[c]["args"], CASES[c]["d"] * a.scale, a.load_cpus)
                            if row[c]["errors"] or row[c]["short_streams"]:
                                print(
                                    f"  ! {p.name} {c}: errors {row[c]['errors']}, "
                                    f"short streams {row[c]['short_streams']}, status {row[c]['status']}",
                                    flush=True,
                                )
                    except (RuntimeError, json.JSONDecodeError, OSError) as e:
                        row["failed"] = str(e)[:500]
                        print(f"  ! {p.name}: {e}", flush=True)
                    finally:
                        p.stop()
                    f.write(json.dumps(row) + "\n")
                    f.flush()
                    x = row.get("chat_c64") or {}
                    y = row.get("stream0") or {}
                    print(
                        f"round {rnd} {p.name:24s} start {row.get('startup_s')} s; chat c64 {x.get('rps')} req/s "
                        f"{x.get('cpu_us_per_req')} us CPU/req; stream0 {y.get('tokens_per_s')} chunks/s",
                        flush=True,
                    )
    finally:
        mock.terminate()
        mock.wait()
    return out


def med(rows, *keys):
    v = []
    for r in rows:
        for k in keys:
            r = (r or {}).get(k)
        if r is not None:
            v.append(r)
    return statistics.median(v) if v else None


def table(files, base="direct", ref=None):
    rows = [json.loads(line) for f in files for line in Path(f).read_text().splitlines()]
    names = list(dict.fromkeys(r["peer"] for r in rows))
    by = {n: [r for r in rows if r["peer"] == n] for n in names}

    def fmt(v, n=0):
        return "-" if v is None else f"{v:.{n}f}"

    def show(title, cols):
        print(f"\n{title}\n")
        print("| " + " | ".join(["peer"] + [c[0] for c in cols]) + " |")
        print("|" + "---|" * (len(cols) + 1))
        for n in names:
            print("| " + " | ".join([n] + [c[1](n) for c in cols]) + " |")

    def col(label, *keys, n=0, scale=1):
        return (label, lambda p: fmt((lambda v: None if v is None else v * scale)(med(by[p], *keys)), n))

    def ratio(label, to, *keys, n=2):
        def f(p):
            v, d = med(by[p], *keys), med(by.get(to, []), *keys)
            return "-" if v is None or not d else f"{v / d:.{n}f}"

        return (label, f)

    def added(label, *keys, n=0):
        def f(p):
            v, d = med(by[p], *keys), med(by.get(base, []), *keys)
            return "-" if v is None or d is None else f"{v - d:+.{n}f}"

        return (label, f)

    def cores(label, case):  # only meaningful when the gateway core was full
        return col(label, case, "gw_cores", n=2)

    ref = ref or ("nginx" if "nginx" in by else base)
    print(f"{len(rows)} runs; median over rounds: " + ", ".join(f"{n} {len(by[n])}" for n in names))
    show(
        "Non-streaming chat (430-byte request, 500-byte answer)",
        [
            col("c1 req/s", "chat_c1", "rps"),
            col("c16 req/s", "chat_c16", "rps"),
            col("c64 req/s", "chat_c64", "rps"),
            col("c256 req/s", "chat_c256", "rps"),
            ratio(f"c64 / {ref}", ref, "chat_c64", "rps", n=3),
            col("c64 p50 ms", "chat_c64", "latency_us", "p50", n=1, scale=1e-3),
            col("c64 p99 ms", "chat_c64", "latency_us", "p99", n=1, scale=1e-3),
            col("CPU us/req", "chat_c64", "cpu_us_per_req"),
            ratio(f"CPU x {ref}", ref, "chat_c64", "cpu_us_per_req", n=1),
            cores("cores", "chat_c64"),
            col("embed c64 req/s", "embed_c64", "rps"),
            col("embed CPU us", "embed_c64", "cpu_us_per_req"),
        ],
    )
    show(
        "Latency at 50 req/s, open loop (us; + is over direct)",
        [
            col("p50", "rate50", "latency_us", "p50"),
            col("p99", "rate50", "latency_us", "p99"),
            added("+p50", "rate50", "latency_us", "p50"),
            added("+p99", "rate50", "latency_us", "p99"),
            added("c1 +mean", "chat_c1", "latency_us", "mean"),
            added("c1 +p50", "chat_c1", "latency_us", "p50"),
            added("c1 +p99", "chat_c1", "latency_us", "p99"),
        ],
    )
    show(
        "Streaming, 64 chunks",
        [
            col("0 ms c16 chunks/s", "stream0", "tokens_per_s"),
            ratio(f"/ {ref}", ref, "stream0", "tokens_per_s", n=3),
            col("CPU us/chunk", "stream0", "cpu_us_per_token", n=2),
            col("CPU us/stream", "stream0", "cpu_us_per_req"),
            added("+TTFT p50 us (20/s)", "stream_rate20", "ttft_us", "p50"),
            added("+TTFT p99", "stream_rate20", "ttft_us", "p99"),
            col("10 ms x200: chunks/s", "stream10", "tokens_per_s"),
            col("cores", "stream10", "gw_cores", n=2),
            col("CPU us/chunk ", "stream10", "cpu_us_per_token", n=1),
            col("gap p50 ms", "stream10", "gap_us", "p50", n=2, scale=1e-3),
            col("gap p99 ms", "stream10", "gap_us", "p99", n=2, scale=1e-3),
            col("transit p50 us", "stream10", "transit_us", "p50"),
            col("transit p99 us", "stream10", "transit_us", "p99"),
            col("total p50 ms", "stream10", "latency_us", "p50", scale=1e-3),
        ],
    )

    def errs(p):
        bad = sum(r[c]["errors"] + r[c]["short_streams"] for r in by[p] for c in CASES if c in r)
        return str(bad + sum("failed" in r for r in by[p]))

    show(
        "Process",
        [
            col("start to first answer s", "startup_s", n=2),
            col("idle RSS MB", "idle_rss_mb"),
            col("after c256 MB", "chat_c256", "rss_mb"),
            col("after 200 streams MB", "stream10", "rss_mb"),
            col("idle PSS MB", "idle_pss_mb"),
            col("idle CPU %", "idle_cpu", n=0, scale=100),
            ("errors", errs),
        ],
    )
    st = [r[c]["steal_s"] / r[c]["seconds"] for r in rows for c in CASES if c in r]
    if st:
        print(f"\nsteal: mean {100 * statistics.mean(st):.1f} %, worst case {100 * max(st):.0f} % of one core")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument(
        "--peers", default="direct,nginx", help="comma list, in order; names of the peers files or of --gateway"
    )
    ap.add_argument("--peers-file", action="append", default=[])
    ap.add_argument(
        "--gateway",
        action="append",
        default=[],
        help="'name=N;port=P[;pid=PID][;prefix=/x][;header=K: V]...' a gateway that runs already",
    )
    ap.add_argument("--rounds", type=int, default=1)
    ap.add_argument("--round-base", type=int, default=0)
    ap.add_argument("--cases", help="comma list of " + ",".join(CASES))
    ap.add_argument("--quick", action="store_true", help="only " + ",".join(QUICK))
    ap.add_argument("--scale", type=float, default=1.0, help="multiplies every case's seconds")
    ap.add_argument("--gw-cpus", default="1")
    ap.add_argument("--load-cpus", default="0")
    ap.add_argument("--out")
    ap.add_argument("--ref", help="peer that ratios refer to (default nginx)")
    ap.add_argument("--table", nargs="+", metavar="JSONL")
    a = ap.parse_args()
    if a.table:
        return table(a.table, ref=a.ref)
    specs = {"direct": {"port": MOCK_PORT}}
    for f in [HERE / "peers" / "peers.toml", *a.peers_file]:
        if Path(f).exists():
            specs |= tomllib.loads(Path(f).read_text())
    for g in a.gateway:
        d = {"headers": []}
        for kv in g.split(";"):
            k, v = kv.split("=", 1)
            d["headers"].append(v) if k == "header" else d.__setitem__(k, v)
        d["port"] = int(d["port"])
        specs[d.pop("name")] = d
    unknown = [n for n in a.peers.split(",") if n not in specs]
    if unknown:
        sys.exit(f"unknown peers {unknown}; known: {', '.join(specs)}")
    out = run(a, [Peer(n, specs[n]) for n in a.peers.split(",")])
    print(f"results in {out}")
    table([out], ref=a.ref)


if __name__ == "__main__":
    main()
