"""llama.cpp's server: with one model, or as a router that starts one server per model.

Found by trying: `/slots` keeps a model from falling asleep and wakes a sleeping one, and in router mode it loads it;
`/metrics` does neither. So figures come from `/metrics` alone, and a router is asked for nothing but its list.
"""

import re
from itertools import pairwise
from typing import Any

from geniehive.rules.model import Asset, LoadState
from geniehive.rules.operations import Ability, Operation
from geniehive_node.core import guess
from geniehive_node.core.looks import Figures, LookFailed, Snapshot, Trouble
from geniehive_node.engines import told
from geniehive_node.engines.ask import Answer, Asker
from geniehive_node.engines.openai import asset_id, model_list
from geniehive_node.engines.serves import TEXT

RUNTIME = "llamacpp"
_O = Operation
# Word pieces (BERT) and unigrams (XLM-R, T5): vocabularies of models that embed and don't write.
_EMBEDDING_VOCABULARIES = frozenset({3, 4})
# Questions that cost nothing: refused as incomplete where the operation is served, with 501 where it is not.
_TRIED = (
    ("/v1/chat/completions", guess.TEXT),
    ("/v1/responses", (_O.RESPONSES,)),
    ("/v1/messages", (_O.MESSAGES,)),
    ("/v1/embeddings", (_O.EMBEDDINGS,)),
    ("/v1/rerank", (_O.RERANK,)),
    ("/v1/audio/transcriptions", (_O.TRANSCRIPTION,)),
)
_NOT_SERVED = 501
_STATES = {
    "unloaded": LoadState.UNLOADED,
    "loading": LoadState.LOADING,
    "loaded": LoadState.LOADED,
    "sleeping": LoadState.SLEEPING,
}
_GAUGE = re.compile(rb"^llamacpp:requests_(processing|deferred) (\S+)$", re.MULTILINE)
# What a build without version control calls itself.
_NO_BUILD = "b0-"


class Single:
    """A server with one model."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        # What marks one start of the server with one model, and what that was found to serve.
        self._tried_for: object = None
        self._operations: tuple[Operation, ...] = ()

    async def look(self) -> tuple[Snapshot, Figures]:
        props = await properties(self._asker)
        if props.get("role") == "router":
            raise LookFailed(Trouble.STRANGE, "became a router")
        entries = await _entries(self._asker)
        if not entries:
            raise LookFailed(Trouble.LOADING, "has no model yet", RUNTIME)
        entry = entries[0]
        sleeping = props.get("is_sleeping") is True
        operations = await self._served(props, entry, sleeping)
        meta = told.table(entry.get("meta"))
        slots = told.whole(props.get("total_slots"))
        settings = told.table(props.get("default_generation_settings"))
        has, lacks = _abilities(entry, props)
        name = asset_id(entry["id"])
        asset = Asset(
            asset_id=name,
            upstream_name=name,  # any is accepted, so a path need not leave the host
            abilities=has,
            lacking_abilities=lacks,
            context_tokens=told.whole(meta.get("n_ctx")) or told.whole(settings.get("n_ctx")),
            max_context_tokens=told.whole(meta.get("n_ctx_train")),
            quantization=told.word(meta.get("ftype")) or told.word(props.get("model_ftype")),
            parameter_count=told.whole(meta.get("n_params"), told.UINT64),
            size_bytes=told.whole(meta.get("size"), told.UINT64),
            load_state=LoadState.SLEEPING if sleeping else LoadState.LOADED,
        )
        snapshot = Snapshot(runtime=RUNTIME, version=_build(props), operations=operations, assets=(asset,), slots=slots)
        return snapshot, await self._figures(props)

    async def _served(self, props: dict[str, Any], entry: dict[str, Any], sleeping: bool) -> tuple[Operation, ...]:
        # The marker is random at each start; builds without it differ in the rest.
        meta = told.table(entry.get("meta"))
        start = (entry["id"], meta.get("n_ctx"), meta.get("size"), props.get("build_info"), props.get("media_marker"))
        if start == self._tried_for:
            return self._operations
        if sleeping:
            # Asking would wake it; what is usual holds until it is awake.
            return self._operations or _by_vocabulary(entry) or TEXT
        served: tuple[Operation, ...] = ()
        for path, operations in _TRIED:
            answer = await self._asker.post(path, {})
            _check(self._asker, answer)
            if answer.status not in (404, _NOT_SERVED):
                served += operations
        only = _by_vocabulary(entry)
        self._operations = tuple(o for o in served if o in only) if only else served
        self._tried_for = start
        return self._operations

    async def _figures(self, props: dict[str, Any]) -> Figures:
        if props.get("endpoint_metrics") is not True:
            return Figures()
        answer = await self._asker.get("/metrics")
        if not answer.ok:
            return Figures()
        gauges = {kind: told.gauge(value) for kind, value in _GAUGE.findall(answer.body)}
        return Figures(running=gauges.get(b"processing"), queued=gauges.get(b"deferred"))


class Router:
    """A server that starts and stops one server per model, by itself when a request comes."""

    def __init__(self, asker: Asker, props: dict[str, Any]) -> None:
        self._asker = asker
        self._version = _build(props)
        self._autoload = props.get("models_autoload") is not False

    async def look(self) -> tuple[Snapshot, Figures]:
        entries = await _entries(self._asker)
        if any("status" not in entry for entry in entries):
            raise LookFailed(Trouble.STRANGE, "is no router any more")
        assets = tuple(self._asset(entry) for entry in entries if _state(entry) is not None)
        snapshot = Snapshot(
            runtime=RUNTIME,
            version=self._version,
            operations=(*TEXT, _O.EMBEDDINGS),
            assets=assets,
            loads_on_request=self._autoload,
        )
        return snapshot, Figures()

    def _asset(self, entry: dict[str, Any]) -> Asset:
        meta = told.table(entry.get("meta"))
        # Command lines show paths and secrets of the host: read here, told to nobody.
        arguments = told.words(told.table(entry.get("status")).get("args"))
        has, lacks = _abilities(entry, {})
        return Asset(
            asset_id=asset_id(entry["id"]),
            upstream_name=entry["id"],
            operations=_by_arguments(arguments) or _by_vocabulary(entry) or guess.by_name(entry["id"]) or TEXT,
            abilities=has,
            lacking_abilities=lacks,
            context_tokens=told.whole(meta.get("n_ctx")),
            max_context_tokens=told.whole(meta.get("n_ctx_train")),
            quantization=told.word(meta.get("ftype")),
            parameter_count=told.whole(meta.get("n_params"), told.UINT64),
            size_bytes=told.whole(meta.get("size"), told.UINT64),
            load_state=_state(entry) or LoadState.UNKNOWN,
            slots=_number_after(arguments, "--parallel", "-np"),
        )


async def properties(asker: Asker) -> dict[str, Any]:
    """What /props tells; touches no model. LookFailed if it can't be had."""
    answer = await asker.get("/props")
    _check(asker, answer)
    content = answer.json()
    if not answer.ok or not isinstance(content, dict):
        raise LookFailed(Trouble.STRANGE, f"does not answer /props as llama.cpp does (status {answer.status})")
    return content


async def _entries(asker: Asker) -> list[dict[str, Any]]:
    answer = await asker.get("/v1/models")
    _check(asker, answer)
    entries = model_list(answer)
    if entries is None:
        raise LookFailed(Trouble.STRANGE, f"does not answer /v1/models as llama.cpp does (status {answer.status})")
    return entries


def _check(asker: Asker, answer: Answer) -> None:
    if answer.loading:
        raise LookFailed(Trouble.LOADING, "is loading its model", RUNTIME)
    if answer.unauthorized:
        raise asker.refused(RUNTIME)


def _state(entry: dict[str, Any]) -> LoadState | None:
    """None for a model that is not here yet."""
    status = told.table(entry.get("status"))
    if status.get("failed") is True:
        return LoadState.FAILED
    value = told.word(status.get("value"))
    return None if value == "downloading" else _STATES.get(value, LoadState.UNKNOWN)


def _build(props: dict[str, Any]) -> str:
    build = told.word(props.get("build_info"))
    return "" if build.startswith(_NO_BUILD) else build


def _by_vocabulary(entry: dict[str, Any]) -> tuple[Operation, ...]:
    """Empty unless the vocabulary is one of models that don't write."""
    kind = told.whole(told.table(entry.get("meta")).get("vocab_type"))
    return (_O.EMBEDDINGS, _O.RERANK) if kind in _EMBEDDING_VOCABULARIES else ()


def _by_arguments(arguments: tuple[str, ...]) -> tuple[Operation, ...]:
    """What a router's model was started for; empty if for the usual."""
    if {"--reranking", "--rerank"} & set(arguments):
        return (_O.RERANK,)
    return (_O.EMBEDDINGS,) if {"--embeddings", "--embedding"} & set(arguments) else ()


def _number_after(arguments: tuple[str, ...], *flags: str) -> int | None:
    for flag, value in pairwise(arguments):
        if flag in flags and value.isdecimal():
            return told.whole(int(value))
    return None


def _abilities(entry: dict[str, Any], props: dict[str, Any]) -> tuple[tuple[Ability, ...], tuple[Ability, ...]]:
    """Known to have, known to lack. Tools work with any template, better with some: never known to be lacking."""
    has: list[Ability] = []
    lacks: list[Ability] = []
    caps = told.table(props.get("chat_template_caps"))
    if caps.get("supports_tools") is True or caps.get("supports_tool_calls") is True:
        has.append(Ability.TOOLS)
    modalities = told.words(told.table(entry.get("architecture")).get("input_modalities"))
    vision = told.table(props.get("modalities")).get("vision")
    if vision is True or "image" in modalities:
        has.append(Ability.VISION)
    elif vision is False or modalities:
        lacks.append(Ability.VISION)
    return tuple(has), tuple(lacks)
