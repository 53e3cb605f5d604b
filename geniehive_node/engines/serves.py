"""What a server with OpenAI's list of models serves, where that list does not say: by its description or lists of its
own.

Servers made with FastAPI describe their paths at /openapi.json. vLLM has those alone that its model can serve; releases
of old, and SGLang, have all of them, whatever the model.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from geniehive.rules.model import Value
from geniehive.rules.operations import BY_PATH, BY_WORD, Operation
from geniehive_node.core import guess
from geniehive_node.engines import told
from geniehive_node.engines.ask import Answer, Asker

_O = Operation
TEXT = (*guess.TEXT, _O.RESPONSES, _O.MESSAGES)
_USUAL = {"vllm": TEXT, "sglang": TEXT, "llama-swap": TEXT, "localai": TEXT}
_DESCRIPTION = "/openapi.json"
# As LocalAI's /v1/models/capabilities spells it. Whatever llama.cpp runs is said to chat, besides what it is for.
_LOCALAI = {
    "embeddings": (_O.EMBEDDINGS,),
    "rerank": (_O.RERANK,),
    "transcript": (_O.TRANSCRIPTION, _O.TRANSLATION),
    "tts": (_O.SPEECH,),
    "image": (_O.IMAGES,),
}
_LLAMA_SWAP = {
    "audio_transcriptions": (_O.TRANSCRIPTION,),
    "audio_speech": (_O.SPEECH,),
    "image_generation": (_O.IMAGES,),
    "image_to_image": (_O.IMAGES,),
    "reranker": (_O.RERANK,),
}


class Serves(Value, frozen=True):
    """base: of models that nothing more is known of. by_model: of those that the server tells of. paths: what it has at
    all; None if it does not say."""

    base: tuple[Operation, ...]
    by_model: Mapping[str, tuple[Operation, ...]] = {}
    paths: frozenset[Operation] | None = None

    def of(self, entry: dict[str, Any]) -> tuple[Operation, ...]:
        """Of a model by its entry in the list; empty for the base."""
        name = entry["id"]
        found = self.by_model.get(name) or _by_entry(entry) or guess.by_type(entry.get("type"))
        found = found or guess.by_type(entry.get("task")) or guess.by_name(name)
        if self.paths is not None:
            found = tuple(o for o in found if o in self.paths)
        # What is usual follows from the base, which may have more.
        return () if found == guess.TEXT or found == self.base else found


async def ask(asker: Asker, runtime: str) -> Serves:
    """LookFailed if there was no answer."""
    special = _SPECIAL.get(runtime)
    if special is not None:
        return await special(asker)
    usual = _USUAL.get(runtime, guess.TEXT)
    paths = None if runtime in ("geniehive", "llama-swap") else await described(asker)
    if not paths:
        return Serves(usual)
    text = tuple(o for o in TEXT if o in paths)
    return Serves(text or tuple(sorted(paths)), paths=paths)


async def described(asker: Asker) -> frozenset[Operation] | None:
    """What the server says that it has paths for; None if it does not describe itself."""
    paths = told.table(_json(await asker.get(_DESCRIPTION))).get("paths")
    if not isinstance(paths, dict):
        return None
    offered = BY_PATH.keys() & {path for path, methods in paths.items() if "post" in told.table(methods)}
    return frozenset(BY_PATH[path] for path in offered)


async def _sglang(asker: Asker) -> Serves:
    info = told.table(_json(await asker.get("/model_info")))
    architectures = " ".join(told.words(info.get("architectures")))
    if "Whisper" in architectures:
        return Serves((_O.TRANSCRIPTION,))
    if info.get("is_generation") is False:
        return Serves((_O.RERANK,) if "SequenceClassification" in architectures else (_O.EMBEDDINGS,))
    return Serves(TEXT)


async def _lmstudio(asker: Asker) -> Serves:
    newer = told.table(_json(await asker.get("/api/v1/models")))
    if "models" in newer:
        # Of 0.4, which brought the list, and Anthropic's API a little later.
        kinds = {told.word(m.get("key")): m.get("type") for m in told.tables(newer["models"])}
        return Serves(TEXT, {key: guess.by_type(kind) for key, kind in kinds.items() if kind != "llm"})
    # Before that it is not told which of the APIs it has but the oldest.
    older = told.table(_json(await asker.get("/api/v0/models")))
    kinds = {told.word(m.get("id")): m.get("type") for m in told.tables(older.get("data"))}
    return Serves(guess.TEXT, {key: guess.by_type(kind) for key, kind in kinds.items()})


async def _localai(asker: Asker) -> Serves:
    content = told.table(_json(await asker.get("/v1/models/capabilities")))
    by_model = {}
    for entry in told.tables(content.get("data")):
        words = told.words(entry.get("capabilities"))
        by_model[told.word(entry.get("id"))] = tuple(o for word in words for o in _LOCALAI.get(word, ()))
    return Serves(TEXT, by_model)


_SPECIAL: dict[str, Callable[[Asker], Coroutine[None, None, Serves]]] = {
    "sglang": _sglang,
    "lmstudio": _lmstudio,
    "localai": _localai,
}


def _by_entry(entry: dict[str, Any]) -> tuple[Operation, ...]:
    """What a gateway of GenieHive, or llama-swap, says in its list."""
    ours = told.words(told.table(entry.get("geniehive")).get("operations"))
    if ours:
        return tuple(BY_WORD[word] for word in ours if word in BY_WORD)
    capabilities = told.table(entry.get("capabilities"))
    found = (o for word, operations in _LLAMA_SWAP.items() if capabilities.get(word) is True for o in operations)
    return tuple(dict.fromkeys(found))


def _json(answer: Answer) -> object:
    return answer.json() if answer.ok else None
