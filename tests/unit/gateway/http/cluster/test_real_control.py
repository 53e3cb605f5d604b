"""/v1/cluster/…, from the client's socket to a real control."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from gateway.watch.answers import AskControl
from geniehive.rules.model import Asset, LoadState, Scope
from geniehive.v1 import admin_service_pb2, role_pb2
from geniehive.v1.request_pb2 import OPERATION_CHAT
from tests.support.cluster import service
from tests.support.control_server import AS_NODE, SECRETS, Control, as_, running_control
from tests.unit.gateway.builders import key
from tests.unit.gateway.http.gateways import Answer, Gateway

READ, OPERATE = SECRETS["read"], SECRETS["operate"]
SAMPLE = {
    "sample_id": "s1", "service": "gpu-1/e", "model": "m", "workload": "chat.short_reasoning/2", "correctness": 1,
    "measure_time": "2026-11-01T08:00:00Z", "request_count": 5, "decode_tokens_per_second": 40.0,
}  # fmt: skip


@asynccontextmanager
async def cluster() -> AsyncIterator[tuple[Control, Gateway]]:
    """A model on two hosts, a role that wants more context than one of them has, and a glob for it."""
    async with running_control() as control:
        small = Asset(asset_id="m", upstream_name="m", context_tokens=2048, load_state=LoadState.LOADED)
        await control.node("gpu-1", service("gpu-1/e", msgspec.structs.replace(small, context_tokens=65536)))
        await control.node("gpu-2", service("gpu-2/e", small))
        role = role_pb2.Role(role_id="coder", description="writes program code", operation=OPERATION_CHAT)
        role.routing_policy.min_context_tokens = 8192
        await control.admin.CreateRole(admin_service_pb2.CreateRoleRequest(role=role), metadata=as_("operate"))
        alias = role_pb2.Alias(alias="claude-*", target="coder")
        await control.admin.SetAlias(admin_service_pb2.SetAliasRequest(alias=alias), metadata=as_("operate"))
        gateway = await control.gateway()
        ask = AskControl(lambda: control.channel, AS_NODE)
        async with Gateway(*gateway.table.values(), asks=ask) as made:
            yield control, made


async def ask(made: Gateway, path: str, body: Any = None, secret: str = READ) -> Answer:
    content = None if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    return await made.ask(method, f"/v1/cluster/{path}", content, authorization=f"Bearer {secret}")


async def found(made: Gateway, path: str, body: Any = None, secret: str = READ) -> Any:
    answer = await ask(made, path, body, secret)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


async def test_what_there_is() -> None:
    async with cluster() as (_, made):
        hosts = await found(made, "hosts?limit=1")
        assert [view["host"]["host_id"] for view in hosts["data"]] == ["gpu-1"]
        hosts = await found(made, f"hosts?limit=1&page={hosts['next_page']}")
        assert ([view["host"]["host_id"] for view in hosts["data"]], hosts["next_page"]) == (["gpu-2"], None)
        assert (await found(made, "hosts?availability=offline"))["data"] == []
        (one,) = (await found(made, "services?host=gpu-2&model=m&operation=chat"))["data"]
        assert (one["service"]["service"], one["upstream"]["routable"]) == ("gpu-2/e", True)
        assert one["service"]["assets"][0]["load_state"] == "loaded"
        (role,) = (await found(made, "roles"))["data"]
        assert (role["role_id"], role["owner"], role["operation"]) == ("coder", "api", "chat")
        assert role["routing_policy"]["min_context_tokens"] == 8192
        (alias,) = (await found(made, "aliases"))["data"]
        assert (alias["alias"], alias["target"]) == ("claude-*", "coder")
        health = await found(made, "health")
        assert (health["state"], health["hosts_online"]) == ("healthy", 2)


async def test_a_name_and_what_it_leads_to() -> None:
    async with cluster() as (_, made):
        route = await found(made, "routes/resolve?model=claude-9&kind=chat")
        assert route["route"]["branches"][0]["target"] == "coder"
        assert [one["name"] for one in route["upstreams"]] == ["upstream/gpu-1/e"]
        assert "token of" not in json.dumps(route)
        answer = await ask(made, "routes/resolve?model=nobody")
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (404, "not_found")
        assert (await ask(made, "routes/resolve?model=m&kind=embeddings")).status == 400


async def test_a_match() -> None:
    async with cluster() as (_, made):
        match = await found(made, "routes/match", {"task": "write program code", "kind": "chat"})
        (candidate,) = match["data"]
        assert (candidate["model"], candidate["kind"]) == ("coder", "role")
        terms = {term["name"]: term for term in candidate["terms"]}
        assert candidate["score"] == pytest.approx(sum(term["weight"] * term["value"] for term in terms.values()))
        assert terms["runtime"]["reasons"]
        direct = await found(made, "routes/match", {"task": "x", "include_direct_services": True})
        assert len(direct["data"]) > 1
        for body in ({}, {"task": "x", "limit": -1}, {"task": "x" * (1 << 20)}):
            assert (await ask(made, "routes/match", body)).status == 400


async def test_an_explanation_of_both() -> None:
    async with cluster() as (_, made):
        why = await found(made, "routes/explain", {"model": "claude-9"})
        assert (why["kind"], why["target"], why["outcome"], why["control_unavailable"]) == (
            "alias",
            "coder",
            "sent",
            None,
        )
        one, other = why["endpoints"]
        assert (one["endpoint"], one["tier"], one["chosen"]) == ("gpu-1/e/m", 0, True)
        assert one["wait_seconds"] > 0
        assert {term["name"] for term in one["match_terms"]} >= {"runtime", "benchmark"}
        assert (other["endpoint"], other["gate"], other["decided_by"]) == ("gpu-2/e/m", "min_context", "control")
        assert "8192" in other["reason"]
        # By its own name both can be asked; and a long prompt fits one.
        why = await found(made, "routes/explain", {"model": "m"})
        assert {one["gate"] for one in why["endpoints"]} == {None}
        why = await found(made, "routes/explain", {"model": "m", "prompt_tokens": 5000})
        assert [(one["endpoint"], one["gate"]) for one in why["endpoints"]] == [
            ("gpu-1/e/m", None),
            ("gpu-2/e/m", "context"),
        ]


async def test_samples() -> None:
    async with cluster() as (_, made):
        other = {**SAMPLE, "sample_id": "s2", "service": "gpu-9/e"}
        stored = await found(made, "benchmarks", {"samples": [SAMPLE, other]}, OPERATE)
        assert [one["stored"] for one in stored["data"]] == [True, False]
        assert "gpu-9/e" in stored["data"][1]["refused"]["message"]
        (sample,) = (await found(made, "benchmarks?service=gpu-1/e&model=m"))["data"]
        assert (sample["sample_id"], sample["asset_id"], sample["correctness"]) == ("s1", "m", 1.0)
        assert sample["measure_time"] == "2026-11-01T08:00:00Z"


async def test_control_judges_the_clients_key_too() -> None:
    async with running_control() as control:
        asks = AskControl(lambda: control.channel, AS_NODE)
        # This gateway's table is older than what control knows of these keys.
        keys = key(READ, Scope.READ, key_id="infer"), key(OPERATE, Scope.OPERATE, key_id="read")
        async with Gateway(*keys, asks=asks) as made:
            assert (await ask(made, "hosts")).status == 403
            assert (await ask(made, "benchmarks", {"samples": [SAMPLE]}, OPERATE)).status == 403
