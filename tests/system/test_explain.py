"""`geniehive explain` against real daemons: what it says is what the next request does, also once a host has died."""

import asyncio
import json
import os
import sys
from typing import Any

from tests.support.daemons import Cluster
from tests.support.processes import until

CATALOGUE = """
roles:
  - role_id: mentor
    operation: chat
    routing_policy: {min_context_tokens: 1000000, fallback_role_ids: [assistant]}
  - role_id: assistant
    operation: chat
    request_policy: {overrides: {seed: 7}}
aliases:
  claude-*: mentor
"""


async def explain(cluster: Cluster, *options: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "geniehive.cli", "explain", *options, "--json"),
        *("--gateway", cluster.url, "--key", cluster.admin_key),
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(out)


async def served_by(cluster: Cluster, model: str) -> tuple[str, str]:
    """The service that answered, and by which way."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    async with cluster.http.post(f"{cluster.url}/v1/chat/completions", json=body, headers=cluster.headers()) as answer:
        assert answer.status == 200
        return answer.headers["x-geniehive-service"], answer.headers["x-geniehive-route"]


async def test_it_says_what_happens(cluster: Cluster) -> None:
    catalogue = cluster.folder / "catalogue.yaml"
    catalogue.write_text(CATALOGUE)
    await cluster.start_control(f"catalogue={catalogue}")
    await cluster.start_gateway()
    for host in ("a", "b"):
        await cluster.start_node(host, {"engine": await cluster.start_engine(host, "m")})
        await cluster.until_answers(f"{host}/engine")
    await cluster.until_answers("claude-x")

    for model in ("m", "claude-x", "m"):
        said = await explain(cluster, model)
        service, label = await served_by(cluster, model)
        assert (said["outcome"], said["chosen"]) == ("sent", f"{service}/m")
        tiers = {tier["tier"]: tier["label"] for tier in said["tiers"]}
        (chosen,) = (one for one in said["endpoints"] if one["chosen"])
        assert tiers[chosen["tier"]] == label
    assert label == "m"
    said = await explain(cluster, "claude-x")
    assert (said["kind"], said["target"]) == ("alias", "mentor")
    assert [tier["label"] for tier in said["tiers"]] == ["mentor>assistant"]
    assert {json.dumps(one["request_policy"]["overrides"]) for one in said["endpoints"]} == {'{"seed": 7}'}

    cluster.engines["a"].kill()

    async def check() -> bool:
        found = await explain(cluster, "m")
        return found["chosen"] == "b/engine/m" and any(one["gate"] or one["not_now"] for one in found["endpoints"])

    await until("the dead one is left out, with a reason", check, 20.0)
    assert (await served_by(cluster, "m"))[0] == "b/engine"
