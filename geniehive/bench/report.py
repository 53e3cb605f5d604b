"""The JSON report of a run: what docs/benchmarks.md describes. It has no prompt, no answer and no key in it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geniehive.bench import figures
from geniehive.bench.asking import Asked, Target, bare
from geniehive.bench.figures import Figures
from geniehive.bench.runner import Plan
from geniehive.bench.workload import Workload
from geniehive.rules.model import BenchmarkSample

FORMAT = "geniehive.bench/1"
_MOST_BYTES = 256 << 20
_FIGURES = ("correctness", "first_token_seconds", "prefill_tokens_per_second", "decode_tokens_per_second")


class ReportError(ValueError):
    """It is no report; the text says what is wrong, and where."""


@dataclass(frozen=True)
class Run:
    """One that has ended. run_id: unlike all others. Times in seconds since the epoch."""

    run_id: str
    target: Target
    workload: Workload
    plan: Plan
    started: float
    ended: float
    results: Sequence[Asked]
    version: str

    @property
    def services(self) -> list[Figures]:
        return figures.by_service(self.results)

    @property
    def samples(self) -> list[BenchmarkSample]:
        """One for each model of each service that answered. Times count alone: under the load of others they would be
        taken for what the engine can do."""
        alone = self.plan.concurrency == 1
        found = []
        for number, of in enumerate(self.services):
            if not of.service or not of.judged:
                continue
            sample = BenchmarkSample(
                sample_id=f"{self.run_id}.{number}",
                service=of.service,
                asset_id=of.model,
                workload=self.workload.name,
                measured=self.ended,
                request_count=of.judged,
                correctness=of.correctness,
                first_token_seconds=of.first_p50 if alone else None,
                prefill_tokens_per_second=of.prefill_rate if alone else None,
                decode_tokens_per_second=of.decode_rate if alone else None,
            )
            found.append(sample)
        return found


def content(run: Run) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "run_id": run.run_id,
        "geniehive": run.version,
        "start_time": _iso(run.started),
        "end_time": _iso(run.ended),
        "url": bare(run.target.url),
        "model": run.target.model,
        "service": run.target.service or None,
        "workload": run.workload.name,
        "operation": run.workload.operation,
        "requests": run.plan.requests,
        "concurrency": run.plan.concurrency,
        "warmup": run.plan.warmup,
        "seed": run.plan.seed,
        "services": [_figures(of) for of in run.services],
        "total": _figures(figures.together(run.results)),
        "samples": [_sample(sample) for sample in run.samples],
        "results": [_result(asked) for asked in run.results],
    }


def _figures(of: Figures) -> dict[str, Any]:
    return {
        "service": of.service or None,
        "model": of.model or None,
        "requests": of.requests,
        "failed": of.failed,
        "refused": of.refused,
        "passed": of.passed,
        "pass_rate": _rounded(of.pass_rate),
        "checks": of.checks,
        "checks_passed": of.checks_passed,
        "correctness": _rounded(of.correctness),
        "first_token_p50_seconds": _rounded(of.first_p50),
        "first_token_p95_seconds": _rounded(of.first_p95),
        "duration_p50_seconds": _rounded(of.total_p50),
        "duration_p95_seconds": _rounded(of.total_p95),
        "prefill_tokens_per_second": _rounded(of.prefill_rate),
        "decode_tokens_per_second": _rounded(of.decode_rate),
        "prompt_tokens": of.prompt_tokens,
        "completion_tokens": of.completion_tokens,
    }


def _sample(sample: BenchmarkSample) -> dict[str, Any]:
    return {
        "sample_id": sample.sample_id,
        "service": sample.service,
        "asset_id": sample.asset_id,
        "workload": sample.workload,
        "measure_time": _iso(sample.measured),
        "request_count": sample.request_count,
        **{name: _rounded(getattr(sample, name)) for name in _FIGURES},
    }


def _result(asked: Asked) -> dict[str, Any]:
    return {
        "number": asked.number,
        "service": asked.service or None,
        "model": asked.model or None,
        "status": asked.status or None,
        "error": asked.error or None,
        "passed": bool(asked.answered and all(why is None for _, why in asked.checks)),
        "checks": [{"check": name, "passed": why is None, "why": why} for name, why in asked.checks],
        "first_token_seconds": _rounded(asked.first),
        "duration_seconds": _rounded(asked.total),
        "prompt_tokens": asked.prompt_tokens,
        "cached_tokens": asked.cached_tokens,
        "completion_tokens": asked.completion_tokens,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read(file: Path) -> list[BenchmarkSample]:
    """The samples of a report. ReportError."""
    try:
        with file.open("rb") as opened:
            text = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ReportError(f"cannot read {file}: {error.strerror or error}") from error
    if len(text) > _MOST_BYTES:
        raise ReportError(f"{file} is larger than {_MOST_BYTES >> 20} MiB")
    try:
        return samples(json.loads(text))
    except ReportError as error:
        raise ReportError(f"{file}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{file} is no JSON") from error


def samples(report: Any) -> list[BenchmarkSample]:
    """ReportError."""
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise ReportError(f'is no report of `geniehive bench run`: it lacks "format": "{FORMAT}"')
    listed = report.get("samples")
    if not isinstance(listed, list):
        raise ReportError("samples: must be a list")
    return [_read(item, f"samples[{number}]") for number, item in enumerate(listed)]


def _read(item: Any, where: str) -> BenchmarkSample:
    if not isinstance(item, dict):
        raise ReportError(f"{where}: must be an object")
    try:
        moment = datetime.fromisoformat(_text(item, "measure_time", where))
        measured = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        if isinstance(error, ReportError):
            raise
        raise ReportError(f"{where}.measure_time: is no time, such as 2026-11-01T08:00:00Z") from error
    count = item.get("request_count")
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count < 1 << 32:
        raise ReportError(f"{where}.request_count: must be a whole number")
    return BenchmarkSample(
        sample_id=_text(item, "sample_id", where),
        service=_text(item, "service", where),
        asset_id=_text(item, "asset_id", where),
        workload=_text(item, "workload", where),
        measured=measured,
        request_count=count,
        correctness=_number(item, "correctness", where),
        first_token_seconds=_number(item, "first_token_seconds", where),
        prefill_tokens_per_second=_number(item, "prefill_tokens_per_second", where),
        decode_tokens_per_second=_number(item, "decode_tokens_per_second", where),
    )


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value:
        raise ReportError(f"{where}.{name}: must be a text")
    return value


def _number(item: Mapping[str, Any], name: str, where: str) -> float | None:
    value = item.get(name)
    if value is None:
        return None
    # JSON has no infinite ones, but Python's reader takes them.
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ReportError(f"{where}.{name}: must be a finite number, or null")
    return float(value)
