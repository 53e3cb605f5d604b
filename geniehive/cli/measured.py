"""What was measured: samples stored at control, and services compared by them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geniehive.cli import common, output
from geniehive.cli.output import Cell
from geniehive.kit.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, UserError

if TYPE_CHECKING:
    from geniehive.rules.model import BenchmarkSample

# Samples of one call; control takes no more.
_AT_ONCE = 1000
_PAGE_SIZE = 1000


def run_ingest(given: argparse.Namespace) -> int:
    from geniehive.bench import report

    try:
        samples = [sample for file in given.report for sample in report.read(Path(file).expanduser())]
    except report.ReportError as error:
        raise UserError(str(error), EXIT_USAGE) from error
    return EXIT_FAILED if ingest(given, samples) else EXIT_OK


def ingest(given: argparse.Namespace, samples: Sequence["BenchmarkSample"], kept: str = "") -> int:
    """How many were refused."""
    from geniehive import convert
    from geniehive.cli import views
    from geniehive.v1 import admin_service_pb2 as pb

    if not samples:
        output.warn("there is no sample to store: of no answer is it known which service gave it")
        return 0
    results: list[Any] = []
    try:
        with common.connected(given) as hive:
            for start in range(0, len(samples), _AT_ONCE):
                part = map(convert.sample_to_proto, samples[start : start + _AT_ONCE])
                results += hive.admin.RecordBenchmarkSamples(pb.RecordBenchmarkSamplesRequest(samples=part)).results
    except UserError as error:
        raise UserError(f"the samples were not stored: {error}{kept}", error.exit_code) from error
    refused = 0
    for sample, result in zip(samples, results, strict=True):
        if result.HasField("refused"):
            refused += 1
            why = views.failure(result.refused)["message"]
            output.warn(f"{sample.workload} of {sample.service} was refused: {why}")
    if getattr(given, "report", None) and given.json:
        output.show_json({"stored": len(samples) - refused, "refused": refused})
    elif not given.json:
        print(f"stored {len(samples) - refused} of {len(samples)} samples")
    return refused


def run_show(given: argparse.Namespace) -> int:
    from geniehive.cli import views
    from geniehive.client.sync import pages
    from geniehive.v1 import registry_service_pb2 as pb

    workload = given.workload or ""
    versioned = "/" in workload
    asked = pb.ListBenchmarkSamplesRequest(
        page_size=_PAGE_SIZE,
        service=given.service or "",
        asset_id=given.model or "",
        workload=workload if versioned else "",
    )
    with common.connected(given) as hive:
        found = [views.sample(s) for s in pages(hive.registry.ListBenchmarkSamples, asked, "samples")]
    if workload and not versioned:
        found = [s for s in found if s["workload"].rpartition("/")[0] == workload]
    if not given.all:
        # Newest first: the first of each is the one.
        newest = {(s["workload"], s["asset_id"], s["service"]): s for s in reversed(found)}
        found = list(newest.values())
    found.sort(key=lambda s: (s["workload"], s["asset_id"], -(s["decode_tokens_per_second"] or 0), s["service"]))
    if given.json:
        output.show_json({"samples": found})
    elif found:
        show(found)
    else:
        print("nothing was measured yet: `geniehive bench run --model NAME --workload NAME --ingest`")
    return EXIT_OK


def show(found: Sequence[dict[str, Any]]) -> None:
    """The best of those that can be compared stands out."""
    best: dict[tuple[str, str, str], float] = {}
    for sample in found:
        for name, sign in (*((name, 1) for name in _MORE_IS_BETTER), ("first_token_seconds", -1)):
            if (value := sample[name]) is not None:
                key = sample["workload"], sample["asset_id"], name
                best[key] = sign * max(sign * best.get(key, value), sign * value)

    def cell(sample: dict[str, Any], name: str, text: str) -> Cell:
        is_best = best.get((sample["workload"], sample["asset_id"], name)) == sample[name]
        return Cell(text, "good" if is_best and text else "")

    output.show_table(
        ("WORKLOAD", "MODEL", "SERVICE", "CHECKS", "FIRST P50", "PREFILL/S", "DECODE/S", "REQUESTS", "MEASURED"),
        [
            (
                s["workload"],
                s["asset_id"],
                Cell(s["service"], "strong"),
                cell(s, "correctness", share(s["correctness"])),
                cell(s, "first_token_seconds", seconds(s["first_token_seconds"])),
                cell(s, "prefill_tokens_per_second", rate(s["prefill_tokens_per_second"])),
                cell(s, "decode_tokens_per_second", rate(s["decode_tokens_per_second"])),
                str(s["request_count"]),
                s["measure_time"] or "",
            )
            for s in found
        ],
    )


_MORE_IS_BETTER = ("correctness", "prefill_tokens_per_second", "decode_tokens_per_second")


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def rate(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"
