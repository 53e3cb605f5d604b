"""Who is asked: work is shared by speed, sessions stay where they are known, who can't serve is passed over."""

import asyncio
import json
from collections import Counter
from typing import Any

from tests.support.daemons import Cluster
from tests.support.processes import until

ROLES = """
roles:
  - role_id: mentor
    operation: chat
    routing_policy: {min_context_tokens: 20000, fallback_role_ids: [general_assistant]}
    request_policy: {overrides: {seed: 1}}
  - role_id: general_assistant
    operation: chat
    request_policy: {overrides: {seed: 2}}
"""


async def order(cluster: Cluster, engine: str, **orders: Any) -> None:
    async with cluster.http.post(f"{cluster.engine_urls[engine]}/fake/script", json=orders) as said:
        assert said.status == 200


async def engines(cluster: Cluster, reading: float = 0.0, **pauses: float) -> None:
    """One host with these engines, of the same model. pauses: seconds for a token. reading: seconds for a prompt."""
    for name, pause in pauses.items():
        await cluster.start_engine(name, "m")
        await order(cluster, name, behave={"head_delay": reading, "chunk_delay": pause, "tokens": 20})
    await cluster.start_node("host", {name: cluster.engine_urls[name] for name in pauses})
    for name in pauses:
        await cluster.until_answers(f"host/{name}")


async def served_by(cluster: Cluster, model: str = "m", text: str = "hello", session: str = "") -> str:
    """The engine that streamed an answer."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": text}]}
    headers = {**cluster.headers(), **({"X-Claude-Code-Session-Id": session} if session else {})}
    async with cluster.http.post(f"{cluster.url}/v1/chat/completions", json=body, headers=headers) as answer:
        assert answer.status == 200
        assert b"[DONE]" in await answer.read()
        return answer.headers["x-geniehive-service"].removeprefix("host/")


async def test_equal_services_share_the_work(cluster: Cluster) -> None:
    await cluster.start_control("routing.default_strategy=round_robin")
    await cluster.start_gateway()
    await engines(cluster, a=0.0, b=0.0, c=0.0, d=0.0)
    shares = Counter([await served_by(cluster) for _ in range(40)])
    assert shares == dict.fromkeys("abcd", 10)


async def test_a_burst_is_spread_by_speed(cluster: Cluster) -> None:
    await cluster.start_control()
    await cluster.start_gateway()
    await engines(cluster, fast1=0.002, fast2=0.002, slow1=0.03, slow2=0.03)
    for name in cluster.engines:
        for _ in range(2):
            assert await served_by(cluster, f"host/{name}") == name
    shares = Counter(await asyncio.gather(*(served_by(cluster) for _ in range(16))))
    assert shares["fast1"] + shares["fast2"] > shares["slow1"] + shares["slow2"]
    assert max(shares.values()) <= 10
    # One after another they all go to the fast ones.
    assert {await served_by(cluster) for _ in range(10)} <= {"fast1", "fast2"}


async def test_a_session_stays_with_its_engine_while_that_is_not_busier(cluster: Cluster) -> None:
    await cluster.start_control()
    await cluster.start_gateway()
    await engines(cluster, 0.3, a=0.005, b=0.005)

    async def ask() -> str:
        return await served_by(cluster, text="word " * 4000, session="s1")

    home = await ask()
    assert [await ask() for _ in range(8)] == [home] * 8
    # All the work that there is must not pile up there.
    assert set(await asyncio.gather(*(ask() for _ in range(40)))) == {"a", "b"}


async def test_a_role_falls_back_at_run_time_and_by_what_a_request_needs(cluster: Cluster) -> None:
    catalogue = cluster.folder / "catalogue.yaml"
    catalogue.write_text(ROLES)
    await cluster.start_control(f"catalogue={catalogue}")
    await cluster.start_gateway()
    for name, context in (("large", 32768), ("small", 4096)):
        await cluster.start_engine(name, "", runtime="vllm")
        await order(cluster, name, add_models=[{"name": f"{name}-model", "context": context}])
    await cluster.start_node("host", {name: cluster.engine_urls[name] for name in ("large", "small")})
    await cluster.until_answers("small-model")
    await cluster.until_answers("large-model")

    status, _, headers = await cluster.chat("mentor")
    assert (status, headers["x-geniehive-route"], headers["x-geniehive-service"]) == (200, "mentor", "host/large")

    await order(cluster, "large", behave={"status": 503})
    status, _, headers = await cluster.chat("mentor")
    assert (status, headers["x-geniehive-route"]) == (200, "mentor>general_assistant")
    assert (headers["x-geniehive-service"], headers["x-geniehive-attempts"]) == ("host/small", "2")
    async with cluster.http.get(f"{cluster.engine_urls['small']}/fake/requests?path=/v1/chat/completions") as asked:
        bodies = [json.loads(request["body"]) for request in await asked.json()]
    assert bodies[-1]["seed"] == 2

    await order(cluster, "large", behave=None)
    await cluster.until_answers("large-model")
    long = [{"role": "user", "content": "word " * 10_000}]

    async def serves_again() -> bool:
        return (await cluster.chat("general_assistant", messages=long))[0] == 200

    await until("the large one serves again", serves_again, 10.0)
    for _ in range(3):
        status, _, headers = await cluster.chat("general_assistant", messages=long)
        assert (status, headers["x-geniehive-service"]) == (200, "host/large")
    status, answer, _ = await cluster.chat("small-model", messages=long)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert "4096" in answer["error"]["message"]
    assert "--max-model-len" in answer["error"]["message"]
