from typing import Any

import pytest
from msgspec.structs import replace

from geniehive.kit.http1 import Origin
from geniehive_node.core.looks import LookFailed, Source, Trouble
from geniehive_node.engines.identify import identify
from tests.support.fake_engine import FakeEngine
from tests.support.fake_runtimes import FakeModel
from tests.unit.node.engines.conftest import Ask
from tests.unit.node.support import Wire, capture

FOUND = Source(key="a", url="http://127.0.0.1:1", loopback=True)
CONFIGURED = replace(FOUND, configured=True)
LIST = {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "someone"}]}
NAMELESS = {"object": "list", "data": [{"id": "m", "object": "model"}]}
NONE = {"object": "list", "data": None}
OLLAMA = {
    "GET /": "Ollama is running",
    "GET /api/version": {"version": "0.33.0"},
    "GET /api/tags": {"models": []},
    "GET /api/ps": {"models": []},
}


async def runtime(ask: Ask, answers: dict[str, Any], source: Source = FOUND, **more: Any) -> tuple[str, str]:
    async with Wire(answers, **more) as wire:
        snapshot, _ = await (await identify(ask(wire.origin), source)).look()
        return snapshot.runtime, snapshot.version


async def trouble(ask: Ask, answers: dict[str, Any], source: Source = FOUND, **more: Any) -> LookFailed:
    with pytest.raises(LookFailed) as error:
        await runtime(ask, answers, source, **more)
    return error.value


@pytest.mark.parametrize(
    ("fake", "expected"),
    [
        ("ollama", "ollama"),
        ("llamacpp", "llamacpp"),
        ("llamacpp-router", "llamacpp"),
        ("vllm", "vllm"),
        ("sglang", "sglang"),
        ("lmstudio", "lmstudio"),
        ("openai", "openai"),
    ],
)
async def test_each_engine_is_told_from_the_others(ask: Ask, fake: str, expected: str) -> None:
    async with FakeEngine(fake, [FakeModel("some-model")]) as engine:
        adapter = await identify(ask(Origin.parse(engine.url)), FOUND)
        snapshot, _ = await adapter.look()
    assert snapshot.runtime == expected
    assert [a.asset_id for a in snapshot.assets] == ["some-model"]


async def test_a_web_page_on_a_well_known_port_is_no_engine(ask: Ask) -> None:
    page = capture("local-tts-studio-page.html")
    answers = {f"GET {path}": page for path in ("/", "/v1/models", "/health", "/api/tags", "/api/version", "/version")}
    assert (await trouble(ask, answers)).trouble is Trouble.STRANGE
    async with FakeEngine("webpage", []) as engine:
        with pytest.raises(LookFailed):
            await identify(ask(Origin.parse(engine.url)), FOUND)


async def test_ollama_without_any_model(ask: Ask) -> None:
    assert await runtime(ask, {**OLLAMA, "GET /v1/models": NONE}) == ("ollama", "0.33.0")


async def test_look_alikes_of_ollama(ask: Ask) -> None:
    sglang = {"object": "list", "data": [{"id": "m", "owned_by": "sglang", "max_model_len": 8192}]}
    assert (await runtime(ask, {**OLLAMA, "GET /v1/models": sglang}))[0] == "sglang"
    localai = {"GET /v1/models/capabilities": {"data": [{"id": "m", "capabilities": ["chat"]}]}}
    assert (await runtime(ask, {**OLLAMA, **localai, "GET /v1/models": NAMELESS}))[0] == "localai"


async def test_lmstudio_by_its_older_list(ask: Ask) -> None:
    older = {"object": "list", "data": [{"id": "m", "state": "not-loaded", "publisher": "p"}]}
    assert (await runtime(ask, {"GET /v1/models": LIST, "GET /api/v0/models": older}))[0] == "lmstudio"


async def test_llama_cpp_by_its_header_even_while_it_loads(ask: Ask) -> None:
    loading = (503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}})
    answers = {"GET /v1/models": loading, "GET /props": loading}
    failed = await trouble(ask, answers, server="llama.cpp")
    assert (failed.trouble, failed.runtime) == (Trouble.LOADING, "llamacpp")


async def test_vllm_behind_a_key_is_known_and_asks_for_it(ask: Ask) -> None:
    answers = {"GET /v1/models": (401, {"error": "Unauthorized"}), "GET /version": {"version": "0.32.0"}}
    failed = await trouble(ask, answers)
    assert (failed.trouble, failed.runtime) == (Trouble.REFUSED, "vllm")
    assert "key_file" in failed.message


async def test_an_unknown_server_behind_a_key(ask: Ask) -> None:
    answers = {"GET /v1/models": (401, {"error": "Unauthorized"})}
    assert (await trouble(ask, answers)).trouble is Trouble.STRANGE
    assert (await trouble(ask, answers, CONFIGURED)).trouble is Trouble.REFUSED


async def test_geniehive_itself_is_never_found_but_may_be_named(ask: Ask) -> None:
    answers = {"GET /v1/models": LIST}
    assert (await trouble(ask, answers, server="GenieHive")).trouble is Trouble.STRANGE
    async with Wire(answers, server="GenieHive") as wire:
        wire.headers["x-geniehive-cluster"] = "c1"
        with pytest.raises(LookFailed):
            await identify(ask(wire.origin), FOUND)
        snapshot, _ = await (await identify(ask(wire.origin), CONFIGURED)).look()
        assert (snapshot.runtime, snapshot.cluster) == ("geniehive", "c1")


async def test_a_bare_list_is_enough_for_what_was_named_not_for_what_was_found(ask: Ask) -> None:
    bare = {"GET /v1/models": [{"id": "m"}]}
    assert (await trouble(ask, bare)).trouble is Trouble.STRANGE
    assert (await runtime(ask, bare, CONFIGURED))[0] == "openai"


async def test_a_named_runtime_is_believed(ask: Ask) -> None:
    answers = {"GET /v1/models": LIST, "GET /version": {"version": "9"}}
    assert await runtime(ask, answers, replace(CONFIGURED, runtime="vllm")) == ("vllm", "9")
    assert (await runtime(ask, answers, replace(CONFIGURED, runtime="openai")))[0] == "openai"


async def test_declared_models_of_a_server_without_a_list(ask: Ask) -> None:
    source = replace(CONFIGURED, models=("whisper-1",))
    assert (await runtime(ask, {}, source))[0] == "openai"
    assert (await trouble(ask, {}, CONFIGURED)).trouble is Trouble.STRANGE


async def test_providers_are_not_probed(ask: Ask) -> None:
    source = replace(CONFIGURED, hosted=True, runtime="groq", name="groq")
    async with Wire({"GET /v1/models": LIST}) as wire:
        snapshot, _ = await (await identify(ask(wire.origin, key="k"), source)).look()
    assert snapshot.runtime == "groq"
    assert wire.asked == ["GET /v1/models"]
