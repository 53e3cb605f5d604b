"""POST /v1/cluster/routes/explain: control's part and the gateway's, and that the next request does what it says."""

import json
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import msgspec
import pytest

from gateway.core.questions import Absent, Away, Inquiry
from geniehive.rules.model import (
    Asset,
    Branch,
    Endpoint,
    LoadState,
    NameKind,
    RequestPolicy,
    Resource,
    Route,
    Scope,
    Speed,
    Strategy,
    Tier,
    TierEndpoint,
)
from geniehive.rules.operations import Ability, Operation
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.builders import OFFLINE, key, resource, table, until, upstream
from tests.unit.gateway.http.gateways import BODY, CHAT_PATH, SECRET, Gateway

READ = "sk-read"
KEY = key(READ, Scope.READ, key_id="read")


async def away(inquiry: Inquiry, key_id: str) -> dict[str, Any]:
    raise Away("there is no connection to it")


class Engine(RawServer):
    """Answers everything alike; holds its answers back while `held`."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.asked = 0

    async def _answer(self, peer: Peer) -> None:
        while True:
            await peer.request()
            self.asked += 1
            await peer.answer(b"{}", b"200 OK", b"")


def endpoint(host: str, speed: float | None = None, **asset: Any) -> Resource:
    made = Asset(**{"asset_id": "m", "upstream_name": "m", **asset})
    return resource(
        Endpoint(service=f"{host}/e", asset=made, speed=speed and Speed(decode_tokens_per_second=speed))  # type: ignore[arg-type]
    )


def route(
    *hosts: str,
    strategy: Strategy = Strategy.SOONEST,
    then: tuple[str, ...] = (),
    policy: RequestPolicy | None = None,
) -> Resource:
    tiers = tuple(
        Tier(
            label=label,
            strategy=strategy,
            request_policy=policy,
            endpoints=tuple(TierEndpoint(endpoint=f"endpoint/{host}/e/m") for host in members),
        )
        for label, members in (("m", hosts), ("m>other", then))
        if members
    )
    branch = Branch(operations=(Operation.CHAT,), kind=NameKind.ASSET, tiers=tiers)
    return resource(Route(model="m", branches=(branch,)))


def under_way(made: Gateway, count: int) -> bool:
    return sum(made.balance.in_flight.values()) >= count


async def explain(made: Gateway, **asked: Any) -> dict[str, Any]:
    content = json.dumps({"model": "m", **asked}).encode()
    answer = await made.ask("POST", "/v1/cluster/routes/explain", content, authorization=f"Bearer {READ}")
    assert answer.status == 200, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


def by_name(found: dict[str, Any]) -> dict[str, Any]:
    return {one["endpoint"]: one for one in found["endpoints"]}


async def test_the_waits_of_three_hosts_of_different_speed() -> None:
    resources = [
        route("slow", "fast", "middle"),
        endpoint("slow", 10.0),
        endpoint("fast", 80.0),
        endpoint("middle", 40.0),
    ]
    resources += [upstream(f"{host}/e", slots=4) for host in ("slow", "fast", "middle")]
    async with Gateway(KEY, *resources, asks=away) as made:
        found = await explain(made, prompt_tokens=800)
        assert [one["endpoint"] for one in found["endpoints"]] == ["fast/e/m", "middle/e/m", "slow/e/m"]
        assert (found["outcome"], found["chosen"]) == ("sent", "fast/e/m")
        assert found["control_unavailable"] == "there is no connection to it"
        assert found["tiers"] == [{"tier": 0, "label": "m", "strategy": "soonest", "expected_completion_tokens": 200}]
        for one in found["endpoints"]:
            terms = one["wait_terms"]
            assert set(terms) == set(found["weights"]) == {"load", "queue", "prefill", "decode", "crowd"}
            assert one["wait_seconds"] == pytest.approx(sum(terms.values()) - terms["crowd"], abs=1e-3)
            weighted = sum(found["weights"][name] * seconds for name, seconds in terms.items())
            assert one["rank"] == pytest.approx(weighted, abs=1e-3)
        assert by_name(found)["slow/e/m"]["wait_terms"]["decode"] == pytest.approx(20.0)
        assert by_name(found)["slow/e/m"]["speed_from"] == "control"


@pytest.mark.parametrize("strategy", [s for s in Strategy if s])
async def test_the_next_request_does_what_it_says(strategy: Strategy) -> None:
    async with Engine() as one, Engine() as two, Engine() as three:
        engines = {"a": one, "b": two, "c": three}
        resources = [route("a", "b", "c", strategy=strategy)]
        for speed, (host, engine) in zip((20.0, 60.0, 40.0), engines.items(), strict=True):
            resources += [endpoint(host, speed), upstream(f"{host}/e", str(engine.origin), slots=2)]
        async with Gateway(KEY, *resources, asks=away) as made:
            for size in (1, 10, 3000, 40, 7, 900):
                body = {"model": "m", "messages": [{"role": "user", "content": "word " * size}]}
                said = (await explain(made, request=body))["chosen"]
                answer = await made.ask("POST", CHAT_PATH, json.dumps(body).encode())
                assert f"{answer.headers['x-geniehive-service']}/m" == said
                await made.ended(1)


@pytest.mark.parametrize("strategy", [s for s in Strategy if s])
async def test_so_does_each_of_a_burst(strategy: Strategy) -> None:
    """Nobody is answered: what is in flight decides, then limits, then the next tier, and then there is no room."""

    async def never(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async with RawServer(never) as engine:
        resources = [route("a", "b", strategy=strategy, then=("c",))]
        for speed, slots, host in ((20.0, 3, "a"), (60.0, 1, "b"), (40.0, 1, "c")):
            url = str(engine.origin)
            resources += [endpoint(host, speed), upstream(f"{host}/e", url, slots=slots, concurrency_limit=slots)]
        async with Gateway(KEY, *resources, asks=away) as made, AsyncExitStack() as stack:
            balance = made.balance
            for number in range(5):
                said = await explain(made, request=json.loads(BODY))
                assert said["outcome"] == "sent"
                before = dict(balance.in_flight)
                _, writer = await stack.enter_async_context(made.connect())
                head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\n"
                writer.write(f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
                await until(partial(under_way, made, number + 1))
                now = balance.in_flight
                (went,) = (name for name in now if now[name] != before.get(name, 0))
                assert went == f"endpoint/{said['chosen']}"
            assert balance.in_flight == {"endpoint/a/e/m": 3, "endpoint/b/e/m": 1, "endpoint/c/e/m": 1}
            assert (await explain(made))["outcome"] == "waits"


async def test_who_is_in_two_tiers_stands_in_the_first() -> None:
    resources = [
        route("a", then=("a", "b")),
        endpoint("a", 10.0),
        endpoint("b", 90.0),
        upstream("a/e"),
        upstream("b/e"),
    ]
    async with Gateway(KEY, *resources, asks=away) as made:
        found = await explain(made)
        assert [(one["endpoint"], one["tier"]) for one in found["endpoints"]] == [("a/e/m", 0), ("b/e/m", 1)]
        assert [one["endpoint"] for one in found["endpoints"] if one["chosen"]] == [found["chosen"]] == ["a/e/m"]
        assert [tier["label"] for tier in found["tiers"]] == ["m", "m>other"]


async def test_who_is_left_out_after_failures() -> None:
    async with Engine() as engine:
        gone = "http://127.0.0.1:1"
        resources = [route("a", "b"), endpoint("a", 90.0), endpoint("b", 10.0)]
        resources += [upstream("a/e", gone), upstream("b/e", str(engine.origin))]
        async with Gateway(KEY, *resources, asks=away) as made:
            assert (await explain(made))["chosen"] == "a/e/m"
            assert (await made.chat()).headers["x-geniehive-service"] == "b/e"
            found = await explain(made)
            assert found["chosen"] == "b/e/m"
            assert by_name(found)["a/e/m"]["not_now"].startswith("left out after failures, for ")
            assert by_name(found)["a/e/m"]["way"] is None
            assert (await made.chat()).headers["x-geniehive-attempts"] == "1"


async def test_it_changes_nothing() -> None:
    async with Engine() as one, Engine() as two:
        resources = [route("a", "b", strategy=Strategy.ROUND_ROBIN)]
        for host, engine in (("a", one), ("b", two)):
            resources += [endpoint(host), upstream(f"{host}/e", str(engine.origin))]
        async with Gateway(KEY, *resources, asks=away) as made:
            for _ in range(4):
                said = {(await explain(made))["chosen"] for _ in range(3)}
                answer = await made.chat()
                assert {f"{answer.headers['x-geniehive-service']}/m"} == said
            assert one.asked == two.asked == 2


async def test_who_cannot_take_it() -> None:
    resources = [
        route("small", "blind", "big", then=("last",)),
        endpoint("small", context_tokens=1000),
        endpoint("blind", lacking_abilities=(Ability.VISION,)),
        endpoint("big", context_tokens=8000),
        endpoint("last"),
        *(upstream(f"{host}/e") for host in ("small", "blind", "big")),
        upstream("last/e", routable=False, condition=OFFLINE),
    ]
    async with Gateway(KEY, *resources, asks=away) as made:
        found = by_name(await explain(made, prompt_tokens=2000, images=True))
        gates = {name: (one["gate"], one["decided_by"]) for name, one in found.items()}
        assert gates == {
            "big/e/m": (None, None),
            "small/e/m": ("context", "gateway"),
            "blind/e/m": ("abilities", "gateway"),
            "last/e/m": ("unusable", "gateway"),
        }
        assert found["small/e/m"]["reason"] == "the prompt has about 2000 tokens, and its context is 1000"
        assert found["last/e/m"]["reason"] == "offline: the node's stream closed"
        assert found["big/e/m"]["chosen"]
        found = await explain(made, request={"model": "m", "messages": [{"role": "user", "content": "word " * 9000}]})
        assert (found["outcome"], found["chosen"]) == ("sent", "blind/e/m")


async def test_nobody_can_take_it() -> None:
    async with Gateway(KEY, route("a"), endpoint("a", context_tokens=100), upstream("a/e"), asks=away) as made:
        found = await explain(made, prompt_tokens=9000)
        assert (found["outcome"], found["chosen"]) == ("unfit", None)
        body = {"model": "m", "messages": [{"role": "user", "content": "word " * 9000}]}
        assert (await explain(made, request=body))["outcome"] == "unfit"
        answer = await made.ask("POST", CHAT_PATH, json.dumps(body).encode())
        assert json.loads(answer.body)["error"]["code"] == "context_length_exceeded"


async def test_nobody_is_there() -> None:
    resources = [route("a"), endpoint("a"), upstream("a/e", routable=False, condition=OFFLINE)]
    async with Gateway(KEY, *resources, asks=away) as made:
        found = await explain(made)
        assert (found["outcome"], found["chosen"], found["tiers"]) == ("unserved", None, [])


async def test_a_full_endpoint_is_waited_for() -> None:
    async def never(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async with RawServer(never) as engine:
        resources = [route("a"), endpoint("a"), upstream("a/e", str(engine.origin), concurrency_limit=1)]
        async with Gateway(KEY, *resources, asks=away) as made, made.connect() as (_, writer):
            head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\n"
            writer.write(f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
            await until(lambda: made.balance.in_flight)
            found = await explain(made)
            assert (found["outcome"], found["chosen"]) == ("waits", None)
            assert found["endpoints"][0]["not_now"] == "a/e is at its limit, 1 at once"
            assert found["endpoints"][0]["in_flight"] == 1


async def test_a_model_that_is_not_in_memory_costs_its_load() -> None:
    resources = [
        route("cold", "warm"),
        endpoint("cold", 40.0, load_state=LoadState.UNLOADED),
        endpoint("warm", 40.0, load_state=LoadState.LOADED),
        upstream("cold/e", slots=1),
        upstream("warm/e", slots=1),
    ]
    async with Gateway(KEY, *resources, asks=away) as made:
        found = by_name(await explain(made))
        assert found["cold/e/m"]["wait_terms"]["load"] > 0
        assert (found["cold/e/m"]["loaded"], found["warm/e/m"]["loaded"]) == (False, True)
        assert found["warm/e/m"]["chosen"]


async def test_the_policy_that_would_be_applied() -> None:
    own = RequestPolicy(defaults_json='{"a":{"b":4096},"c":1.0}')
    role = RequestPolicy(defaults_json='{"a":{"d":2}}', overrides_json='{"c":null}')
    resources = [route("a", policy=role), endpoint("a", request_policies=(own,)), upstream("a/e")]
    async with Gateway(KEY, *resources, asks=away) as made:
        ((policy),) = [one["request_policy"] for one in (await explain(made))["endpoints"]]
        assert json.dumps(policy) == '{"defaults": {"a": {"b": 4096, "d": 2}, "c": 1.0}, "overrides": {"c": null}}'


async def test_controls_part() -> None:
    term = {"name": "text", "weight": 0.3, "value": 1.0, "signals": {}, "reasons": ["x"]}
    candidates = [
        {"endpoint": "endpoint/a/e/m", "tier": 0, "ruled_out": None, "score": 0.5, "terms": [term]},
        {
            "endpoint": "endpoint/b/e/m",
            "tier": None,
            "ruled_out": {"endpoint": "endpoint/b/e/m", "gate": "trust_tier", "reason": "guest is denied"},
            "score": 0.0,
            "terms": [],
        },
        {"endpoint": "endpoint/new/e/m", "tier": 0, "ruled_out": None, "score": 0.5, "terms": []},
    ]
    asked = []

    async def control(inquiry: Inquiry, key_id: str) -> dict[str, Any]:
        asked.append((inquiry, key_id))
        branch = {"kind": "role", "target": ""}
        return {"route": {"branches": [branch], "shadows": ["role"]}, "candidates": candidates, "resources": []}

    resources = [route("a"), endpoint("a"), endpoint("b"), upstream("a/e"), upstream("b/e")]
    async with Gateway(KEY, *resources, asks=control) as made:
        found = await explain(made)
        assert asked == [(Inquiry("ExplainRoute", {"model": "m", "operation": "OPERATION_CHAT"}), "read")]
        assert (found["kind"], found["target"], found["shadows"]) == ("role", None, ["role"])
        assert found["control_unavailable"] is None
        names = by_name(found)
        assert (names["a/e/m"]["match_score"], names["a/e/m"]["match_terms"]) == (0.5, [term])
        assert (names["b/e/m"]["gate"], names["b/e/m"]["decided_by"]) == ("trust_tier", "control")
        assert names["b/e/m"]["reason"] == "guest is denied"
        assert names["new/e/m"]["reason"] == "this gateway does not know it yet"


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        ({}, 400, "Say which name is meant, by model"),
        ({"model": "m", "kind": "sing"}, 400, "'sing' is no operation"),
        ({"model": "m", "prompt_tokens": -1}, 400, "`$.prompt_tokens`"),
        ({"model": "m", "request": {"messages": []}}, 400, 'request: "model" is missing'),
        ({"model": "m", "operation": "embeddings"}, 400, "can't be used for embeddings; it serves chat"),
        ({"model": "q"}, 404, 'The model "q" does not exist'),
    ],
)
async def test_what_cannot_be_explained(content: Any, status: int, words: str) -> None:
    async def control(inquiry: Inquiry, key_id: str) -> dict[str, Any]:
        raise Absent("there is no such model")

    async with Gateway(KEY, route("a"), endpoint("a"), upstream("a/e"), asks=control) as made:
        answer = await made.ask(
            "POST", "/v1/cluster/routes/explain", msgspec.json.encode(content), authorization=f"Bearer {READ}"
        )
        assert answer.status == status
        assert words in json.loads(answer.body)["error"]["message"]


async def test_a_name_that_the_table_lacks_is_asked_of_control() -> None:
    async with Gateway(KEY, asks=away) as made:
        made.learned = table(route("a"), endpoint("a"), upstream("a/e"))
        assert (await explain(made))["chosen"] == "a/e/m"
        assert made.asked == [("m", "read")]
