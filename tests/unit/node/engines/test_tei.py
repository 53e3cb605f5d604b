from typing import Any

import pytest

from geniehive.rules.operations import Operation
from geniehive_node.core.looks import Figures, LookFailed, Snapshot, Source, Trouble
from geniehive_node.engines.identify import identify
from geniehive_node.engines.tei import Tei
from tests.unit.node.engines.conftest import Ask
from tests.unit.node.support import Wire

FOUND = Source(key="a", url="http://127.0.0.1:1", loopback=True)
INFO = {
    "model_id": "BAAI/bge-m3",
    "served_model_name": "",
    "model_dtype": "float16",
    "model_type": {"embedding": {"pooling": "cls"}},
    "max_concurrent_requests": 512,
    "max_input_length": 8192,
    "version": "1.9.3",
}


async def look(ask: Ask, metrics: Any = "", **changes: Any) -> tuple[Snapshot, Figures]:
    async with Wire({"GET /info": INFO | changes, "GET /metrics": metrics}) as wire:
        return await (await identify(ask(wire.origin), FOUND)).look()


async def test_a_model_that_embeds(ask: Ask) -> None:
    snapshot, figures = await look(ask, "# HELP\nte_queue_size 3\nte_queue_size_x 4\n")
    (asset,) = snapshot.assets
    assert (snapshot.runtime, snapshot.version, snapshot.slots) == ("tei", "1.9.3", 512)
    assert (snapshot.operations, snapshot.paths) == ((Operation.EMBEDDINGS,), ())
    assert (asset.asset_id, asset.context_tokens) == ("BAAI/bge-m3", 8192)
    assert figures == Figures(queued=3)


@pytest.mark.parametrize("kind", [{"reranker": {"id2label": {}}}, "Reranker"])
async def test_a_model_that_ranks_has_a_path_of_its_own(ask: Ask, kind: Any) -> None:
    snapshot, figures = await look(ask, (404, ""), model_type=kind, served_model_name="mine", model_id="/data/x")
    assert (snapshot.operations, snapshot.paths) == ((Operation.RERANK,), (("/v1/rerank", "/rerank"),))
    assert [a.asset_id for a in snapshot.assets] == ["mine"]
    assert figures == Figures()


async def test_a_classifier_is_of_no_use(ask: Ask) -> None:
    snapshot, _ = await look(ask, model_type={"classifier": {}}, model_id="roberta-emotions")
    assert (snapshot.operations, snapshot.assets) == ((), ())


async def test_what_is_not_it(ask: Ask) -> None:
    for info in ({"model_id": "x"}, {"model_id": 1, "max_input_length": 1, "model_type": {}}, [1], "page"):
        async with Wire({"GET /info": info}) as wire:
            with pytest.raises(LookFailed):
                await identify(ask(wire.origin), FOUND)
            with pytest.raises(LookFailed) as failed:
                await Tei(ask(wire.origin)).look()
            assert failed.value.trouble is Trouble.STRANGE
    async with Wire({"GET /info": (401, {})}) as wire:
        with pytest.raises(LookFailed) as failed:
            await Tei(ask(wire.origin)).look()
        assert failed.value.trouble is Trouble.REFUSED
