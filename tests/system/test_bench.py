"""Benchmarks over real processes: engines of which one gets answers wrong, told apart by what was measured."""

import json
from typing import Any

import aiohttp

import geniehive
from geniehive.v1 import registry_service_pb2
from tests.support.daemons import Cluster
from tests.support.processes import until

WORKLOAD = """
name: capitals
version: 1
requests:
  - prompt: What is the capital of France?
    checks: [{contains: Paris}, {max_words: 5}]
"""


async def behave(http: aiohttp.ClientSession, url: str, text: str, delay: float) -> None:
    parts = [*text.split(" "), *["."] * 12]
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": f"{p} "}}]} for p in parts[:5]]
    chunks.append({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": len(parts)}})
    pieces = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]
    script = {"behave": {"pieces": pieces, "chunk_delay": delay}}
    async with http.post(f"{url}/fake/script", json=script) as answer:
        assert answer.status == 200


async def cli(cluster: Cluster, name: str, *arguments: str) -> int:
    process = cluster.process(name, "-m", "geniehive.cli", *arguments)
    await process.start()
    return await process.ended()


async def test_a_workload_tells_services_apart_and_control_keeps_it(cluster: Cluster) -> None:
    good, bad = await cluster.start_engine("good", "m"), await cluster.start_engine("bad", "m")
    await cluster.start_control()
    await cluster.start_node("a", {"good": good})
    await cluster.start_node("b", {"bad": bad})
    await cluster.start_gateway()
    await cluster.until_answers("m")
    await behave(cluster.http, good, "Paris it is", 0.002)
    await behave(cluster.http, bad, "London it is", 0.02)
    workload, report = cluster.folder / "capitals.yaml", cluster.folder / "report.json"
    workload.write_text(WORKLOAD)
    control = ("--control", cluster.control_address, "--key", cluster.admin_key)
    for service in ("a/good", "b/bad"):
        code = await cli(
            cluster, f"bench-{service[0]}", "bench", "run", "--service", service, "--workload", str(workload),
            "--requests", "6", "--gateway", cluster.url, "--out", str(report), "--ingest", *control,
        )  # fmt: skip
        assert code == 0
        content = json.loads(report.read_text())
        (of,) = content["services"]
        assert (of["service"], of["model"], of["requests"], of["failed"]) == (service, "m", 6, 0)
        assert of["correctness"] == (1.0 if service == "a/good" else 0.5)
        assert [r["passed"] for r in content["results"]] == [service == "a/good"] * 6
    # The same report again is stored once.
    assert await cli(cluster, "ingest", "bench", "ingest", str(report), *control) == 0
    async with geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive:
        answer = await hive.registry.ListBenchmarkSamples(registry_service_pb2.ListBenchmarkSamplesRequest())
        found = {sample.service: sample for sample in answer.samples}
        assert len(answer.samples) == 2
        assert found["a/good"].correctness > found["b/bad"].correctness
        assert found["a/good"].decode_tokens_per_second > found["b/bad"].decode_tokens_per_second
        assert all(sample.first_token_seconds > 0 for sample in found.values())
    # By the model's name both are measured in one run.
    code = await cli(
        cluster, "bench-both", "bench", "run", "--model", "m", "--workload", str(workload), "--requests", "40",
        "--concurrency", "4", "--gateway", cluster.url, "--out", str(report), "--key", cluster.client_key,
    )  # fmt: skip
    assert code == 0
    content = json.loads(report.read_text())
    assert content["total"]["requests"] == 40
    assert content["total"]["passed"] == sum(of["requests"] for of in content["services"] if of["service"] == "a/good")
    # What is measured is kept over control's death.
    cluster.control.kill()
    await cluster.control.ended()
    await cluster.start_control()

    async def shown() -> bool:
        return await cli(cluster, "show", "bench", "show", "--model", "m", *control) == 0

    await until("control answers again", shown, 10.0)
    async with geniehive.connect(cluster.control_address, key=cluster.admin_key) as hive:
        answer = await hive.registry.ListBenchmarkSamples(registry_service_pb2.ListBenchmarkSamplesRequest())
        assert {sample.service for sample in answer.samples} == {"a/good", "b/bad"}
