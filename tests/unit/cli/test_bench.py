"""`geniehive bench`."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from geniehive.bench import builtin
from geniehive.cli.__main__ import main
from geniehive.failures import Refused
from geniehive.kit import address
from geniehive.v1 import admin_service_pb2, benchmark_pb2, failure_pb2, registry_service_pb2
from geniehive.v1.registry_pb2 import Asset, Service
from geniehive.v1.request_pb2 import OPERATION_CHAT, OPERATION_EMBEDDINGS
from tests.support.fake_control import FakeControl
from tests.support.fake_engine import FakeEngine

Capture = pytest.CaptureFixture[str]

FILE = """
name: who
version: 1
requests:
  - prompt: the secret is swordfish
    checks: [{contains: engine}]
  - prompt: another secret
    checks: [{contains: marmalade}]
"""
BY = {"x-geniehive-service": "gpu-1/ollama", "x-geniehive-model": "m"}


def stream(text: str, tokens: int = 20) -> list[str]:
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": part}}]} for part in (text, " ok")]
    chunks.append({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": tokens}})
    return [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]


@contextmanager
def answering(**how: Any) -> Iterator[FakeEngine]:
    """A gateway's stand-in, in a thread of its own: the command line waits in ours."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    engine = FakeEngine()
    asyncio.run_coroutine_threadsafe(engine.start(), loop).result(10)
    engine.behave(**{"pieces": stream("engine"), "headers": BY, **how})
    try:
        yield engine
    finally:
        asyncio.run_coroutine_threadsafe(engine.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workload, in the folder in which we are."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "who.yaml"
    made.write_text(FILE)
    return made


def stored(request: Any) -> admin_service_pb2.RecordBenchmarkSamplesResponse:
    result = admin_service_pb2.RecordBenchmarkSamplesResponse.Result
    return admin_service_pb2.RecordBenchmarkSamplesResponse(results=[result() for _ in request.samples])


def test_workloads_are_listed(capsys: Capture) -> None:
    assert main(["bench", "workloads"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in builtin.BUILTIN)
    assert main(["bench", "workloads", "--json"]) == 0
    assert [w["workload"] for w in json.loads(capsys.readouterr().out)["workloads"]] == list(builtin.BUILTIN)


def test_a_run_shows_figures_and_writes_a_report(file: Path, capsys: Capture) -> None:
    with answering() as engine:
        given = ["bench", "run", "--model", "m", "--gateway", engine.url, "--key", "ghc-secret"]
        assert main([*given, "--workload", str(file), "--requests", "4", "--seed", "0"]) == 0
        assert engine.calls()[0].header("authorization") == "Bearer ghc-secret"
        assert len(engine.calls()) == 5
    printed = capsys.readouterr().out
    title, head, row, why, where = printed.splitlines()
    assert title == "who/1, seed 0, 1 at once"
    assert head.split("  ")[0] == "SERVICE"
    assert row.split()[:6] == ["gpu-1/ollama", "m", "4", "0", "2/4", "50%"]
    assert why == "2 x contains: 'marmalade' is not in the answer"
    report = file.parent / where.removeprefix("report: ")
    assert report.name.startswith("bench-who-1-")
    text = report.read_text()
    assert "swordfish" not in text + printed
    assert "ghc-secret" not in text + printed
    content = json.loads(text)
    assert (content["model"], content["seed"], content["services"][0]["passed"]) == ("m", 0, 2)
    assert content["samples"][0]["correctness"] == 0.5


def test_json_on_standard_output_and_a_report_where_it_is_wanted(file: Path, capsys: Capture) -> None:
    with answering() as engine:
        given = ["bench", "run", "--model", "m", "--gateway", engine.url, "--workload", "tool_call", "--json"]
        assert main([*given, "--requests", "2", "--warmup", "0"]) == 0
        content = json.loads(capsys.readouterr().out)
        assert (content["workload"], content["total"]["passed"]) == ("tool_call/1", 0)
        assert list(file.parent.glob("*.json")) == []
        assert main([*given, "--requests", "2", "--out", "sub.json"]) == 0
        assert json.loads((file.parent / "sub.json").read_text())["workload"] == "tool_call/1"
        assert main([*given, "--out", "none/sub.json"]) == 2
    assert "cannot write none/sub.json" in capsys.readouterr().err


def test_what_was_measured_is_stored(file: Path, control: FakeControl, capsys: Capture) -> None:
    control.answers["RecordBenchmarkSamples"] = stored
    with answering() as engine:
        given = ["bench", "run", "--model", "m", "--gateway", engine.url, "--workload", str(file), "--out", "r.json"]
        assert main([*given, "--requests", "2", "--ingest"]) == 0
    assert "stored 1 of 1 samples" in capsys.readouterr().out
    (asked,) = control.requests
    (sample,) = asked.samples
    assert (sample.service, sample.asset_id, sample.workload) == ("gpu-1/ollama", "m", "who/1")
    assert (sample.request_count, sample.correctness) == (2, 0.5)
    assert sample.HasField("first_token_seconds")
    assert not sample.HasField("prefill_tokens_per_second"), "prompts of a file may be known to the engine"
    assert main(["bench", "ingest", "r.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"stored": 1, "refused": 0}
    assert control.requests[1].samples[0] == sample


def test_a_refused_sample_is_told(file: Path, control: FakeControl, capsys: Capture) -> None:
    failure = failure_pb2.Failure(message="service: there is no service 'gpu-1/ollama'")
    result = admin_service_pb2.RecordBenchmarkSamplesResponse.Result(refused=failure)
    control.answers["RecordBenchmarkSamples"] = admin_service_pb2.RecordBenchmarkSamplesResponse(results=[result])
    with answering() as engine:
        given = ["bench", "run", "--model", "m", "--gateway", engine.url, "--workload", str(file), "--out", "r.json"]
        assert main([*given, "--requests", "2", "--ingest"]) == 1
    told = capsys.readouterr()
    assert "who/1 of gpu-1/ollama was refused: service: there is no service" in told.err
    assert "stored 0 of 1" in told.out


def test_a_control_that_is_away_loses_no_report(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("GENIEHIVE_CONTROL", f"127.0.0.1:{address.free_port()}")
    with answering() as engine:
        given = ["bench", "run", "--model", "m", "--gateway", engine.url, "--workload", str(file), "--out", "r.json"]
        assert main([*given, "--requests", "1", "--ingest"]) == 3
    error = capsys.readouterr().err
    assert "the samples were not stored: cannot reach control" in error
    assert error.endswith("the report is in r.json\n")
    assert json.loads((file.parent / "r.json").read_text())["samples"]


def test_nothing_is_left_of_a_run_that_could_not_begin(file: Path, capsys: Capture) -> None:
    url = f"http://127.0.0.1:{address.free_port()}"
    assert main(["bench", "run", "--model", "m", "--gateway", url, "--workload", str(file)]) == 3
    assert f"cannot reach {url}" in capsys.readouterr().err
    with answering(
        status=404, pieces=None, body={"error": {"message": "no model is called 'm'"}}, headers={}
    ) as engine:
        assert main(["bench", "run", "--model", "m", "--gateway", engine.url, "--workload", str(file)]) == 1
    assert "no model is called 'm'" in capsys.readouterr().err
    assert list(file.parent.glob("*.json")) == []


def test_a_run_in_which_nobody_answers_fails(file: Path, capsys: Capture) -> None:
    with answering(status=503, pieces=None, body={"error": {"message": "nobody serves it"}}) as engine:
        given = ["bench", "run", "--model", "m", "--gateway", engine.url, "--workload", str(file)]
        assert main([*given, "--requests", "3", "--out", "r.json"]) == 1
    assert "no request was answered: 503: nobody serves it" in capsys.readouterr().err
    assert json.loads((file.parent / "r.json").read_text())["total"]["failed"] == 3


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "--model NAME, --service HOST/SERVICE"),
        (["--url", "http://127.0.0.1:1"], "--url needs --model"),
        (["--model", "m", "--timeout", "0"], "--timeout 0"),
        (["--model", "m", "--gateway", "ftp://x"], "no URL"),
    ],
)
def test_wrong_use(given: list[str], why: str, file: Path, capsys: Capture) -> None:
    assert main(["bench", "run", "--workload", str(file), *given]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--requests", "0"], ["--concurrency", "x"], ["--warmup", "-1"], ["--seed", "1.5"]])
def test_wrong_numbers(given: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "run", "--model", "m", "--workload", "tool_call", *given])
    assert "no whole number" in capsys.readouterr().err


def test_workloads_that_are_none(file: Path, capsys: Capture) -> None:
    assert main(["bench", "run", "--model", "m", "--workload", "chat.reasoning"]) == 2
    assert "there is no workload 'chat.reasoning'" in capsys.readouterr().err
    file.write_text(FILE.replace("version: 1", "version: one"))
    assert main(["bench", "run", "--model", "m", "--workload", "who.yaml"]) == 2
    assert "who.yaml, line 3, version: must be a whole number" in capsys.readouterr().err


def service(*assets: Asset) -> registry_service_pb2.GetServiceResponse:
    made = Service(service="gpu-1/ollama", operations=[OPERATION_CHAT], assets=assets)
    return registry_service_pb2.GetServiceResponse(service=registry_service_pb2.ServiceView(service=made))


def having(*names: str) -> registry_service_pb2.ListServicesResponse:
    views = [registry_service_pb2.ServiceView(service=Service(service=name)) for name in names]
    return registry_service_pb2.ListServicesResponse(services=views)


ONE, TWO = Asset(asset_id="m"), Asset(asset_id="n")
EMBEDDER = Asset(asset_id="e", operations=[OPERATION_EMBEDDINGS])


@pytest.mark.parametrize(
    ("given", "assets", "others", "asked"),
    [
        ([], (), (), "gpu-1/ollama"),
        (["--model", "m"], (ONE, EMBEDDER), ("gpu-1/ollama", "gpu-2/x"), "gpu-1/ollama"),
        (["--model", "m"], (ONE, TWO), ("gpu-1/ollama",), "m"),
    ],
)
def test_one_service_is_asked_by_a_name_that_leads_to_it_alone(
    given: list[str], assets: Any, others: Any, asked: str, file: Path, control: FakeControl
) -> None:
    control.answers["GetService"] = service(*assets)
    control.answers["ListServices"] = having(*others)
    with answering() as engine:
        words = ["bench", "run", "--service", "gpu-1/ollama", *given, "--gateway", engine.url]
        assert main([*words, "--workload", str(file), "--requests", "1", "--out", "r.json"]) == 0
        assert engine.calls()[0].json()["model"] == asked


@pytest.mark.parametrize(
    ("assets", "others", "why"),
    [
        ((ONE, TWO), ("gpu-1/ollama", "gpu-2/x"), "no name leads to 'm' of gpu-1/ollama alone"),
        ((TWO,), (), "gpu-1/ollama has no 'm' for chat; it has n"),
    ],
)
def test_a_service_that_no_name_leads_to(
    assets: Any, others: Any, why: str, file: Path, control: FakeControl, capsys: Capture
) -> None:
    control.answers["GetService"] = service(*assets)
    control.answers["ListServices"] = having(*others)
    assert main(["bench", "run", "--service", "gpu-1/ollama", "--model", "m", "--workload", str(file)]) == 2
    assert why in capsys.readouterr().err


def test_an_engine_itself(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIEHIVE_KEY", "ghc-secret")
    with answering(headers={}) as engine:
        words = ["bench", "run", "--url", engine.url, "--model", "m", "--service", "gpu-1/llama"]
        assert main([*words, "--workload", str(file), "--requests", "1", "--out", "r.json"]) == 0
        assert engine.calls()[0].header("authorization") is None, "a key of the cluster is none of an engine's"
    (sample,) = json.loads((file.parent / "r.json").read_text())["samples"]
    assert (sample["service"], sample["asset_id"]) == ("gpu-1/llama", "m")


def test_ingest_says_what_is_no_report(file: Path, control: FakeControl, capsys: Capture) -> None:
    assert main(["bench", "ingest", "none.json"]) == 2
    (file.parent / "r.json").write_text("{}")
    assert main(["bench", "ingest", "r.json"]) == 2
    told = capsys.readouterr().err
    assert "cannot read none.json" in told
    assert "r.json: is no report of `geniehive bench run`" in told
    assert control.requests == []


def sample(service: str, seconds: int, workload: str = "tool_call/1", **fields: Any) -> benchmark_pb2.BenchmarkSample:
    made = benchmark_pb2.BenchmarkSample(
        sample_id=f"{service} {seconds}", service=service, asset_id="m", workload=workload, request_count=20, **fields
    )
    made.measure_time.FromSeconds(1_790_000_000 + seconds)
    return made


def test_services_are_compared(control: FakeControl, capsys: Capture) -> None:
    def answer(request: Any) -> Any:
        pages = {
            "": [sample("gpu-1/x", 9, correctness=0.5, decode_tokens_per_second=40.0, first_token_seconds=0.1)],
            "2": [
                sample("gpu-2/x", 5, correctness=0.9, decode_tokens_per_second=80.0),
                sample("gpu-1/x", 2, correctness=1),
            ],
        }
        more = "" if request.page_token else "2"
        found = pages[request.page_token]
        return registry_service_pb2.ListBenchmarkSamplesResponse(samples=found, next_page_token=more)

    control.answers["ListBenchmarkSamples"] = answer
    assert main(["bench", "show"]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["WORKLOAD", "MODEL", "SERVICE", "CHECKS"]
    assert first.split() == ["tool_call/1", "m", "gpu-2/x", "90%", "-", "-", "80", "20", "2026-09-21T14:13:25Z"]
    assert second.split()[2:7] == ["gpu-1/x", "50%", "100", "ms", "-"]
    assert main(["bench", "show", "--all", "--json", "--model", "m", "--workload", "tool_call/1"]) == 0
    assert len(json.loads(capsys.readouterr().out)["samples"]) == 3
    assert (control.requests[-1].asset_id, control.requests[-1].workload) == ("m", "tool_call/1")


def test_a_workload_without_its_version_is_all_of_them(control: FakeControl, capsys: Capture) -> None:
    found = [sample("a/x", 1, "tool_call/2"), sample("a/x", 0), sample("a/x", 0, "tool/1")]
    control.answers["ListBenchmarkSamples"] = registry_service_pb2.ListBenchmarkSamplesResponse(samples=found)
    assert main(["bench", "show", "--workload", "tool_call", "--json"]) == 0
    assert [s["workload"] for s in json.loads(capsys.readouterr().out)["samples"]] == ["tool_call/1", "tool_call/2"]


def test_nothing_measured_and_not_allowed(control: FakeControl, capsys: Capture) -> None:
    assert main(["bench", "show"]) == 0
    assert "geniehive bench run" in capsys.readouterr().out
    control.answers["ListBenchmarkSamples"] = Refused(failure_pb2.FAILURE_REASON_SCOPE_MISSING, "k may not do this")
    assert main(["bench", "show"]) == 1
    assert "k may not do this" in capsys.readouterr().err
