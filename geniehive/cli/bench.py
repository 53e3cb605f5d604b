"""`geniehive bench`: the commands, and the one that runs a workload."""

import argparse
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geniehive.cli import common, credentials, measured, output
from geniehive.cli.output import Cell
from geniehive.kit.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, UserError

if TYPE_CHECKING:
    from geniehive.bench.asking import Asked, Target
    from geniehive.bench.report import Run
    from geniehive.bench.workload import Workload
    from geniehive.cli.common import Commands

_MOST_REASONS = 5
_WITHOUT_LINE_SECONDS = 5.0


def add(commands: "Commands") -> None:
    inner = common.add_group(commands, "bench", "measure models, and compare services")
    run = common.add_command(
        inner,
        "run",
        "run a workload, check the answers, write a report",
        run_run,
        "Run a workload: through the gateway (--model, --service), or against an engine itself (--url). Answers are\n"
        "checked, and figures are kept by the service that gave them. `geniehive bench workloads` lists workloads;\n"
        "a FILE in YAML is one, too.",
    )
    run.add_argument("--model", metavar="NAME", help="the model to ask, as clients write it")
    run.add_argument("--service", metavar="HOST/SERVICE", help="only this service; with --url: whose figures these are")
    run.add_argument("--url", metavar="URL", help="an engine to ask itself, with no gateway between")
    run.add_argument("--workload", metavar="NAME|FILE", required=True, help="what is asked")
    run.add_argument("--requests", metavar="N", type=_count, help="how many (default: 20, or what the workload says)")
    run.add_argument("--concurrency", metavar="N", type=_count, default=1, help="how many at once (default: 1)")
    run.add_argument("--warmup", metavar="N", type=_zero_or_more, default=1, help="requests before, not counted (1)")
    run.add_argument("--seed", metavar="N", type=_zero_or_more, help="asks the same again (default: another each time)")
    run.add_argument("--timeout", metavar="SECONDS", type=float, default=300.0, help="the longest silence (300)")
    run.add_argument("--out", metavar="FILE", help="the report (default: bench-WORKLOAD-TIME.json here)")
    run.add_argument("--ingest", action="store_true", help="store the samples, as `bench ingest` does")
    run.add_argument("--gateway", metavar="URL", help="the gateway (default: GENIEHIVE_GATEWAY, else that of `up`)")
    ingest = common.add_command(
        inner,
        "ingest",
        "store a report's samples",
        measured.run_ingest,
        "Store the samples of a report at control, which scores services by them. The same report can be given again.",
    )
    ingest.add_argument("report", metavar="REPORT", nargs="+", help="a report of `geniehive bench run`")
    show = common.add_command(inner, "show", "compare services by what was measured", measured.run_show)
    show.add_argument("--model", metavar="NAME", help="only this model")
    show.add_argument("--service", metavar="HOST/SERVICE", help="only this service")
    show.add_argument("--workload", metavar="NAME", help="only this workload, with or without its version")
    show.add_argument("--all", action="store_true", help="older samples, too (default: the newest of each)")
    for made in (run, ingest, show):
        common.add_control_options(made)
    common.add_command(inner, "workloads", "list the workloads that are built in", run_workloads)


def _count(text: str) -> int:
    return _whole(text, 1)


def _zero_or_more(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not text.isascii() or not text.isdecimal() or not least <= int(text[:10]) <= 1_000_000_000:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number of {least} or more")
    return int(text)


def run_workloads(given: argparse.Namespace) -> int:
    from geniehive.bench.builtin import BUILTIN

    known = list(BUILTIN.values())
    if given.json:
        shown = [{"workload": w.name, "operation": w.operation, "summary": w.summary} for w in known]
        output.show_json({"workloads": shown})
    else:
        rows = [(Cell(w.name, "strong"), w.operation, str(w.usual), w.summary) for w in known]
        output.show_table(("WORKLOAD", "FOR", "REQUESTS", "WHAT"), rows)
    return EXIT_OK


# Running.


def run_run(given: argparse.Namespace) -> int:
    from geniehive._version import __version__
    from geniehive.bench import report, runner
    from geniehive.bench.asking import Hopeless, Unreachable

    if given.timeout <= 0:
        raise UserError(f"--timeout {given.timeout:g}: give the seconds of the longest silence, more than 0")
    workload = _workload(given.workload)
    target = _target(given, workload)
    plan = runner.Plan(
        requests=given.requests or workload.usual,
        concurrency=given.concurrency,
        warmup=given.warmup,
        seed=secrets.randbelow(1 << 31) if given.seed is None else given.seed,
        timeout=given.timeout,
    )
    started = time.time()
    file = _out(given, workload, started)
    progress = _Progress(plan.requests)
    try:
        results = runner.run(target, workload, plan, progress.tell)
    except Hopeless as error:
        code = common.EXIT_UNREACHABLE if isinstance(error, Unreachable) else EXIT_FAILED
        raise UserError(f"{error}{_next_step(given)}", code) from error
    except ValueError as error:
        raise UserError(str(error), EXIT_USAGE) from error
    finally:
        progress.end()
        if file is not None and not file.stat().st_size:
            # Tried, and nothing to write; else it is written below.
            file.unlink()
    run_id = f"bench-{secrets.token_hex(8)}"
    run = report.Run(run_id, target, workload, plan, started, time.time(), results, __version__)
    content = report.content(run)
    if file is not None:
        _write(file, content)
    if given.json:
        output.show_json(content)
    else:
        _show_run(run)
        if file is not None:
            print(f"report: {file}")
    refused = 0
    if given.ingest:
        refused = measured.ingest(given, report.samples(content), f"; the report is in {file}" if file else "")
    if not any(asked.answered or asked.refused for asked in results):
        raise UserError(f"no request was answered: {results[0].error}", EXIT_FAILED)
    return EXIT_FAILED if refused else EXIT_OK


def _workload(name: str) -> "Workload":
    from geniehive.bench import builtin

    if (found := builtin.find(name)) is not None:
        return found
    file = Path(name).expanduser()
    if not file.exists() and file.suffix not in (".yaml", ".yml"):
        known = ", ".join(builtin.BUILTIN)
        raise UserError(f"there is no workload {name!r}, and no file of that name; built in are {known}", EXIT_USAGE)
    try:
        from geniehive.bench import files
    except ImportError as error:
        raise UserError("a workload in a file needs PyYAML: pip install 'geniehive[daemon]'") from error
    try:
        return files.load(file)
    except files.WorkloadError as error:
        raise UserError(str(error), EXIT_USAGE) from error


def _target(given: argparse.Namespace, workload: "Workload") -> "Target":
    from geniehive.bench.asking import Target

    if given.url:
        if not given.model:
            raise UserError("--url needs --model, the name by which the engine knows its model", EXIT_USAGE)
        # A key of the cluster is none of an engine's: only one that was given for it is sent.
        return Target(given.url.rstrip("/"), given.model, given.key, given.service or "")
    if not given.model and not given.service:
        raise UserError("say what to measure: --model NAME, --service HOST/SERVICE, or both", EXIT_USAGE)
    link = credentials.gateway(given)
    if not given.service:
        return Target(link.target, given.model, link.key)
    model = _name_of(given, workload) if given.model else given.service
    return Target(link.target, model, link.key, given.service, pinned=True)


def _name_of(given: argparse.Namespace, workload: "Workload") -> str:
    """A name that leads to this model of this service alone."""
    from geniehive.client.sync import pages
    from geniehive.v1 import registry_service_pb2 as pb
    from geniehive.v1.request_pb2 import Operation

    operation = Operation.Value(f"OPERATION_{workload.operation.upper()}")
    with common.connected(given) as hive:
        service = hive.registry.GetService(pb.GetServiceRequest(service=given.service)).service.service
        asked = pb.ListServicesRequest(asset_id=given.model, operation=operation)
        having = [view.service.service for view in pages(hive.registry.ListServices, asked, "services")]
    fit = {a.asset_id for a in service.assets if operation in (a.operations or service.operations)}
    if given.model not in fit:
        known = ", ".join(sorted(fit)) or "no model"
        raise UserError(f"{given.service} has no {given.model!r} for {workload.operation}; it has {known}")
    if fit == {given.model}:
        return str(given.service)
    if having == [given.service]:
        return str(given.model)
    others = ", ".join(name for name in having if name != given.service)
    raise UserError(
        f"no name leads to {given.model!r} of {given.service} alone: the service has other models, and {others} has "
        f"this one too. Measure all of them (leave out --service), or the engine itself (--url URL)"
    )


def _next_step(given: argparse.Namespace) -> str:
    if given.url:
        return ""
    return ". `geniehive status` says what runs, `geniehive models` which names there are"


def _out(given: argparse.Namespace, workload: "Workload", started: float) -> Path | None:
    """Where the report goes; tried before anything is measured."""
    if given.out:
        file = Path(given.out).expanduser()
    elif given.json:
        return None
    else:
        moment = datetime.fromtimestamp(started, UTC).strftime("%Y%m%dT%H%M%SZ")
        file = Path(f"bench-{workload.name.replace('/', '-')}-{moment}.json")
    try:
        with file.open("a"):
            pass
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}; give another by --out FILE") from error
    return file


def _write(file: Path, content: dict[str, Any]) -> None:
    import json

    try:
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from error


class _Progress:
    """On a terminal one line that changes; else a line now and then."""

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._done = self._failed = self._passed = 0
        self._live = sys.stderr.isatty()
        self._told = time.monotonic()

    def tell(self, asked: "Asked") -> None:
        self._done += 1
        self._failed += not asked.answered
        self._passed += asked.answered and all(why is None for _, why in asked.checks)
        text = f"{self._done}/{self._requests} done, {self._passed} passed"
        text += f", {self._failed} failed" if self._failed else ""
        if asked.first is not None:
            text += f"; last: {measured.seconds(asked.first)} to the first token"
        text += f" by {asked.service}" if asked.service else ""
        if self._live:
            print(f"\r\x1b[K{output.clean(text)}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._told >= _WITHOUT_LINE_SECONDS:
            self._told = time.monotonic()
            print(output.clean(text), file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._live and self._done:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _show_run(run: "Run") -> None:
    output.show_table(
        ("SERVICE", "MODEL", "REQUESTS", "FAILED", "PASSED", "CHECKS", "FIRST P50", "P95", "PREFILL/S", "DECODE/S"),
        [
            (
                Cell(of.service or "-", "strong"),
                of.model,
                str(of.requests),
                Cell(str(of.failed), "bad" if of.failed else "dim"),
                f"{of.passed}/{of.judged}",
                measured.share(of.correctness),
                measured.seconds(of.first_p50),
                measured.seconds(of.first_p95),
                measured.rate(of.prefill_rate),
                measured.rate(of.decode_rate),
            )
            for of in run.services
        ],
        title=f"{run.workload.name}, seed {run.plan.seed}, {run.plan.concurrency} at once",
    )
    reasons = Counter(_reasons(run.results))
    for reason, count in reasons.most_common(_MOST_REASONS):
        print(f"{count} x {output.clean(reason)}")
    if len(reasons) > _MOST_REASONS:
        print(f"... and {len(reasons) - _MOST_REASONS} more; all are in the report")


def _reasons(results: Iterable["Asked"]) -> Iterable[str]:
    for asked in results:
        if asked.error:
            yield asked.error
        else:
            yield from (f"{name}: {why}" for name, why in asked.checks if why is not None)
