"""Who can't serve what is asked for is passed over, and if nobody can the client learns why in words that it knows."""

import json
from typing import Any

import anthropic
import openai
import pytest

from gateway.core.outcome import Ending
from geniehive.rules.model import (
    Asset,
    Branch,
    Endpoint,
    Gate,
    NameKind,
    RequestPolicy,
    Resource,
    Route,
    RuledOut,
    Strategy,
    Tier,
    TierEndpoint,
)
from geniehive.rules.operations import Ability, Operation
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.builders import OFFLINE, resource, upstream
from tests.unit.gateway.http import test_anthropic_sdk, test_openai_sdk
from tests.unit.gateway.http.engines import Engine
from tests.unit.gateway.http.gateways import Answer, Gateway, stream_head, stream_piece

DEAD = "http://127.0.0.1:9"
TEXT = (Operation.CHAT, Operation.RESPONSES, Operation.MESSAGES, Operation.EMBEDDINGS)


def at(host: str, url: str, context: int | None = None, **fields: Any) -> tuple[Resource, ...]:
    """A model at this host. fields: of the upstream, and `abilities` and `lacking` of the model."""
    abilities, lacking = fields.pop("abilities", ()), fields.pop("lacking", ())
    asset = Asset(
        asset_id="m", upstream_name="m", context_tokens=context, abilities=abilities, lacking_abilities=lacking
    )
    endpoint = Endpoint(service=f"{host}/e", asset=asset)
    return (resource(endpoint), upstream(f"{host}/e", url, **fields))


def named(
    model: str, *tiers: tuple[str, ...], labels: tuple[str, ...] = (), strategy: Strategy = Strategy.SOONEST,
    policies: tuple[RequestPolicy | None, ...] = (),
) -> Resource:  # fmt: skip
    made = tuple(
        Tier(
            label=labels[n] if labels else model,
            strategy=strategy,
            request_policy=policies[n] if policies else None,
            endpoints=tuple(TierEndpoint(endpoint=f"endpoint/{host}/e/m") for host in hosts),
        )
        for n, hosts in enumerate(tiers)
    )
    return resource(Route(model=model, branches=(Branch(operations=TEXT, kind=NameKind.ASSET, tiers=made),)))


def chat(size: int, **fields: Any) -> bytes:
    """With a prompt of so many bytes."""
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "w" * size}], **fields}).encode()


def error(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.body)["error"]
    return found


async def test_a_long_prompt_goes_where_it_fits_whosever_turn_it_is() -> None:
    async with Engine() as small, Engine() as large:
        here = (*at("a", small.url, 4096), *at("b", large.url, 32768))
        for strategy in (Strategy.ROUND_ROBIN, Strategy.SOONEST):
            async with Gateway(named("m", ("a", "b"), strategy=strategy), *here) as gateway:
                for _ in range(4):
                    assert (await gateway.chat(chat(60_000))).headers["x-geniehive-host"] == "b"
                assert {(await gateway.chat(chat(100))).headers["x-geniehive-host"] for _ in range(4)} == {"a", "b"}


async def test_a_prompt_that_fits_nowhere_is_refused_without_asking_anybody() -> None:
    async with Engine() as one, Engine() as two:
        resources = (*at("a", one.url, 4096, runtime="ollama"), *at("b", two.url, 8192, runtime="llamacpp"))
        async with Gateway(named("m", ("a", "b")), *resources) as gateway:
            answer = await gateway.chat(chat(60_000))
            (outcome,) = await gateway.ended()
        assert answer.status == 400
        assert error(answer)["code"] == "context_length_exceeded"
        assert error(answer)["type"] == "invalid_request_error"
        said = error(answer)["message"]
        assert said.startswith("This model's maximum context length is 8192 tokens.")
        assert "b/e/m" in said
        assert "larger -c" in said
        assert (one.heads, two.heads) == ([], [])
        assert (outcome.ending, outcome.status, outcome.attempts) == (Ending.UNSERVED, 400, 0)


async def test_sdks_know_what_is_wrong() -> None:
    async with Engine() as engine:
        resources = (named("m", ("a",)), *at("a", engine.url, 2048, runtime="ollama"))
        async with Gateway(*resources) as gateway, test_openai_sdk.sdk(gateway) as client:
            with pytest.raises(openai.BadRequestError, match="maximum context length is 2048") as refused:
                await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "w " * 9000}])
            assert refused.value.code == "context_length_exceeded"
            with pytest.raises(openai.BadRequestError, match="maximum context length is 2048") as refused:
                await client.responses.create(model="m", input="w " * 9000)
            assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")
            with pytest.raises(openai.BadRequestError, match="maximum context length is 2048"):
                await client.embeddings.create(model="m", input=["w", "w " * 9000])
            async with test_anthropic_sdk.sdk(gateway) as other:
                with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 2048 maximum"):
                    await other.messages.create(
                        model="m", max_tokens=9, messages=[{"role": "user", "content": "w " * 9000}]
                    )
        assert engine.heads == []


async def test_what_may_fit_and_what_only_counts_is_asked() -> None:
    async with Engine() as engine, Gateway(named("m", ("a",)), *at("a", engine.url, 2048)) as gateway:
        # By four bytes to a token it would not; there may be six.
        assert (await gateway.chat(chat(12_000))).status == 200
        assert (await gateway.ask("POST", "/v1/messages/count_tokens", chat(60_000))).status == 200


async def test_a_fallback_serves_what_does_not_fit_before() -> None:
    route = named("m", ("a",), ("b",), labels=("mentor", "mentor>general_assistant"))
    async with (
        Engine() as small,
        Engine() as large,
        Gateway(route, *at("a", small.url, 4096), *at("b", large.url, 32768)) as gateway,
    ):
        answer = await gateway.chat(chat(60_000))
        assert answer.headers["x-geniehive-route"] == "mentor>general_assistant"
        assert (await gateway.chat(chat(60))).headers["x-geniehive-route"] == "mentor"


async def test_a_fallback_serves_after_failures_too_with_its_own_policy() -> None:
    policies = (RequestPolicy(defaults_json='{"seed":1}'), RequestPolicy(defaults_json='{"seed":2}'))
    route = named("m", ("a", "dead"), ("b",), labels=("mentor", "mentor>general_assistant"), policies=policies)
    bodies: list[Any] = []

    async def fails(peer: Peer) -> None:
        while True:
            bodies.append(json.loads((await peer.request())[1]))
            await peer.answer(b"{}", b"503 Oops")

    async def serves(peer: Peer) -> None:
        bodies.append(json.loads((await peer.request())[1]))
        await peer.answer(b"{}")

    async with (
        RawServer(fails) as one,
        RawServer(serves) as two,
        Gateway(route, *at("a", str(one.origin)), *at("dead", DEAD), *at("b", str(two.origin))) as gateway,
    ):
        answer = await gateway.chat(chat(10))
        assert (answer.status, answer.headers["x-geniehive-route"]) == (200, "mentor>general_assistant")
        assert [body["seed"] for body in bodies] == [1, 2]


async def test_who_fits_and_is_away_comes_back() -> None:
    """Then the client should come again, and not make its prompt shorter."""
    async with Engine() as engine:
        away = at("b", DEAD, 32768, routable=False, condition=OFFLINE)
        async with Gateway(named("m", ("a", "b")), *at("a", engine.url, 4096), *away) as gateway:
            answer = await gateway.chat(chat(60_000))
            assert (answer.status, error(answer)["code"]) == (503, "no_endpoint")
            assert "b/e/m: offline" in error(answer)["message"]
            assert "a/e/m: the prompt has about 15" in error(answer)["message"]
            assert (await gateway.chat(chat(600_000))).status == 400


async def test_who_fits_and_may_not_serve_does_not_count() -> None:
    out = RuledOut(endpoint="endpoint/b/e/m", gate=Gate.TRUST_TIER, reason="its trust tier is denied")
    tier = Tier(label="m", endpoints=(TierEndpoint(endpoint="endpoint/a/e/m"),))
    route = Route(model="m", branches=(Branch(operations=TEXT, kind=NameKind.ROLE, tiers=(tier,), ruled_out=(out,)),))
    async with Engine() as engine:
        resources = (*at("a", engine.url, 4096), *at("b", engine.url, 32768))
        async with Gateway(resource(route), *resources) as gateway:
            assert (await gateway.chat(chat(60_000))).status == 400


async def test_who_can_not_use_tools_or_see_is_passed_over() -> None:
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    async with Engine() as one, Engine() as two:
        resources = (
            *at("a", one.url, lacking=(Ability.TOOLS,)),
            *at("b", two.url, lacking=(Ability.VISION,), abilities=(Ability.TOOLS,)),
        )
        async with Gateway(named("m", ("a", "b")), named("sees", ("a",)), *resources) as gateway:
            for _ in range(2):
                assert (await gateway.chat(chat(9, tools=tools))).headers["x-geniehive-host"] == "b"
                assert (await gateway.chat(chat(9, messages=picture))).headers["x-geniehive-host"] == "a"
            both = await gateway.chat(chat(9, messages=picture, tools=tools))
            assert (both.status, error(both)["code"]) == (400, "tools_not_supported")
            refused = await gateway.chat(chat(9, model="sees", tools=tools))
            assert (refused.status, error(refused)["param"]) == (400, "tools")
            assert "these do: m" in error(refused)["message"]


async def test_whoever_comes_while_it_waits_must_fit_too() -> None:
    """A plan that is newer than the request is held against the same needs."""

    async def fails(peer: Peer) -> None:
        await peer.request()
        # Meanwhile the table has another, who is too small.
        gateway.table.apply((*at("b", large.url, 4096), named("m", ("a", "b"))))
        await peer.answer(b"{}", b"503 Oops")

    async with (
        RawServer(fails) as one,
        Engine() as large,
        Gateway(named("m", ("a",)), *at("a", str(one.origin), 32768)) as gateway,
    ):
        answer = await gateway.chat(chat(60_000))
        assert answer.status == 503
        assert large.heads == []


async def test_a_session_stays_where_its_beginning_is_known() -> None:
    async with (
        Engine() as one,
        Engine() as two,
        Gateway(named("m", ("a", "b")), *at("a", one.url), *at("b", two.url)) as gateway,
    ):

        async def where(**given: str) -> set[str]:
            return {(await gateway.chat(chat(9000), **given)).headers["x-geniehive-host"] for _ in range(6)}

        assert len(await where(x_openwebui_chat_id="c1")) == 1
        assert len(await where(x_claude_code_session_id="s1")) == 1


async def test_what_an_answer_tells_of_speed_is_recorded() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        await stream_piece(peer, b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n')
        await stream_piece(peer, b'data: {"choices":[],"usage":{"prompt_tokens":2000,"completion_tokens":5}}\n\n')
        await stream_piece(peer, b"data: [DONE]\n\n")
        await stream_piece(peer, b"")

    async with RawServer(script) as one, RawServer(script) as two:
        resources = (*at("a", str(one.origin)), *at("b", str(two.origin)))
        async with Gateway(named("m", ("a", "b")), *resources) as gateway:
            await gateway.chat(chat(8000, stream=True, stream_options={"include_usage": True}))
            (outcome,) = await gateway.ended()
        assert outcome.prefill is not None
        assert outcome.prefill[0] == 2000
        assert outcome.first is not None
        assert outcome.prefill[1] <= outcome.first
