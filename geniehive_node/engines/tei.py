"""text-embeddings-inference: one model, that embeds or ranks, told of by /info. It has no list of models.

It ranks at /rerank, and nowhere else, and takes `texts` where others take `documents`.
"""

import re
from typing import Any

from geniehive.rules.model import Asset, LoadState
from geniehive.rules.operations import Operation
from geniehive_node.core import guess
from geniehive_node.core.looks import Figures, LookFailed, Snapshot, Trouble
from geniehive_node.engines import told
from geniehive_node.engines.ask import Asker
from geniehive_node.engines.openai import asset_id

RUNTIME = "tei"
_KINDS = {"embedding": Operation.EMBEDDINGS, "reranker": Operation.RERANK}
_RERANKS_AT = (("/v1/rerank", "/rerank"),)
_QUEUE = re.compile(rb"^te_queue_size (\S+)$", re.MULTILINE)


class Tei:
    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def look(self) -> tuple[Snapshot, Figures]:
        answer = await self._asker.get("/info")
        if answer.unauthorized:
            raise self._asker.refused(RUNTIME)
        info = told.table(answer.json()) if answer.ok else {}
        if not is_info(info):
            raise LookFailed(Trouble.STRANGE, f"does not answer /info as its kind does (status {answer.status})")
        name = told.word(info.get("served_model_name")) or info["model_id"]
        operations = _operations(info.get("model_type")) or guess.by_name(name)
        asset = Asset(
            asset_id=asset_id(name),
            upstream_name=asset_id(name),  # any is accepted, so a path need not leave the host
            context_tokens=told.whole(info.get("max_input_length")),
            load_state=LoadState.LOADED,
        )
        snapshot = Snapshot(
            runtime=RUNTIME,
            version=told.word(info.get("version")),
            operations=operations,
            # A classifier serves nothing that the API has.
            assets=(asset,) if operations else (),
            slots=told.whole(info.get("max_concurrent_requests")),
            paths=_RERANKS_AT if Operation.RERANK in operations else (),
        )
        return snapshot, await self._figures()

    async def _figures(self) -> Figures:
        answer = await self._asker.get("/metrics")
        found = _QUEUE.search(answer.body) if answer.ok else None
        return Figures(queued=told.gauge(found[1]) if found else None)


def is_info(content: Any) -> bool:
    info = told.table(content)
    return bool(told.word(info.get("model_id"))) and "max_input_length" in info and "model_type" in info


def _operations(kind: Any) -> tuple[Operation, ...]:
    """`kind`: such as {"embedding": {"pooling": "cls"}}."""
    words = (kind,) if isinstance(kind, str) else tuple(told.table(kind))
    return tuple(_KINDS[word.lower()] for word in words if word.lower() in _KINDS)
