"""Figures of runs, and the reports that they stand in."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.bench import builtin, figures, report
from geniehive.bench.asking import Asked, Target
from geniehive.bench.report import ReportError, Run
from geniehive.bench.runner import Plan

STARTED = 1_790_000_000.0
PASSED, FAILED = ("number", None), ("number", "the last number is 1")


def asked(number: int = 0, **fields: Any) -> Asked:
    made = Asked(
        number, service="gpu-1/ollama", model="m", status=200, first=0.2, last=1.2, total=1.3, pieces=40,
        prompt_tokens=200, completion_tokens=41, fresh=True, checks=(PASSED, PASSED),
    )  # fmt: skip
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def run(*results: Asked, **plan: Any) -> Run:
    return Run(
        run_id="bench-1",
        target=Target("http://ana:secret@127.0.0.1:8800", "m", "ghc-secret"),
        workload=builtin.BUILTIN["chat.short_reasoning/1"],
        plan=Plan(requests=len(results), **plan),
        started=STARTED,
        ended=STARTED + 5,
        results=results,
        version="1.2.3",
    )


def test_figures_of_one_service() -> None:
    (of,) = figures.by_service(
        [
            asked(0),
            asked(1, first=0.4, checks=(FAILED, PASSED)),
            asked(2, first=0.3, prompt_tokens=500, cached_tokens=400),
            asked(3, error="silent for 300 s", first=None, checks=()),
            asked(4, error="400: no tools", refused=True, first=None, checks=(FAILED, FAILED)),
        ]
    )
    assert (of.service, of.model, of.requests, of.failed, of.refused) == ("gpu-1/ollama", "m", 5, 1, 1)
    assert (of.passed, of.judged, of.pass_rate) == (2, 4, 0.5)
    assert (of.checks, of.checks_passed, of.correctness) == (8, 5, 5 / 8)
    assert (of.first_p50, of.first_p95) == (0.3, 0.4)
    assert of.prefill_rate == pytest.approx((200 + 200 + 100) / (0.2 + 0.4 + 0.3))
    assert of.decode_rate == pytest.approx(3 * 40 / (1.0 + 0.8 + 0.9))
    assert (of.prompt_tokens, of.completion_tokens) == (900, 123)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_tokens": None},
        {"prompt_tokens": 63},
        {"prompt_tokens": 200, "cached_tokens": 140},
        {"first": None},
        {"fresh": False},
    ],
)
def test_what_says_nothing_of_prefill(fields: dict[str, Any]) -> None:
    (of,) = figures.by_service([asked(**fields)])
    assert of.prefill_rate is None


def test_a_cache_that_is_told_of_needs_no_fresh_prompt() -> None:
    (of,) = figures.by_service([asked(fresh=False, cached_tokens=0)])
    assert of.prefill_rate == pytest.approx(1000)


@pytest.mark.parametrize(
    "fields",
    [{"completion_tokens": None}, {"completion_tokens": 7}, {"pieces": 1}, {"last": 0.2}, {"first": None}],
)
def test_what_says_nothing_of_decode(fields: dict[str, Any]) -> None:
    (of,) = figures.by_service([asked(**fields)])
    assert of.decode_rate is None


def test_services_are_told_apart() -> None:
    found = figures.by_service([asked(0), asked(1, service="gpu-2/vllm", first=0.1), asked(2, model="n")])
    assert [(of.service, of.model, of.requests) for of in found] == [
        ("gpu-1/ollama", "m", 1),
        ("gpu-1/ollama", "n", 1),
        ("gpu-2/vllm", "m", 1),
    ]
    assert figures.together([asked(0), asked(1, service="x/y")]).requests == 2
    assert figures.by_service([]) == []


@given(st.lists(st.floats(0, 100), max_size=30), st.sampled_from([0.5, 0.95, 1.0]))
def test_quantiles(values: list[float], share: float) -> None:
    found = figures.quantile(values, share)
    if not values:
        assert found is None
    else:
        assert found in values
        assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_a_report_has_samples_by_service_and_no_secret() -> None:
    made = run(asked(0), asked(1, service="gpu-2/vllm", checks=(FAILED, PASSED)), asked(2, service="", error="cut off"))
    content = report.content(made)
    text = json.dumps(content, allow_nan=False)
    assert "secret" not in text
    assert "pencils" not in text
    assert (content["format"], content["url"], content["geniehive"]) == (
        report.FORMAT,
        "http://127.0.0.1:8800",
        "1.2.3",
    )
    assert content["workload"] == "chat.short_reasoning/1"
    assert [s["service"] for s in content["services"]] == [None, "gpu-1/ollama", "gpu-2/vllm"]
    one, other = content["samples"]
    assert (one["service"], one["asset_id"], one["correctness"]) == ("gpu-1/ollama", "m", 1.0)
    assert (one["first_token_seconds"], one["prefill_tokens_per_second"]) == (0.2, 1000.0)
    assert (one["decode_tokens_per_second"], one["request_count"]) == (40.0, 1)
    assert (other["service"], other["correctness"]) == ("gpu-2/vllm", 0.5)
    assert one["sample_id"] != other["sample_id"]
    assert [r["passed"] for r in content["results"]] == [True, False, False]
    assert content["results"][1]["checks"][0] == {
        "check": "number",
        "passed": False,
        "why": "the last number is 1",
    }
    assert content["total"]["failed"] == 1
    back = report.samples(json.loads(text))
    assert [s.sample_id for s in back] == [s.sample_id for s in made.samples]
    assert back[0].measured == STARTED + 5
    assert back[0] == made.samples[0]


def test_times_under_load_are_not_the_engines() -> None:
    made = run(asked(0), asked(1), concurrency=2)
    (sample,) = made.samples
    assert (sample.correctness, sample.first_token_seconds, sample.decode_tokens_per_second) == (1.0, None, None)
    assert report.content(made)["services"][0]["first_token_p50_seconds"] == 0.2


def test_who_only_failed_has_no_sample() -> None:
    assert run(asked(0, error="silent", checks=(), first=None)).samples == []


def good() -> Any:
    return json.loads(json.dumps(report.content(run(asked(0)))))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda r: r.pop("format"), 'lacks "format"'),
        (lambda r: r.update(format="other/1"), 'lacks "format"'),
        (lambda r: r.update(samples={}), "samples: must be a list"),
        (lambda r: r["samples"].append(3), "samples[1]: must be an object"),
        (lambda r: r["samples"][0].pop("service"), "samples[0].service: must be a text"),
        (lambda r: r["samples"][0].update(measure_time=3), "samples[0].measure_time: must be a text"),
        (lambda r: r["samples"][0].update(measure_time="soon"), "samples[0].measure_time: is no time"),
        (lambda r: r["samples"][0].update(request_count=-1), "samples[0].request_count: must be a whole number"),
        (lambda r: r["samples"][0].update(request_count=True), "samples[0].request_count: must be a whole number"),
        (lambda r: r["samples"][0].update(correctness="1"), "samples[0].correctness: must be a finite number"),
        (lambda r: r["samples"][0].update(correctness=float("inf")), "samples[0].correctness: must be a finite"),
    ],
)
def test_what_is_no_report_is_refused_with_its_place(change: Any, why: str) -> None:
    content = good()
    change(content)
    with pytest.raises(ReportError) as error:
        report.samples(content)
    assert why in str(error.value)


def test_files_that_are_no_reports(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    with pytest.raises(ReportError, match="cannot read"):
        report.read(file)
    for text, why in (("{", "is no JSON"), ("[]", "is no report"), ("[" * 100_000, "is no JSON")):
        file.write_text(text)
        with pytest.raises(ReportError, match=why):
            report.read(file)
    file.write_text(json.dumps(good()))
    assert len(report.read(file)) == 1
