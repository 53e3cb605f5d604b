"""What servers with OpenAI's list of models are found to serve."""

from typing import Any

import pytest

from geniehive.rules.operations import BY_PATH, Operation
from geniehive_node.core.looks import LookFailed, Source, Trouble
from geniehive_node.engines.identify import identify
from tests.unit.node.engines.conftest import Ask
from tests.unit.node.support import Wire

_O = Operation
TEXT = {_O.CHAT, _O.COMPLETIONS, _O.RESPONSES, _O.MESSAGES}
ALL = tuple(BY_PATH)
CONFIGURED = Source(key="a", url="http://127.0.0.1:1", configured=True)


def description(*paths: str) -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {"title": "x"}, "paths": {path: {"post": {}} for path in (*paths, "/tokenize")}}


def models(*ids: str, **more: Any) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name, "object": "model", **more} for name in ids]}


async def serves(ask: Ask, answers: dict[str, Any], source: Source = CONFIGURED) -> dict[str, set[Operation]]:
    """Operations by model; those that the service offers under ""."""
    async with Wire(answers) as wire:
        snapshot, _ = await (await identify(ask(wire.origin), source)).look()
    found = {a.asset_id: set(a.operations or snapshot.operations) for a in snapshot.assets}
    return found | {"": set(snapshot.operations)}


@pytest.mark.parametrize(
    ("name", "paths", "expected"),
    [
        # As captured from 0.32 with a model that writes.
        (
            "m",
            ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/messages/count_tokens", "/v1/responses"),
            TEXT,
        ),
        ("m", ("/v1/embeddings",), {_O.EMBEDDINGS}),
        ("m", ("/rerank", "/v1/rerank"), {_O.RERANK}),
        ("m", ("/v1/audio/transcriptions", "/v1/audio/translations"), {_O.TRANSCRIPTION, _O.TRANSLATION}),
        # Releases of old have all paths, whatever the model.
        ("m", ALL, TEXT),
        ("bge-m3", ALL, {_O.EMBEDDINGS}),
        ("bge-reranker", ALL, {_O.RERANK}),
        # A name that promises what the server has no path for.
        ("e5-chat", ("/v1/chat/completions",), {_O.CHAT}),
    ],
)
async def test_vllm_has_paths_for_what_its_model_can(
    ask: Ask, name: str, paths: tuple[str, ...], expected: set[Operation]
) -> None:
    answers = {"GET /v1/models": models(name, owned_by="vllm"), "GET /openapi.json": description(*paths)}
    assert (await serves(ask, answers))[name] == expected


@pytest.mark.parametrize("page", [None, "<html>", {"paths": []}, {"paths": {"/v1/embeddings": {"get": {}}}}, [1], {}])
async def test_a_description_that_is_none(ask: Ask, page: Any) -> None:
    answers = {"GET /v1/models": models("m", owned_by="vllm")} | ({} if page is None else {"GET /openapi.json": page})
    assert (await serves(ask, answers))["m"] == TEXT
    answers["GET /v1/models"] = models("m", owned_by="me")
    assert (await serves(ask, answers))["m"] == {_O.CHAT, _O.COMPLETIONS}


async def test_unknown_servers_have_the_newer_apis_if_they_say_so(ask: Ask) -> None:
    answers = {
        "GET /v1/models": models("m", "whisper-1", owned_by="me"),
        "GET /openapi.json": description("/v1/chat/completions", "/v1/messages", "/v1/audio/transcriptions"),
    }
    found = await serves(ask, answers)
    assert found["m"] == {_O.CHAT, _O.MESSAGES}
    assert found["whisper-1"] == {_O.TRANSCRIPTION}


async def test_the_description_is_asked_for_again_when_the_models_changed(ask: Ask) -> None:
    answers: dict[str, Any] = {"GET /v1/models": models("m", owned_by="vllm")}
    async with Wire(answers) as wire:
        engine = await identify(ask(wire.origin), CONFIGURED)
        for _ in range(3):
            await engine.look()
        assert wire.asked.count("GET /openapi.json") == 1
        wire.answers["GET /v1/models"] = models("other", owned_by="vllm")
        wire.answers["GET /openapi.json"] = description("/v1/embeddings")
        snapshot, _ = await engine.look()
    assert set(snapshot.operations) == {_O.EMBEDDINGS}


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"is_generation": True}, TEXT),
        ({}, TEXT),
        ({"is_generation": False, "architectures": ["Qwen3Model"]}, {_O.EMBEDDINGS}),
        ({"is_generation": False, "architectures": ["XLMRobertaForSequenceClassification"]}, {_O.RERANK}),
        ({"is_generation": False, "architectures": "x"}, {_O.EMBEDDINGS}),
        ({"is_generation": True, "architectures": ["WhisperForConditionalGeneration"]}, {_O.TRANSCRIPTION}),
    ],
)
async def test_sglang_says_whether_its_model_writes(ask: Ask, info: Any, expected: set[Operation]) -> None:
    answers = {"GET /v1/models": models("m", owned_by="sglang"), "GET /model_info": info}
    assert (await serves(ask, answers | {"GET /openapi.json": description(*ALL)}))["m"] == expected


async def test_lmstudio_by_its_lists(ask: Ask) -> None:
    answers = {
        "GET /v1/models": models("m", "vectors"),
        "GET /api/v1/models": {
            "models": [
                {"key": "m", "type": "llm", "loaded_instances": []},
                {"key": "vectors", "type": "embedding", "loaded_instances": []},
            ]
        },
    }
    assert await serves(ask, answers) == {"": TEXT, "m": TEXT, "vectors": {_O.EMBEDDINGS}}
    answers = {
        "GET /v1/models": models("m", "vectors", owned_by="x"),
        "GET /api/v0/models": {
            "data": [
                {"id": "m", "type": "vlm", "state": "loaded", "publisher": "p"},
                {"id": "vectors", "type": "embeddings", "state": "not-loaded", "publisher": "p"},
            ]
        },
    }
    old = {_O.CHAT, _O.COMPLETIONS}
    assert await serves(ask, answers) == {"": old, "m": old, "vectors": {_O.EMBEDDINGS}}


async def test_localai_by_its_capabilities(ask: Ask) -> None:
    told = {
        "writes": ["chat", "tools"],
        "embeds": ["chat", "embeddings"],
        "ranks": ["chat", "rerank"],
        "hears": ["transcript"],
        "speaks": ["tts"],
        "paints": ["image"],
        "odd": None,
    }
    data = [{"id": name, "object": "model", "capabilities": words} for name, words in told.items()]
    answers = {"GET /v1/models": models(*told), "GET /v1/models/capabilities": {"object": "list", "data": data}}
    assert await serves(ask, answers) == {
        "": TEXT,
        "writes": TEXT,
        "embeds": {_O.EMBEDDINGS},
        "ranks": {_O.RERANK},
        "hears": {_O.TRANSCRIPTION, _O.TRANSLATION},
        "speaks": {_O.SPEECH},
        "paints": {_O.IMAGES},
        "odd": TEXT,
    }


async def test_llama_swap_by_its_capabilities(ask: Ask) -> None:
    listed = models("m", owned_by="llama-swap")
    listed["data"] += [
        {"id": "hears", "owned_by": "llama-swap", "capabilities": {"audio_transcriptions": True}},
        {"id": "paints", "owned_by": "llama-swap", "capabilities": {"image_generation": True, "image_to_image": True}},
        {"id": "sees", "owned_by": "llama-swap", "capabilities": {"vision": True}},
    ]
    assert await serves(ask, {"GET /v1/models": listed}) == {
        "": TEXT,
        "m": TEXT,
        "hears": {_O.TRANSCRIPTION},
        "paints": {_O.IMAGES},
        "sees": TEXT,
    }


async def test_speaches_by_the_tasks_of_its_models(ask: Ask) -> None:
    listed = models("Systran/faster-distil", task="automatic-speech-recognition", owned_by="Systran")
    listed["data"].append({"id": "hexgrad/82M", "object": "model", "owned_by": "hexgrad", "task": "text-to-speech"})
    paths = ("/v1/chat/completions", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/audio/speech")
    found = await serves(ask, {"GET /v1/models": listed, "GET /openapi.json": description(*paths)})
    assert found["Systran/faster-distil"] == {_O.TRANSCRIPTION, _O.TRANSLATION}
    assert found["hexgrad/82M"] == {_O.SPEECH}


async def test_another_clusters_gateway_says_it_of_each(ask: Ask) -> None:
    listed = models("m", geniehive={"operations": ["chat", "messages", "of a later version"]})
    listed["data"].append({"id": "n", "geniehive": {"operations": ["rerank"]}})
    async with Wire({"GET /v1/models": listed}, server="GenieHive") as wire:
        wire.headers["x-geniehive-cluster"] = "c1"
        snapshot, _ = await (await identify(ask(wire.origin), CONFIGURED)).look()
    assert [set(a.operations) for a in snapshot.assets] == [{_O.CHAT, _O.MESSAGES}, {_O.RERANK}]


async def test_without_a_list_the_models_are_declared_and_the_description_says_for_what(ask: Ask) -> None:
    # faster-whisper-server
    answers = {"GET /openapi.json": description("/v1/audio/transcriptions", "/v1/audio/translations")}
    with pytest.raises(LookFailed, match=r"serves transcription, translation.* name them.*models") as failed:
        await serves(ask, answers)
    assert failed.value.trouble is Trouble.STRANGE
    declared = Source(key="a", url="http://127.0.0.1:1", configured=True, models=("large-v3",))
    assert await serves(ask, answers, declared) == {"": {_O.TRANSCRIPTION, _O.TRANSLATION}}
