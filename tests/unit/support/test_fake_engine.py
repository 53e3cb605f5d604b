"""The fake engine does what tests rely on: it answers as each runtime, records, misbehaves and sees clients leave."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.support.fake_engine import FakeEngine
from tests.support.fake_process import FakeProcess
from tests.support.fake_runtimes import RUNTIMES

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize("runtime", sorted(RUNTIMES))
async def test_answers_chat_whole_and_streamed_and_says_who(runtime: str, http: aiohttp.ClientSession) -> None:
    async with FakeEngine(runtime, ["m"], name="A") as engine:
        async with http.post(engine.url + "/v1/chat/completions", json=CHAT) as answer:
            assert (await answer.json())["choices"][0]["message"]["content"] == "engine A"
        body = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
        async with http.post(engine.url + "/v1/chat/completions", json=body) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert answer.headers["x-fake-engine"] == "A"
            events = (await answer.text()).split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        chunks = [json.loads(event[6:]) for event in events[:-2]]
        assert chunks[-1]["usage"]["completion_tokens"] == 3
        assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks[:-1]) == "engine A"
        assert engine.served == 2
        assert [r.json() for r in engine.calls()] == [CHAT, body]


@pytest.mark.parametrize(
    ("runtime", "path", "sign"),
    [
        ("ollama", "/api/version", '"version"'),
        ("ollama", "/", "Ollama is running"),
        ("llamacpp", "/v1/models", '"owned_by": "llamacpp"'),
        ("llamacpp", "/props", '"total_slots"'),
        ("llamacpp-router", "/props", '"role": "router"'),
        ("vllm", "/version", "0.32.0"),
        ("vllm", "/v1/models", '"max_model_len": 4096'),
        ("openai", "/v1/models", '"owned_by": "someone"'),
        ("sglang", "/api/tags", '"m"'),
        ("lmstudio", "/api/v1/models", '"loaded_instances"'),
        ("webpage", "/api/version", "<html>"),
    ],
)
async def test_shows_the_signs_of_its_runtime(runtime: str, path: str, sign: str, http: aiohttp.ClientSession) -> None:
    async with FakeEngine(runtime, ["m"]) as engine, http.get(engine.url + path) as answer:
        assert answer.status == 200
        assert sign in await answer.text()
        assert answer.headers.get("Server") == RUNTIMES[runtime].headers.get("Server")


async def test_wants_its_key_where_the_runtime_does(http: aiohttp.ClientSession) -> None:
    async with FakeEngine("llamacpp", ["m"], key="secret") as engine:
        statuses = {}
        for path in ("/v1/models", "/props"):
            async with http.get(engine.url + path) as answer:
                statuses[path] = answer.status
        assert statuses == {"/v1/models": 200, "/props": 401}
        async with http.get(engine.url + "/props", headers={"Authorization": "Bearer secret"}) as answer:
            assert answer.status == 200


async def test_models_come_go_and_load(http: aiohttp.ClientSession) -> None:
    async with FakeEngine("ollama", ["m"]) as engine:
        engine.add_model("library/other:1b").state = "unloaded"

        async def names(path: str) -> list[str]:
            async with http.get(engine.url + path) as answer:
                return [m["name"] for m in (await answer.json())["models"]]

        assert await names("/api/tags") == ["m", "library/other:1b"]
        assert await names("/api/ps") == ["m"]
        async with http.post(engine.url + "/v1/chat/completions", json=CHAT | {"model": "library/other:1b"}) as answer:
            assert answer.status == 200
        assert await names("/api/ps") == ["m", "library/other:1b"]
        engine.remove_model("m")
        async with http.post(engine.url + "/v1/chat/completions", json=CHAT) as answer:
            assert answer.status == 404


async def test_embeddings_in_both_formats(http: aiohttp.ClientSession) -> None:
    async with FakeEngine("vllm", ["m"]) as engine:
        for form, kind in (("float", list), ("base64", str)):
            body = {"model": "m", "input": ["a", "b"], "encoding_format": form}
            async with http.post(engine.url + "/v1/embeddings", json=body) as answer:
                data = (await answer.json())["data"]
            assert [type(d["embedding"]) for d in data] == [kind, kind]


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_closes_without_an_answer_once(how: str, http: aiohttp.ClientSession) -> None:
    async with FakeEngine(models=["m"]) as engine:
        engine.behave(close=how, times=1)
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.post(engine.url + "/v1/chat/completions", json=CHAT)
        async with http.post(engine.url + "/v1/chat/completions", json=CHAT) as answer:
            assert answer.status == 200
        assert (engine.served, engine.clients_left) == (1, 0)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_cuts_in_the_middle(how: str, stream: bool, http: aiohttp.ClientSession) -> None:
    async with FakeEngine(models=["m"]) as engine:
        engine.behave(cut_after=1, cut=how)

        async def ask() -> None:
            async with http.post(engine.url + "/v1/chat/completions", json=CHAT | {"stream": stream}) as answer:
                await answer.read()

        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
            await ask()
        assert (engine.served, engine.clients_left) == (0, 0)


async def test_answers_what_it_is_told(http: aiohttp.ClientSession) -> None:
    async with FakeEngine(models=["m"]) as engine:
        engine.behave(status=429, body={"error": "busy"}, headers={"Retry-After": "7"}, times=1)
        engine.behave(pieces=["data: one\n\n", "data: two\n\n"])
        async with http.post(engine.url + "/v1/chat/completions", json=CHAT) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
        async with http.post(engine.url + "/v1/chat/completions", json=CHAT) as answer:
            assert await answer.text() == "data: one\n\ndata: two\n\n"


@pytest.mark.parametrize("point", ["head", "body"])
async def test_holds_until_told_otherwise_and_sees_who_leaves(point: str, http: aiohttp.ClientSession) -> None:
    async with FakeEngine(models=["m"]) as engine:
        engine.behave(hold=point, times=2)

        async def ask() -> str:
            async with http.post(engine.url + "/v1/chat/completions", json=CHAT) as answer:
                return (await answer.json())["choices"][0]["message"]["content"]  # type: ignore[no-any-return]

        stays, leaves = asyncio.create_task(ask()), asyncio.create_task(ask())
        await engine.until(lambda: engine.running == 2 and len(engine.requests) == 2)
        leaves.cancel()
        await engine.until(lambda: engine.clients_left == 1)
        assert not stays.done()
        engine.behave_well()
        assert await stays == "engine X"
        await engine.until(lambda: engine.running == 0)


async def test_stops_at_once_and_comes_back_on_its_port(http: aiohttp.ClientSession) -> None:
    engine = FakeEngine(models=["m"], name="A")
    async with engine:
        url = engine.url
        engine.behave(hold="head", times=1)
        held = asyncio.create_task(http.post(url + "/v1/chat/completions", json=CHAT))
        await engine.until(lambda: engine.running == 1)
        async with asyncio.timeout(2):
            await engine.stop()
        with pytest.raises(aiohttp.ClientConnectionError):
            await held
        await engine.start()
        assert engine.url == url
        async with http.post(url + "/v1/chat/completions", json=CHAT) as answer:
            assert answer.status == 200
        assert engine.clients_left == 0


async def test_a_process_is_driven_killed_and_started_again() -> None:
    async with FakeProcess("vllm", ["org/m", "n"], name="B", key="k") as engine:
        state = await engine.script(add_models=["late"], states={"n": "sleeping"}, behave={"status": 503})
        assert [(m["name"], m["state"]) for m in state["models"]] == [
            ("org/m", "loaded"),
            ("n", "sleeping"),
            ("late", "loaded"),
        ]
        call = {"url": engine.url + "/v1/completions?x=1", "json": {"model": "n", "prompt": "p"}}
        headers = {"Authorization": "Bearer k"}
        async with aiohttp.ClientSession(headers=headers) as http, http.post(**call) as answer:  # type: ignore[arg-type]
            assert answer.status == 503
        (seen,) = await engine.requests("/v1/completions")
        assert seen["target"] == "/v1/completions?x=1"
        assert ["Authorization", "Bearer k"] in seen["headers"]
        url = engine.url
        await engine.kill()
        await engine.start()
        assert engine.url == url
        assert (await engine.state())["served"] == 0
        assert engine.process is not None
        engine.signal(signal.SIGTERM)
        assert await engine.process.wait() == 0
