"""GET /v1/cluster/usage, from the client's socket to a control that a test plays, or to the real one."""

import json
from typing import Any

import pytest

from gateway.core.balance import Balance
from gateway.core.questions import Away, Found, Inquiry, Question
from gateway.core.table import Table
from gateway.http.cluster import ClusterApi, Explain
from gateway.watch.usage import AskUsage
from geniehive.kit.clock import SystemClock
from geniehive.rules.model import Scope
from geniehive.v1 import routing_service_pb2, usage_pb2
from geniehive.v1.registry_service_pb2_grpc import RegistryServiceStub
from geniehive.v1.request_pb2 import OPERATION_CHAT
from tests.support.control_server import AS_NODE, Control, running_control
from tests.support.fake_store import FakeStore
from tests.unit.gateway.builders import key
from tests.unit.gateway.http.gateways import Answer, Gateway

READ = "sk-read"
# The key ids of tests.support.control_server.
KEYS = key(READ, Scope.READ, key_id="read"), key("sk-admin", Scope.ADMIN, key_id="admin")


class Asked:
    def __init__(self, answer: Found | Exception | None = None) -> None:
        self.answer = answer or Found([], "")
        self.questions: list[tuple[Question, str]] = []

    async def __call__(self, question: Question, key_id: str) -> Found:
        self.questions.append((question, key_id))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def nothing_else(inquiry: Inquiry, key_id: str) -> dict[str, Any]:
    raise AssertionError(inquiry)


async def unknown(model: str, key_id: str) -> Table | None:
    return None


def cluster(ask: Any) -> ClusterApi:
    clock = SystemClock()
    return ClusterApi(nothing_else, ask, Explain(nothing_else, Table("here"), unknown, Balance(), clock), clock)


def gateway(ask: Any, **options: Any) -> Gateway:
    return Gateway(*KEYS, cluster=cluster(ask), **options)


async def get(made: Gateway, query: str = "", secret: str = READ) -> Answer:
    return await made.ask("GET", f"/v1/cluster/usage{query}", authorization=f"Bearer {secret}")


async def test_a_question_and_its_answer() -> None:
    asked = Asked(Found([{"model": "m", "requests": 3}], "more"))
    async with gateway(asked) as made:
        answer = await get(made, "?by=model&by=key,hour&since=2026-11-01&until=2026-11-02T12:00:00Z&limit=5&page=abc")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert json.loads(answer.body) == {
            "object": "list",
            "by": ["model", "key", "hour"],
            "since": "2026-11-01T00:00:00Z",
            "until": "2026-11-02T12:00:00Z",
            "data": [{"model": "m", "requests": 3}],
            "next_page": "more",
        }
        ((question, key_id),) = asked.questions
        assert (question.by, question.limit, question.page, key_id) == (["model", "key", "hour"], 5, "abc", "read")


async def test_only_what_matches() -> None:
    asked = Asked()
    async with gateway(asked) as made:
        query = "?key=k&model=a%2Fb&host=gpu-1&service=gpu-1%2Fe&operation=chat&key="
        assert (await get(made, query)).status == 200
        query = "?hour=2026-11-01T09:30:00%2B01:00&day=2026-11-01&endpoint=endpoint/a/b/c"
        assert (await get(made, query)).status == 200
    assert [list(question.only) for question, _ in asked.questions] == [
        [
            ("key", "k"),
            ("model", "a/b"),
            ("host", "gpu-1"),
            ("service", "gpu-1/e"),
            ("operation", "OPERATION_CHAT"),
            ("key", ""),
        ],
        [("hour", "2026-11-01T08:30:00Z"), ("day", "2026-11-01T00:00:00Z"), ("endpoint", "endpoint/a/b/c")],
    ]


async def test_the_last_day_unless_said_otherwise() -> None:
    asked = Asked()
    async with gateway(asked) as made:
        answer = await get(made)
        assert (answer.status, json.loads(answer.body)["next_page"]) == (200, None)
        ((question, _),) = asked.questions
        assert (question.until - question.since).total_seconds() == 86400
        assert (question.by, question.limit, question.page) == ([], 0, "")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?since=yesterday", "'yesterday' is no time"),
        ("?until=1x", "'1x' is no time"),
        ("?limit=x", "'x' is no number of rows"),
        ("?limit=-1", "no number of rows"),
        ("?limit=1001", "no number of rows"),
        ("?group=model", "'group' is no parameter of this: use by, since, until, limit, page, key, model, host"),
        ("?operation=sing", "'sing' is no operation: use chat, completions"),
        ("?operation=unspecified", "'unspecified' is no operation"),
        ("?hour=noon", "'noon' is no hour"),
        ("?day=24h", "'24h' is no day"),
        ("?" + "&".join(["by=model"] * 40), "more than 32 parameters"),
    ],
)
async def test_what_cannot_be_read(query: str, words: str) -> None:
    asked = Asked()
    async with gateway(asked) as made:
        answer = await get(made, query)
        assert answer.status == 400
        assert words in json.loads(answer.body)["error"]["message"]
        assert not asked.questions


async def test_who_may_ask() -> None:
    asked = Asked()
    async with gateway(asked) as made:
        # The test's usual key is for models alone.
        assert (await made.ask("GET", "/v1/cluster/usage")).status == 403
        assert (await get(made, secret="sk-unknown")).status == 401
        assert (await made.ask("POST", "/v1/cluster/usage", b"{}")).status == 405
        assert (await get(made, secret="sk-admin")).status == 200
        assert [key_id for _, key_id in asked.questions] == ["admin"]
    async with gateway(asked, auth=False) as made:
        assert (await made.ask("GET", "/v1/cluster/usage", authorization="")).status == 200
        assert asked.questions[-1][1] == ""


async def test_control_is_away() -> None:
    async with gateway(Asked(Away("the disk is full", 2.2))) as made:
        answer = await get(made)
        assert (answer.status, answer.headers["retry-after"]) == (503, "3")
        error = json.loads(answer.body)["error"]
        assert error["code"] == "control_unavailable"
        assert "the disk is full" in error["message"]
    async with gateway(AskUsage(lambda: None, ())) as made:
        answer = await get(made)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "no connection" in json.loads(answer.body)["error"]["message"]


async def reported(control: Control) -> None:
    stream = control.stream(control.routing.ReportOutcomes(metadata=AS_NODE))
    row = usage_pb2.OutcomeRow(
        key_id="k",
        model="m",
        operation=OPERATION_CHAT,
        endpoint="endpoint/gpu-1/ollama/m",
        outcomes=usage_pb2.Outcomes(requests=4, requests_succeeded=2, requests_cancelled=1, attempts=4),
    )
    report = usage_pb2.OutcomeReport(rows=[row])
    message = routing_service_pb2.ReportOutcomesRequest(gateway_id="gw", instance_id="1", sequence=1, report=report)
    await stream.send(message)
    while (await stream.answer()).accepted < 1:
        pass


async def test_a_real_control_answers() -> None:
    store = FakeStore()
    async with running_control(store) as control:
        await reported(control)
        ask = AskUsage(lambda: RegistryServiceStub(control.channel), AS_NODE)
        async with gateway(ask) as made:
            answer = await get(made, "?by=host&by=operation")
            (row,) = json.loads(answer.body)["data"]
            assert (row["host"], row["operation"]) == ("gpu-1", "chat")
            assert (row["requests"], row["requests_succeeded"], row["requests_failed"]) == (4, 2, 1)
            assert row["duration_p50_seconds"] is None
            for query, requests in (
                ("?key=k&model=m&host=gpu-1&service=gpu-1/ollama&operation=chat", 4),
                ("?endpoint=endpoint/gpu-1/ollama/m", 4),
                ("?key=k&host=gpu-2", 0),
                ("?operation=embeddings", 0),
                ("?day=2001-01-01", 0),
            ):
                answer = await get(made, query)
                assert sum(row["requests"] for row in json.loads(answer.body)["data"]) == requests
            answer = await get(made, "?by=colour")
            assert (answer.status, "by colour" in answer.body.decode()) == (400, False)
            assert "'colour' is nothing that usage is summed by: use key, model" in answer.body.decode()
            answer = await get(made, "?since=2h&until=4h")
            assert (answer.status, "ends before it begins" in answer.body.decode()) == (400, True)
            answer = await get(made, "?page=bad")
            assert (answer.status, "page_token" in answer.body.decode()) == (400, True)
            store.failing = "the disk is full"
            answer = await get(made)
            assert (answer.status, "the disk is full" in answer.body.decode()) == (503, True)


async def test_control_judges_the_clients_key_too() -> None:
    async with running_control() as control:
        ask = AskUsage(lambda: RegistryServiceStub(control.channel), AS_NODE)
        # This gateway's table is older than what control knows of that key.
        async with Gateway(key(READ, Scope.READ, key_id="infer"), cluster=cluster(ask)) as made:
            answer = await get(made)
            assert (answer.status, json.loads(answer.body)["error"]["code"]) == (403, "forbidden")
