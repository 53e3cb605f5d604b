from typing import Any

import pytest

from geniehive.rules.model import LoadState
from geniehive.rules.operations import Ability, Operation
from geniehive_node.core.looks import LookFailed, Snapshot, Trouble
from geniehive_node.engines.ollama import Ollama
from tests.unit.node.engines.conftest import Ask
from tests.unit.node.support import Wire

DETAILS = {"format": "gguf", "family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"}


def model(name: str, **more: Any) -> dict[str, Any]:
    """An entry of /api/tags as newer releases write it."""
    return {
        "name": name,
        "model": name,
        "size": 2_019_393_189,
        "digest": "a80c4f17",
        "details": {**DETAILS, "context_length": 131072},
        "capabilities": ["completion", "tools"],
        **more,
    }


def server(*models: dict[str, Any], running: Any = ()) -> Wire:
    return Wire({"GET /api/tags": {"models": list(models)}, "GET /api/ps": {"models": list(running)}})


async def look(ask: Ask, wire: Wire, version: str = "0.33.0") -> Snapshot:
    return (await Ollama(ask(wire.origin), version).look())[0]


async def test_models_and_what_is_in_memory(ask: Ask) -> None:
    running = [{"name": "llama3.2:latest", "size": 1, "context_length": 4096}]
    async with server(model("llama3.2:latest"), model("qwen3:8b"), running=running) as wire:
        snapshot = await look(ask, wire)
    loaded, cold = snapshot.assets
    assert (snapshot.runtime, snapshot.version, snapshot.loads_on_request) == ("ollama", "0.33.0", True)
    assert (loaded.asset_id, loaded.load_state, cold.load_state) == (
        "llama3.2:latest",
        LoadState.LOADED,
        LoadState.UNLOADED,
    )
    # In force while loaded; what the model could do, always.
    assert (loaded.context_tokens, loaded.max_context_tokens) == (4096, 131072)
    assert (cold.context_tokens, cold.max_context_tokens) == (None, 131072)
    assert (loaded.family, loaded.quantization, loaded.digest) == ("llama", "Q4_K_M", "sha256:a80c4f17")
    assert (loaded.parameter_count, loaded.size_bytes) == (3_200_000_000, 2_019_393_189)
    assert loaded.abilities == (Ability.TOOLS,)
    assert set(loaded.lacking_abilities) == {Ability.VISION, Ability.REASONING}
    assert Operation.RESPONSES in loaded.operations


async def test_embedding_models_only_embed(ask: Ask) -> None:
    async with server(model("nomic-embed-text", capabilities=["embedding"])) as wire:
        snapshot = await look(ask, wire)
    assert snapshot.assets[0].operations == (Operation.EMBEDDINGS,)


async def test_models_that_hear_write_down_what_was_said(ask: Ask) -> None:
    async with server(model("gemma", capabilities=["completion", "audio"])) as wire:
        snapshot = await look(ask, wire)
    assert {Operation.CHAT, Operation.TRANSCRIPTION} <= set(snapshot.assets[0].operations)


async def test_models_for_nothing_we_route_are_left_out(ask: Ask) -> None:
    async with server(model("painter", capabilities=["image"])) as wire:
        assert (await look(ask, wire)).assets == ()


async def test_older_releases_are_asked_about_each_model_once(ask: Ask) -> None:
    old = model("llama3.2:latest", details=DETAILS)
    del old["capabilities"]
    shown = {
        "model_info": {
            "general.architecture": "llama",
            "llama.context_length": 8192,
            "general.parameter_count": 3_212_749_888,
        },
        "capabilities": ["completion", "vision"],
        "license": "long",
    }
    async with server(old) as wire:
        wire.answers["POST /api/show"] = shown
        engine = Ollama(ask(wire.origin), "0.6.0")
        for _ in range(3):
            snapshot, _ = await engine.look()
        assert wire.asked.count("POST /api/show") == 1
        wire.answers["GET /api/tags"]["models"][0]["digest"] = "of another release of it"
        await engine.look()
        assert wire.asked.count("POST /api/show") == 2
    (asset,) = snapshot.assets
    assert (asset.max_context_tokens, asset.parameter_count) == (8192, 3_212_749_888)
    assert asset.abilities == (Ability.VISION,)
    assert asset.operations == (Operation.CHAT, Operation.COMPLETIONS)


async def test_the_oldest_tell_by_family_alone(ask: Ask) -> None:
    entries = []
    for name, family in (("a", "bert"), ("b", "llama")):
        entry = model(name, details={**DETAILS, "family": family}, digest=name)
        del entry["capabilities"]
        entries.append(entry)
    async with server(*entries) as wire:
        del wire.answers["GET /api/ps"]
        embedder, writer = (await look(ask, wire, "0.1.0")).assets
    assert embedder.operations == (Operation.EMBEDDINGS,)
    assert Operation.CHAT in writer.operations
    assert writer.lacking_abilities == ()
    assert writer.load_state is LoadState.UNKNOWN


async def test_models_in_the_cloud_have_no_weights_here(ask: Ask) -> None:
    async with server(model("big:cloud", remote_model="big", remote_host="https://example.com")) as wire:
        (asset,) = (await look(ask, wire)).assets
    assert (asset.size_bytes, asset.load_state) == (None, LoadState.UNKNOWN)


async def test_what_is_no_ollama_any_more_is_strange(ask: Ask) -> None:
    async with Wire() as wire:
        with pytest.raises(LookFailed) as error:
            await look(ask, wire)
    assert error.value.trouble is Trouble.STRANGE


async def test_no_models_at_all(ask: Ask) -> None:
    async with Wire({"GET /api/tags": {"models": None}, "GET /api/ps": {"models": None}}) as wire:
        assert (await look(ask, wire)).assets == ()
