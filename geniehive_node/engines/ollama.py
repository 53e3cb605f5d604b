"""Ollama: known models from /api/tags, those in memory from /api/ps, what tags leave out from /api/show."""

from typing import Any

from geniehive.rules.model import Asset, LoadState
from geniehive.rules.operations import Ability, Operation
from geniehive_node.core.looks import Figures, LookFailed, Snapshot, Trouble
from geniehive_node.engines import told
from geniehive_node.engines.ask import Answer, Asker

_O = Operation
# The releases that brought these APIs.
_RESPONSES_SINCE = (0, 13, 3)
_MESSAGES_SINCE = (0, 14, 0)
_ABILITIES = {"tools": Ability.TOOLS, "vision": Ability.VISION, "thinking": Ability.REASONING}
# Besides "completion", which has several.
_OPERATIONS = {"embedding": _O.EMBEDDINGS, "audio": _O.TRANSCRIPTION}
# Families whose models only embed; for releases that don't list capabilities.
_EMBEDDERS = frozenset({"bert", "nomic-bert", "nomic-bert-moe"})


class Ollama:
    def __init__(self, asker: Asker, version: str) -> None:
        self._asker = asker
        self._version = version
        release = told.version(version)
        self._text: tuple[Operation, ...] = (_O.CHAT, _O.COMPLETIONS)
        if release >= _RESPONSES_SINCE:
            self._text += (_O.RESPONSES,)
        if release >= _MESSAGES_SINCE:
            self._text += (_O.MESSAGES,)
        # What /api/show told, by name and digest, so that each model is asked about once.
        self._shown: dict[tuple[str, str], dict[str, Any]] = {}

    async def look(self) -> tuple[Snapshot, Figures]:
        models = [m for m in self._models(await self._asker.get("/api/tags")) if told.word(m.get("name"))]
        in_memory = self._in_memory(await self._asker.get("/api/ps"))
        shown = await self._show(models)
        assets = tuple(
            asset
            for m, more in zip(models, shown, strict=True)
            if (asset := self._asset(m, more, in_memory)) is not None
        )
        snapshot = Snapshot(
            runtime="ollama",
            version=self._version,
            operations=(*self._text, *_OPERATIONS.values()),
            assets=assets,
            loads_on_request=True,
        )
        return snapshot, Figures()

    def _models(self, answer: Answer) -> list[dict[str, Any]]:
        if answer.unauthorized:
            raise self._asker.refused("ollama")
        content = answer.json()
        if not answer.ok or not isinstance(content, dict) or "models" not in content:
            raise LookFailed(Trouble.STRANGE, f"does not answer /api/tags as Ollama does (status {answer.status})")
        return list(told.tables(content["models"]))

    def _in_memory(self, answer: Answer) -> dict[str, dict[str, Any]] | None:
        """By name; None if this release does not tell."""
        content = answer.json() if answer.ok else None
        if not isinstance(content, dict) or "models" not in content:
            return None
        return {told.word(m.get("name")): m for m in told.tables(content["models"])}

    async def _show(self, models: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What tags left out, for each model; empty where they told everything."""
        known, self._shown = self._shown, {}
        shown = []
        for model in models:
            more: dict[str, Any] = {}
            if "capabilities" not in model or "context_length" not in told.table(model.get("details")):
                key = told.word(model.get("name")), told.word(model.get("digest"))
                if key not in known:
                    answer = await self._asker.post("/api/show", {"model": key[0]})
                    known[key] = _essence(answer.json()) if answer.ok else {}
                more = self._shown[key] = known[key]
            shown.append(more)
        return shown

    def _asset(
        self, model: dict[str, Any], more: dict[str, Any], in_memory: dict[str, dict[str, Any]] | None
    ) -> Asset | None:
        name = told.word(model.get("name"))
        details = told.table(model.get("details"))
        capabilities = model.get("capabilities", more.get("capabilities"))
        operations = self._operations(capabilities, details)
        if not operations:
            return None
        has = tuple(a for word, a in _ABILITIES.items() if word in told.words(capabilities))
        lacks = tuple(a for a in _ABILITIES.values() if a not in has) if isinstance(capabilities, list) else ()
        loaded = (in_memory or {}).get(name)
        digest = told.word(model.get("digest"))
        # Models in the cloud have no weights here.
        remote = bool(model.get("remote_model"))
        state = LoadState.UNKNOWN
        if in_memory is not None and not remote:
            state = LoadState.UNLOADED if loaded is None else LoadState.LOADED
        return Asset(
            asset_id=name,
            upstream_name=name,
            operations=operations,
            abilities=has,
            lacking_abilities=lacks,
            context_tokens=told.whole((loaded or {}).get("context_length")),
            max_context_tokens=told.whole(details.get("context_length")) or more.get("context"),
            family=told.word(details.get("family")),
            quantization=told.word(details.get("quantization_level")),
            digest=f"sha256:{digest}" if digest else "",
            parameter_count=more.get("parameters") or told.count(details.get("parameter_size")),
            size_bytes=None if remote else told.whole(model.get("size"), told.UINT64),
            load_state=state,
        )

    def _operations(self, capabilities: Any, details: dict[str, Any]) -> tuple[Operation, ...]:
        if isinstance(capabilities, list):
            text = self._text if "completion" in capabilities else ()
            return text + tuple(o for word, o in _OPERATIONS.items() if word in capabilities)
        return (_O.EMBEDDINGS,) if told.word(details.get("family")) in _EMBEDDERS else self._text


def _essence(content: Any) -> dict[str, Any]:
    """Of an answer to /api/show, which holds whole licences, what is kept."""
    shown = told.table(content)
    info = told.table(shown.get("model_info"))
    kept: dict[str, Any] = {
        "context": told.whole(info.get(f"{told.word(info.get('general.architecture'))}.context_length")),
        "parameters": told.whole(info.get("general.parameter_count"), told.UINT64),
    }
    if isinstance(shown.get("capabilities"), list):
        kept["capabilities"] = shown["capabilities"]
    return kept
