"""/v1/cluster/…, from the client's socket to a control that a test plays."""

import json
from typing import Any

import pytest

from gateway.core.questions import Absent, Away, Forbidden, Inquiry, Wrong
from geniehive.rules.model import Scope
from tests.unit.gateway.builders import key
from tests.unit.gateway.http.gateways import Answer, Gateway

READ, OPERATE = "sk-read", "sk-operate"
KEYS = key(READ, Scope.READ, key_id="read"), key(OPERATE, Scope.OPERATE, key_id="operate")
SAMPLE = {
    "sample_id": "s1",
    "service": "a/e",
    "model": "m",
    "workload": "chat.short_reasoning/2",
    "measure_time": "2026-11-01T08:00:00Z",
    "correctness": 0.5,
}


class Control:
    """Answers by call; what is an exception is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[Inquiry, str]] = []

    async def __call__(self, inquiry: Inquiry, key_id: str) -> dict[str, Any]:
        self.asked.append((inquiry, key_id))
        answer = self.answers[inquiry.call]
        if isinstance(answer, Exception):
            raise answer
        found: dict[str, Any] = answer
        return found

    @property
    def fields(self) -> Any:
        ((inquiry, _),) = self.asked
        return inquiry.fields


async def get(made: Gateway, path: str, secret: str = READ) -> Answer:
    return await made.ask("GET", f"/v1/cluster/{path}", authorization=f"Bearer {secret}")


async def post(made: Gateway, path: str, body: Any, secret: str = READ) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await made.ask("POST", f"/v1/cluster/{path}", content, authorization=f"Bearer {secret}")


def message(answer: Answer) -> str:
    found: str = json.loads(answer.body)["error"]["message"]
    return found


@pytest.mark.parametrize(
    ("path", "call", "field", "fields"),
    [
        ("hosts", "ListHosts", "hosts", {}),
        (
            "hosts?availability=busy&label=rack%3D7&label=a=&limit=5&page=p",
            "ListHosts",
            "hosts",
            {"availability": "AVAILABILITY_BUSY", "labels": {"rack": "7", "a": ""}, "page_size": 5, "page_token": "p"},
        ),
        (
            "services?host=gpu-1&model=a/b&operation=chat",
            "ListServices",
            "services",
            {"host_id": "gpu-1", "asset_id": "a/b", "operation": "OPERATION_CHAT"},
        ),
        ("roles?limit=2", "ListRoles", "roles", {"page_size": 2}),
        ("aliases?page=x", "ListAliases", "aliases", {"page_token": "x"}),
        (
            "benchmarks?service=a/e&model=m&workload=w/1",
            "ListBenchmarkSamples",
            "samples",
            {"service": "a/e", "asset_id": "m", "workload": "w/1"},
        ),
    ],
)
async def test_lists(path: str, call: str, field: str, fields: dict[str, Any]) -> None:
    control = Control(**{call: {field: [{"x": 1}], "next_page_token": "more"}})
    async with Gateway(*KEYS, asks=control) as made:
        answer = await get(made, path)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert json.loads(answer.body) == {"object": "list", "data": [{"x": 1}], "next_page": "more"}
        assert control.asked == [(Inquiry(call, fields), "read")]
        control.answers[call] = {field: [], "next_page_token": ""}
        assert json.loads((await get(made, path)).body) == {"object": "list", "data": [], "next_page": None}


async def test_health() -> None:
    control = Control(GetClusterHealth={"health": {"state": "healthy", "warnings": []}})
    async with Gateway(*KEYS, asks=control) as made:
        answer = await get(made, "health")
        assert json.loads(answer.body) == {"object": "cluster_health", "state": "healthy", "warnings": []}


async def test_resolve_shows_no_relay() -> None:
    def resource(name: str, **content: Any) -> dict[str, Any]:
        return {"name": name, "route": None, "endpoint": None, "upstream": None, "relay": None, **content}

    found = [
        resource("route/m", route={"model": "m"}),
        resource("endpoint/a/e/m", endpoint={"service": "a/e"}),
        resource("upstream/a/e", upstream={"routable": True}),
        resource("relay/a", relay={"base_urls": ["https://192.0.2.1"]}),
    ]
    control = Control(Resolve={"resources": found})
    async with Gateway(*KEYS, asks=control) as made:
        answer = await get(made, "routes/resolve?model=a%20b&kind=embeddings")
        assert control.fields == {"model": "a b", "operation": "OPERATION_EMBEDDINGS"}
        assert json.loads(answer.body) == {
            "object": "route",
            "route": {"model": "m"},
            "endpoints": [{"name": "endpoint/a/e/m", "service": "a/e"}],
            "upstreams": [{"name": "upstream/a/e", "routable": True}],
        }
        answer = await get(made, "routes/resolve")
        assert (answer.status, message(answer)) == (400, "Say which name is meant: ?model=NAME")


async def test_match() -> None:
    control = Control(MatchRoutes={"candidates": [{"model": "coder", "score": 0.7}]})
    async with Gateway(*KEYS, asks=control) as made:
        asked = {
            "task": "write code", "tasks": ["and tests"], "workload": "w/1", "workloads": ["v/1"], "kind": "chat",
            "modality": "text", "include_direct_services": True, "limit": 3,
        }  # fmt: skip
        answer = await post(made, "routes/match", asked)
        assert json.loads(answer.body) == {"object": "list", "data": [{"model": "coder", "score": 0.7}]}
        assert control.fields == {
            "tasks": ["write code", "and tests"],
            "workloads": ["w/1", "v/1"],
            "operation": "OPERATION_CHAT",
            "modality": "text",
            "include_services": True,
            "limit": 3,
        }


async def test_samples_are_stored_one_by_one() -> None:
    refused = {"reason": "field_invalid", "message": "no such service"}
    control = Control(RecordBenchmarkSamples={"results": [{"refused": None}, {"refused": refused}]})
    async with Gateway(*KEYS, asks=control) as made:
        body = {"samples": [SAMPLE, {**SAMPLE, "sample_id": "s2"}]}
        assert (await post(made, "benchmarks", body)).status == 403
        answer = await post(made, "benchmarks", body, OPERATE)
        assert json.loads(answer.body)["data"] == [
            {"sample_id": "s1", "stored": True, "refused": None},
            {"sample_id": "s2", "stored": False, "refused": refused},
        ]
        ((inquiry, key_id),) = control.asked
        assert key_id == "operate"
        assert inquiry.fields["samples"][0] == {
            **{name: value for name, value in SAMPLE.items() if name != "model"},
            "asset_id": "m",
        }


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("hosts?colour=red", "'colour' is no parameter of this: use availability, label, limit, page"),
        ("hosts?availability=lively", "'lively' is no availability: use available, busy"),
        ("hosts?label=rack", "'rack' is no label: write NAME=VALUE"),
        ("services?operation=sing", "'sing' is no operation: use chat, completions"),
        ("roles?limit=0x1", "'0x1' is no number of rows from 1 to 1000"),
        ("roles?limit=-1", "no number of rows"),
        ("health?x=1", "'x' is no parameter of this: it takes none"),
        ("routes/resolve?model=m&kind=sing", "'sing' is no operation"),
    ],
)
async def test_queries_that_cannot_be_read(path: str, words: str) -> None:
    control = Control()
    async with Gateway(*KEYS, asks=control) as made:
        answer = await get(made, path)
        assert answer.status == 400
        assert words in message(answer)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("routes/match", b"{", "The body is no JSON"),
        ("routes/match", b"\xff", "The body is no JSON"),
        ("routes/match", b"[" * 100_000, "The body is"),
        ("routes/match", {"tasks": "a"}, "Expected `array`, got `str` - at `$.tasks`"),
        ("routes/match", {"color": "red"}, "unknown field `color`"),
        ("routes/match", {"task": "a", "kind": "sing"}, "'sing' is no operation"),
        ("routes/match", {"task": "a", "limit": 2**40}, "at `$.limit`"),
        ("benchmarks", {"samples": []}, "at `$.samples`"),
        ("benchmarks", {"samples": [SAMPLE] * 1001}, "at `$.samples`"),
        ("benchmarks", {"samples": [{**SAMPLE, "correctness": -1}]}, ".correctness`"),
        ("benchmarks", {"samples": [{**SAMPLE, "request_count": 1.5}]}, ".request_count`"),
        ("benchmarks", {"samples": [{**SAMPLE, "measure_time": "noon"}]}, ".measure_time`"),
        ("benchmarks", {"samples": [{**SAMPLE, "measure_time": "2026-11-01T08:00:00"}]}, ".measure_time`"),
        ("benchmarks", b'{"samples": [{"correctness": NaN}]}', "The body is no JSON"),
    ],
)
async def test_bodies_that_cannot_be_read(path: str, body: Any, words: str) -> None:
    control = Control()
    async with Gateway(*KEYS, asks=control) as made:
        answer = await post(made, path, body, OPERATE)
        assert answer.status == 400
        assert words in message(answer)
        assert not control.asked


async def test_a_body_has_its_limit() -> None:
    async with Gateway(*KEYS, asks=Control()) as made:
        assert (await post(made, "routes/match", {"task": "x" * (3 << 20)})).status == 413


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (Wrong("limit is negative"), 400, None),
        (Absent("there is no such model"), 404, "not_found"),
        (Forbidden("this key is not known"), 403, "forbidden"),
        (Away("there is no connection to it"), 503, "control_unavailable"),
    ],
)
async def test_how_a_question_may_end(failure: Exception, status: int, code: str | None) -> None:
    async with Gateway(*KEYS, asks=Control(ListHosts=failure)) as made:
        answer = await get(made, "hosts")
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
        assert str(failure) in message(answer)
        assert ("retry-after" in answer.headers) == (status == 503)


async def test_who_may_ask_and_how() -> None:
    control = Control(ListHosts={"hosts": [], "next_page_token": ""})
    async with Gateway(*KEYS, asks=control) as made:
        # The test's usual key is for models alone.
        assert (await made.ask("GET", "/v1/cluster/hosts")).status == 403
        assert (await get(made, "hosts", "sk-unknown")).status == 401
        assert (await made.ask("HEAD", "/v1/cluster/hosts", authorization=f"Bearer {READ}")).status == 200
        for method, path, allow in (
            ("POST", "hosts", "GET, HEAD, OPTIONS"),
            ("DELETE", "benchmarks", "GET, HEAD, POST, OPTIONS"),
            ("GET", "routes/match", "POST, OPTIONS"),
        ):
            answer = await made.ask(method, f"/v1/cluster/{path}", authorization=f"Bearer {OPERATE}")
            assert (answer.status, answer.headers["allow"]) == (405, allow)
            answer = await made.ask("OPTIONS", f"/v1/cluster/{path}")
            assert (answer.status, answer.headers["allow"]) == (204, allow)
        assert (await get(made, "cats")).status == 404
        assert (await made.ask("GET", "/v1/cluster/")).status == 404
