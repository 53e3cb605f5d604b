"""Any server with OpenAI's list of models: vLLM, SGLang, LM Studio, providers, and those nobody knows by name.

What the list tells beyond ids differs; what is found is taken, the rest stays unset or follows from the name.
"""

from collections.abc import Collection
from typing import Any

from geniehive.rules.model import Asset, LoadState
from geniehive.rules.operations import Ability, Operation
from geniehive_node.core.looks import Figures, LookFailed, Snapshot, Source, Trouble
from geniehive_node.engines import told
from geniehive_node.engines.ask import GENIEHIVE, Answer, Asker
from geniehive_node.engines.providers import CHAT_ALONE, KNOWN
from geniehive_node.engines.serves import Serves, ask

# The context that an engine with the model in memory, or a provider, grants to a request.
_CONTEXT_IN_FORCE = ("max_model_len", "context_length", "context_window")
_ALWAYS_LOADED = frozenset({"vllm", "sglang"})
_LOADS_BY_ITSELF = frozenset({"lmstudio", "llama-swap", "localai"})
_STATES = {"loaded": LoadState.LOADED, "unloaded": LoadState.UNLOADED}


class OpenAI:
    """`runtime` is what the server turned out to be, "openai" if nothing more is known."""

    def __init__(self, asker: Asker, source: Source, runtime: str, version: str = "") -> None:
        self._asker = asker
        self._source = source
        self._runtime = runtime
        self._version = version
        # What it serves, and the models for which that was found out.
        self._serves: Serves | None = None
        self._asked_for: tuple[str, ...] = ()

    async def look(self) -> tuple[Snapshot, Figures]:
        answer = await self._asker.models()
        cluster = geniehive_cluster(answer)
        if answer.unauthorized:
            raise self._asker.refused(self._runtime)
        entries = model_list(answer)
        if entries is None:
            if not self._source.models or answer.status >= 500:
                raise no_list(answer)
            # Declared by hand, since such servers tell nothing; an answer at all shows that it lives.
            entries = []
        serves = await self._found_out(tuple(entry["id"] for entry in entries))
        assets = tuple(self._asset(entry, serves) for entry in entries if entry["id"])
        snapshot = Snapshot(
            runtime=self._runtime,
            version=self._version,
            operations=serves.base,
            assets=assets,
            loads_on_request=self._runtime in _LOADS_BY_ITSELF,
            cluster=cluster,
        )
        return snapshot, Figures()

    async def _found_out(self, models: tuple[str, ...]) -> Serves:
        """Once for each set of models, since the answer holds until the server is started anew."""
        if self._serves is None or self._asked_for != models:
            self._serves = (
                _of_provider(self._source.runtime) if self._source.hosted else await ask(self._asker, self._runtime)
            )
            self._asked_for = models
        return self._serves

    def _asset(self, entry: dict[str, Any], serves: Serves) -> Asset:
        name = entry["id"]
        has, lacks = _abilities(entry)
        in_force = next((n for key in _CONTEXT_IN_FORCE if (n := told.whole(entry.get(key)))), None)
        meta = told.table(entry.get("meta"))
        state = LoadState.LOADED if self._runtime in _ALWAYS_LOADED else LoadState.UNKNOWN
        status = told.word(told.table(entry.get("status")).get("value"))
        return Asset(
            asset_id=asset_id(name),
            upstream_name=name,
            operations=serves.of(entry),
            abilities=has,
            lacking_abilities=lacks,
            context_tokens=in_force or told.whole(meta.get("n_ctx")),
            max_context_tokens=told.whole(entry.get("max_context_length")),
            load_state=_STATES.get(status, state),
        )


def _of_provider(name: str | None) -> Serves:
    known = KNOWN.get(name or "")
    return Serves(known.operations if known else CHAT_ALONE)


def geniehive_cluster(answer: Answer) -> str | None:
    """The cluster whose gateway answered; None for any other server. LookFailed for a relay, which is no engine."""
    if answer.server != GENIEHIVE:
        return None
    cluster = answer.header(b"x-geniehive-cluster")
    if not cluster:
        raise LookFailed(Trouble.STRANGE, "is a relay of GenieHive, or a gateway that has not met its control yet")
    return cluster


def model_list(answer: Answer) -> list[dict[str, Any]] | None:
    """The entries of a well-formed list of models; None if the answer is none."""
    if not answer.ok:
        return None
    content = answer.json()
    data: Any = content
    if isinstance(content, dict) and "data" in content:
        # Some spell an empty list so.
        data = [] if content["data"] is None else content["data"]
    elif content == []:
        return None  # some providers leave out the envelope, but an empty array alone says nothing
    if isinstance(data, list) and all(isinstance(e, dict) and isinstance(e.get("id"), str) for e in data):
        return data
    return None


def no_list(answer: Answer, serves: Collection[Operation] = ()) -> LookFailed:
    """serves: what the server says that it has paths for, if it does."""
    if answer.status >= 500:
        return LookFailed(Trouble.UNREACHABLE, f"answers its list of models with status {answer.status}")
    if serves:
        words = ", ".join(o.word for o in sorted(serves))
        return LookFailed(
            Trouble.STRANGE,
            f"serves {words}, but has no list of models; name them in the node's settings: models: [...]",
        )
    return LookFailed(
        Trouble.STRANGE,
        f"answers (status {answer.status}), but with no list of models; if it serves models all the same, "
        "name them in the node's settings: runtime: openai, models: [...], operations: [...]",
    )


def asset_id(name: str) -> str:
    """The name under which the cluster has a model. Paths of a host's disk are nobody's business."""
    if name.startswith(("/", "~", "./", "../")) or "\\" in name or name[1:3] == ":/":
        last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
        return last.removesuffix(".gguf") or name
    return name


def _abilities(entry: dict[str, Any]) -> tuple[tuple[Ability, ...], tuple[Ability, ...]]:
    """Known to have, known to lack."""
    has: set[Ability] = set()
    lacks: set[Ability] = set()

    def mark(ability: Ability, there: bool) -> None:
        (has if there else lacks).add(ability)

    modalities = told.words(told.table(entry.get("architecture")).get("input_modalities"))
    if modalities:
        mark(Ability.VISION, "image" in modalities)
    parameters = told.words(entry.get("supported_parameters"))
    if parameters:
        mark(Ability.TOOLS, "tools" in parameters)
        mark(Ability.REASONING, "reasoning" in parameters)
    capabilities = told.table(entry.get("capabilities"))
    for key, ability in (("function_calling", Ability.TOOLS), ("vision", Ability.VISION)):
        if isinstance(capabilities.get(key), bool):
            mark(ability, capabilities[key])
    return tuple(sorted(has)), tuple(sorted(lacks - has))
