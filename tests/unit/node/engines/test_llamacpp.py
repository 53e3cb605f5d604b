import msgspec
import pytest

from geniehive.rules.model import LoadState
from geniehive.rules.operations import Ability, Operation
from geniehive_node.core.looks import Figures, LookFailed, Snapshot, Trouble
from geniehive_node.engines.llamacpp import Router, Single, properties
from tests.support.fake_engine import FakeEngine
from tests.support.fake_runtimes import FakeModel
from tests.unit.node.engines.conftest import Ask
from tests.unit.node.support import Wire, capture

TEXT = {Operation.CHAT, Operation.COMPLETIONS, Operation.RESPONSES, Operation.MESSAGES}
METRICS = "# HELP x\nllamacpp:requests_processing 2\nllamacpp:requests_deferred 3\n"
NOT_SERVED = (501, {"error": {"code": 501, "message": "This server does not support this", "type": "x"}})
INCOMPLETE = (400, {"error": {"code": 400, "message": "'messages' is required", "type": "x"}})
LOADING = (503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}})


def single(**changes: object) -> Wire:
    """As captured from a real server with one model, started for chat alone."""
    props = msgspec.json.decode(capture("llamacpp-single-props.json").read_bytes()) | changes
    return Wire(
        {
            "GET /v1/models": capture("llamacpp-single-models.json"),
            "GET /props": props,
            "GET /metrics": METRICS,
            "POST /v1/chat/completions": INCOMPLETE,
            "POST /v1/responses": INCOMPLETE,
            "POST /v1/messages": INCOMPLETE,
            "POST /v1/embeddings": NOT_SERVED,
            "POST /v1/rerank": NOT_SERVED,
        },
        server="llama.cpp",
    )


async def test_builds_from_before_the_newer_apis(ask: Ask) -> None:
    async with single() as wire:
        del wire.answers["POST /v1/responses"], wire.answers["POST /v1/messages"]
        snapshot, _ = await Single(ask(wire.origin)).look()
    assert set(snapshot.operations) == {Operation.CHAT, Operation.COMPLETIONS}


async def test_a_model_that_hears(ask: Ask) -> None:
    async with single() as wire:
        wire.answers["POST /v1/audio/transcriptions"] = NOT_SERVED
        assert set((await Single(ask(wire.origin)).look())[0].operations) == TEXT
        wire.answers["POST /v1/audio/transcriptions"] = INCOMPLETE
        snapshot, _ = await Single(ask(wire.origin)).look()
    assert set(snapshot.operations) == {*TEXT, Operation.TRANSCRIPTION}


async def test_one_model(ask: Ask) -> None:
    async with single() as wire:
        snapshot, figures = await Single(ask(wire.origin)).look()
    (asset,) = snapshot.assets
    assert (snapshot.runtime, snapshot.version, snapshot.slots) == ("llamacpp", "", 2)
    assert set(snapshot.operations) == TEXT
    assert (asset.asset_id, asset.load_state) == ("smollm2-135m", LoadState.LOADED)
    # Of one slot, and of the model itself.
    assert (asset.context_tokens, asset.max_context_tokens) == (2048, 8192)
    assert (asset.quantization, asset.parameter_count, asset.size_bytes) == ("Q4_1", 134_515_008, 96_576_768)
    assert asset.lacking_abilities == (Ability.VISION,)
    assert (figures.running, figures.queued) == (2, 3)


async def test_what_it_serves_is_tried_once_for_each_start(ask: Ask) -> None:
    async with single() as wire:
        engine = Single(ask(wire.origin))
        for _ in range(3):
            await engine.look()
        assert wire.asked.count("POST /v1/embeddings") == 1
        wire.answers["POST /v1/embeddings"] = INCOMPLETE
        wire.answers["GET /props"]["media_marker"] = "of another start"
        snapshot, _ = await engine.look()
    assert set(snapshot.operations) == {*TEXT, Operation.EMBEDDINGS}


async def test_slots_are_never_asked_since_that_keeps_a_model_awake(ask: Ask) -> None:
    async with single() as wire:
        await Single(ask(wire.origin)).look()
    assert not any("slots" in asked for asked in wire.asked)


async def test_a_sleeping_model_is_left_asleep(ask: Ask) -> None:
    async with single(is_sleeping=True) as wire:
        snapshot, _ = await Single(ask(wire.origin)).look()
    assert snapshot.assets[0].load_state is LoadState.SLEEPING
    assert set(snapshot.operations) == TEXT
    assert not any(asked.startswith("POST") for asked in wire.asked)


async def test_a_vocabulary_of_word_pieces_means_embeddings_alone(ask: Ask) -> None:
    async with single() as wire:
        models = msgspec.json.decode(capture("llamacpp-single-models.json").read_bytes())
        models["data"][0]["meta"]["vocab_type"] = 3
        wire.answers |= {"GET /v1/models": models, "POST /v1/embeddings": INCOMPLETE}
        snapshot, _ = await Single(ask(wire.origin)).look()
    assert snapshot.operations == (Operation.EMBEDDINGS,)


async def test_senseless_figures_are_not_passed_on(ask: Ask) -> None:
    async with single() as wire:
        models = msgspec.json.decode(capture("llamacpp-single-models.json").read_bytes())
        models["data"][0]["meta"]["vocab_type"] = [3]
        metrics = "llamacpp:requests_processing 9e12\nllamacpp:requests_deferred many\n"
        wire.answers |= {"GET /v1/models": models, "GET /metrics": metrics}
        snapshot, figures = await Single(ask(wire.origin)).look()
    assert set(snapshot.operations) == TEXT
    assert figures == Figures()


async def test_a_path_as_name_does_not_leave_the_host(ask: Ask) -> None:
    async with single() as wire:
        models = msgspec.json.decode(capture("llamacpp-single-models.json").read_bytes())
        models["data"][0]["id"] = "/home/ann/models/Qwen3-8B.Q4_K_M.gguf"
        wire.answers["GET /v1/models"] = models
        snapshot, _ = await Single(ask(wire.origin)).look()
    assert snapshot.assets[0].asset_id == snapshot.assets[0].upstream_name == "Qwen3-8B.Q4_K_M"


async def test_loading_and_keys(ask: Ask) -> None:
    async with Wire({"GET /props": LOADING}, server="llama.cpp") as wire:
        with pytest.raises(LookFailed) as error:
            await properties(ask(wire.origin))
        assert (error.value.trouble, error.value.runtime) == (Trouble.LOADING, "llamacpp")
        wire.answers["GET /props"] = (401, {"error": {"message": "Invalid API Key", "code": 401}})
        with pytest.raises(LookFailed) as error:
            await properties(ask(wire.origin))
        assert (error.value.trouble, error.value.runtime) == (Trouble.REFUSED, "llamacpp")


async def router(ask: Ask, models: str) -> tuple[Snapshot, Wire]:
    answers = {"GET /v1/models": capture(models), "GET /props": capture("llamacpp-router-props.json")}
    async with Wire(answers, server="llama.cpp") as wire:
        asker = ask(wire.origin)
        snapshot, _ = await Router(asker, await properties(asker)).look()
    return snapshot, wire


async def test_a_router_tells_of_all_its_models(ask: Ask) -> None:
    snapshot, wire = await router(ask, "llamacpp-router-models.json")
    assert snapshot.loads_on_request
    assets = {a.asset_id: a for a in snapshot.assets}
    assert {n: a.load_state.name for n, a in assets.items()} == {
        "gemma3-270m": "UNLOADED",
        "smollm2-135m": "LOADED",
        "smollm2-embed": "UNLOADED",
    }
    assert (assets["smollm2-135m"].context_tokens, assets["smollm2-135m"].slots) == (1024, 2)
    assert assets["gemma3-270m"].context_tokens is None
    assert set(assets["gemma3-270m"].operations) == TEXT
    assert assets["smollm2-embed"].operations == (Operation.EMBEDDINGS,)
    # Anything else could load a model.
    assert set(wire.asked) == {"GET /props", "GET /v1/models"}


async def test_a_router_tells_of_sleep_and_failure(ask: Ask) -> None:
    snapshot, _ = await router(ask, "llamacpp-router-states.json")
    assert {a.asset_id: a.load_state.name for a in snapshot.assets} == {
        "broken": "FAILED",
        "good": "SLEEPING",
        "missing": "UNLOADED",
    }


async def test_no_command_line_leaves_the_host(ask: Ask) -> None:
    snapshot, _ = await router(ask, "llamacpp-router-models.json")
    assert b"/opt/" not in msgspec.json.encode(snapshot)
    assert b"/srv/" not in msgspec.json.encode(snapshot)


async def test_a_router_becomes_a_single_server_and_back(ask: Ask) -> None:
    async with single() as wire:
        asker = ask(wire.origin)
        with pytest.raises(LookFailed) as error:
            await Router(asker, {}).look()
        assert error.value.trouble is Trouble.STRANGE
        wire.answers["GET /props"] = capture("llamacpp-router-props.json")
        with pytest.raises(LookFailed) as error:
            await Single(asker).look()
        assert error.value.trouble is Trouble.STRANGE


async def test_the_shared_fake_is_read_alike(ask: Ask) -> None:
    models = [FakeModel("m", context=4096)]
    async with FakeEngine("llamacpp", models) as engine:
        from geniehive.kit.http1 import Origin

        snapshot, _ = await Single(ask(Origin.parse(engine.url))).look()
    assert snapshot.assets[0].context_tokens == 4096
