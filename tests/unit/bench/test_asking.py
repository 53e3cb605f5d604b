"""Requests to a fake engine on a real socket, timed and checked."""

import asyncio
import json
import re
from typing import Any

import pytest

from geniehive.bench import builtin, files, runner
from geniehive.bench.asking import Asked, Hopeless, Target, Unreachable
from geniehive.bench.runner import Plan
from geniehive.bench.workload import Workload
from geniehive.kit import address
from tests.support.fake_engine import FakeEngine

CHAT = """
name: x
version: 1
requests:
  - prompt: who are you?
    checks: [{contains: engine}, {max_words: 5}]
"""
SIMPLE = files.parse(CHAT, "w")


async def run(
    engine: FakeEngine, workload: Workload = SIMPLE, key: str | None = None, tell: Any = None, **plan: Any
) -> list[Asked]:
    target = Target(engine.url, "test-model", key, "gpu-1/x")
    made = Plan(**{"requests": 3, "warmup": 0, "timeout": 5.0, **plan})
    return await asyncio.to_thread(runner.run, target, workload, made, tell or (lambda asked: None))


def event(**delta: Any) -> str:
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}) + "\n\n"


def last(usage: Any = None) -> list[str]:
    return [*([f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n"] if usage else []), "data: [DONE]\n\n"]


async def test_a_stream_is_timed_and_checked() -> None:
    async with FakeEngine(name="A") as engine:
        engine.behave(tokens=12, chunk_delay=0.002)
        told: list[Asked] = []
        results = await run(engine, tell=told.append)
        assert [asked.number for asked in results] == [0, 1, 2]
        assert sorted(asked.number for asked in told) == [0, 1, 2]
        for asked in results:
            assert (asked.error, asked.status, asked.service, asked.model) == ("", 200, "gpu-1/x", "test-model")
            assert asked.completion_tokens == 12
            assert asked.prompt_tokens is not None
            assert asked.first is not None
            assert asked.last is not None
            assert 0 < asked.first < asked.last <= asked.total
            assert asked.pieces == 12
            assert [name for name, _ in asked.checks] == ["contains", "max_words"]
            assert asked.checks[0][1] is None
        sent = engine.calls()[0].json()
        assert (sent["model"], sent["stream"], sent["stream_options"]) == ("test-model", True, {"include_usage": True})


async def test_one_connection_serves_all_and_a_closed_one_is_opened_again() -> None:
    async with FakeEngine() as engine:
        assert all(asked.answered for asked in await run(engine, requests=3))
        engine.behave(close="fin", times=1)
        first, second = await run(engine, requests=2)
        assert "cut off" in first.error
        assert second.answered


async def test_wrong_answers_fail_their_checks() -> None:
    async with FakeEngine() as engine:
        engine.behave(pieces=[event(content="no idea at all, I am sorry"), *last()], times=1)
        wrong, right = await run(engine, requests=2)
        assert [why is None for _, why in wrong.checks] == [False, False]
        assert [why is None for _, why in right.checks] == [True, True]
        assert (wrong.prompt_tokens, wrong.completion_tokens) == (None, None)


async def test_thoughts_count_as_tokens_and_not_as_the_answer() -> None:
    async with FakeEngine() as engine:
        engine.behave(pieces=[event(role="assistant", content=""), event(reasoning_content="hm"),
                              event(content="engine"), *last({"prompt_tokens": 9, "completion_tokens": 2,
                              "prompt_tokens_details": {"cached_tokens": 4}})])  # fmt: skip
        (asked,) = await run(engine, requests=1)
        assert asked.pieces == 2
        assert asked.checks == (("contains", None), ("max_words", None))
        assert (asked.prompt_tokens, asked.cached_tokens, asked.completion_tokens) == (9, 4, 2)


async def test_calls_of_tools_are_put_together() -> None:
    workload = builtin.BUILTIN["tool_call/1"]
    call = workload.make(0, 1).checks[0]
    minutes = call.arguments["minutes"]  # type: ignore[attr-defined]
    function = {"name": "set_timer", "arguments": ""}
    pieces = [
        event(tool_calls=[{"index": 0, "id": "1", "function": function}]),
        event(tool_calls=[{"index": 0, "function": {"arguments": '{"minutes"'}}]),
        event(tool_calls=[{"index": 0, "function": {"arguments": f": {minutes}}}"}}]),
        *last(),
    ]
    async with FakeEngine() as engine:
        engine.behave(pieces=pieces)
        wrong, right = await run(engine, workload, requests=2)
        assert right.checks == (("tool", None),)
        assert wrong.checks == (("tool", "'set_timer' was called; get_weather was wanted"),)
        assert engine.calls()[0].json()["tools"]


async def test_embeddings() -> None:
    async with FakeEngine() as engine:
        results = await run(engine, builtin.BUILTIN["embeddings/1"], requests=6)
        assert all(asked.answered and asked.checks[0] == ("vectors", None) for asked in results)
        # Of hashes none is near to anything but by chance.
        assert any(asked.checks[1][1] for asked in results)
        assert "stream" not in engine.calls()[0].json()
        engine.behave(body={"data": [{"embedding": "AAAA"}]})
        (asked,) = await run(engine, builtin.BUILTIN["embeddings/1"], requests=1)
        assert asked.error == "the answer is no list of embeddings"


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"cut_after": 1}, "cut off|ended without its end mark"),
        ({"cut_after": 1, "cut": "reset"}, "cut off"),
        ({"status": 503, "body": {"error": {"message": "busy"}}}, "503: busy"),
        ({"status": 429, "body": "x"}, "429: "),
        ({"pieces": ["data: {\n\n"]}, "no chat completion"),
        ({"pieces": ["data: []\n\n"]}, "no chat completion"),
        ({"pieces": ['data: {"error": {"message": "out of memory"}}\n\n']}, "an error in the stream: out of memory"),
        ({"pieces": [event(content="a")]}, "without its end mark"),
        ({"body": {"choices": []}}, "no stream of events"),
        ({"mistyped": True}, "no chat completion"),
    ],
)
async def test_what_goes_wrong_is_told(how: dict[str, Any], error: str) -> None:
    async with FakeEngine() as engine:
        engine.behave(**how, times=1)
        first, second = await run(engine, requests=2)
        assert re.search(error, first.error)
        assert (first.answered, first.refused, first.checks) == (False, False, ())
        assert second.answered, "the next is not spoiled by it"


async def test_what_an_engine_will_not_do_fails_its_checks() -> None:
    async with FakeEngine() as engine:
        engine.behave(status=400, body={"error": {"message": "tools are not supported"}}, times=1)
        first, second = await run(engine, requests=2)
        assert first.refused
        assert first.error == "400: tools are not supported"
        assert [why for _, why in first.checks] == ["the request was refused"] * 2
        assert second.answered


async def test_silence_has_a_limit() -> None:
    async with FakeEngine() as engine:
        engine.behave(hold="body", times=1)
        first, second = await run(engine, requests=2, timeout=0.2)
        assert first.error == "silent for 0.2 s"
        assert second.answered
        engine.behave_well()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_can_never_succeed_ends_it(status: int) -> None:
    async with FakeEngine() as engine:
        engine.behave(status=status, body={"error": {"message": "no such thing"}})
        with pytest.raises(Hopeless, match=f"{status}: no such thing"):
            await run(engine, requests=50)
        assert len(engine.calls()) == 1
        with pytest.raises(Hopeless, match="no such thing"):
            await run(engine, requests=50, warmup=3)


async def test_nobody_listens() -> None:
    target = Target(f"http://ana:secret@127.0.0.1:{address.free_port()}", "m")
    with pytest.raises(Unreachable, match=r"cannot reach http://127.0.0.1:\d+: ") as error:
        await asyncio.to_thread(runner.run, target, SIMPLE, Plan(1), lambda asked: None)
    assert "secret" not in str(error.value) + repr(target)
    with pytest.raises(ValueError, match="no URL"):
        runner.run(Target("gpu-1:80", "m"), SIMPLE, Plan(1), lambda asked: None)


async def test_who_goes_away_later_loses_nothing_that_was_measured() -> None:
    async with FakeEngine() as engine:
        loop = asyncio.get_running_loop()

        def tell(asked: Asked) -> None:
            if asked.number == 1:
                asyncio.run_coroutine_threadsafe(engine.stop(), loop).result(5)

        results = await run(engine, requests=5, tell=tell)
        assert [asked.answered for asked in results] == [True, True, False, False, False]
        assert "cannot reach" in results[3].error


async def test_who_answered_stands_in_headers() -> None:
    told = {"x-geniehive-service": "gpu-2/vllm", "x-geniehive-model": "%E6%A8%A1"}
    async with FakeEngine() as engine:
        engine.behave(pieces=[event(content="engine"), *last()], headers=told)
        (asked,) = await run(engine, requests=1)
        assert (asked.service, asked.model) == ("gpu-2/vllm", "模")
        target = Target(engine.url, "test-model", None, "gpu-1/x", pinned=True)
        (asked,) = await asyncio.to_thread(runner.run, target, SIMPLE, Plan(1, warmup=0), lambda asked: None)
        assert asked.error == "answered by gpu-2/vllm, not by gpu-1/x"


async def test_keys_and_paths() -> None:
    async with FakeEngine(key="k1") as engine:
        with pytest.raises(Hopeless, match="401"):
            await run(engine)
        assert all(asked.answered for asked in await run(engine, key="k1"))
        target = Target(f"{engine.url}/v1/", "test-model", "k1")
        (asked,) = await asyncio.to_thread(runner.run, target, SIMPLE, Plan(1, warmup=0), lambda asked: None)
        assert asked.answered


async def test_so_many_at_once_and_each_number_once() -> None:
    async with FakeEngine() as engine:
        engine.behave(hold="head", times=4)
        task = asyncio.create_task(run(engine, requests=9, concurrency=4))
        await engine.until(lambda: engine.running == 4)
        assert len(engine.calls()) == 4
        engine.behave_well()
        results = await task
        assert [asked.number for asked in results] == list(range(9))
        assert len(engine.calls()) == 9


async def test_warming_up_counts_nowhere_and_asks_something_else() -> None:
    workload = builtin.BUILTIN["chat.short_reasoning/1"]
    async with FakeEngine() as engine:
        results = await run(engine, workload, requests=2, warmup=2, seed=5)
        assert len(results) == 2
        asked = [json.dumps(call.json()["messages"]) for call in engine.calls()]
        assert len(set(asked)) == 4
        again = await run(engine, workload, requests=2, warmup=0, seed=5)
        assert len(again) == 2
        assert [json.dumps(call.json()["messages"]) for call in engine.calls()[4:]] == asked[2:]
