"""Which engine is it? By certain signs, in an order that no look-alike passes.

Ollama's /api/tags is served by SGLang and LocalAI too, and programs that are no engines answer 200 to anything: a
status alone proves nothing.
"""

from typing import NamedTuple

from geniehive_node.core.looks import LookFailed, Source, Trouble
from geniehive_node.engines import llamacpp, tei, told
from geniehive_node.engines.ask import GENIEHIVE, Answer, Asker, Engine
from geniehive_node.engines.ollama import Ollama
from geniehive_node.engines.openai import OpenAI, geniehive_cluster, model_list, no_list
from geniehive_node.engines.serves import described

# What `owned_by` says in a list of models.
SIGNS = {"llamacpp": "llamacpp", "vllm": "vllm", "sglang": "sglang", "llama-swap": "llama-swap"}
# Settings may name these. "auto" finds out.
RUNTIMES = ("auto", "ollama", "llamacpp", "vllm", "sglang", "lmstudio", "tei", "openai")


class Kind(NamedTuple):
    runtime: str
    version: str = ""


async def identify(asker: Asker, source: Source) -> Engine:
    """The adapter for what is there. LookFailed if nothing is, or nothing that is known."""
    if source.hosted:
        return OpenAI(asker, source, source.runtime or "openai")
    kind = Kind(source.runtime) if source.runtime else await _kind(asker, source)
    match kind.runtime:
        case "ollama":
            return Ollama(asker, kind.version or await _version(asker, "/api/version"))
        case "llamacpp":
            props = await llamacpp.properties(asker)
            return llamacpp.Router(asker, props) if props.get("role") == "router" else llamacpp.Single(asker)
        case "vllm":
            return OpenAI(asker, source, "vllm", await _version(asker, "/version"))
        case tei.RUNTIME:
            return tei.Tei(asker)
    return OpenAI(asker, source, *kind)


async def _kind(asker: Asker, source: Source) -> Kind:
    answer = await asker.models()
    if answer.server == GENIEHIVE:
        if not source.configured:
            raise LookFailed(Trouble.STRANGE, "is a gateway or relay of GenieHive")
        geniehive_cluster(answer)
        return Kind("geniehive")
    if answer.server == "llama.cpp" or answer.loading:
        return Kind("llamacpp")
    if answer.unauthorized:
        return await _behind_a_key(asker, source)
    entries = model_list(answer)
    owners = {told.word(entry.get("owned_by")) for entry in entries or []}
    for owner, runtime in SIGNS.items():
        if owner in owners:
            return Kind(runtime)
    nameless = bool(entries) and owners == {""}  # LocalAI's entries have no owner
    if not nameless and await _says_ollama(asker):
        return Kind("ollama", await _version(asker, "/api/version"))
    if await _is_lmstudio(asker):
        return Kind("lmstudio")
    if entries is None and tei.is_info(_json(await asker.get("/info"))):
        return Kind(tei.RUNTIME)
    if entries is None and not (source.configured and source.models):
        raise no_list(answer, await described(asker) or () if source.configured else ())
    if not source.configured and told.table(answer.json()).get("object") != "list":
        raise LookFailed(Trouble.STRANGE, "answers with a list that is not quite one of models")
    return Kind("localai" if nameless and await _is_localai(asker) else "openai")


async def _behind_a_key(asker: Asker, source: Source) -> Kind:
    """An engine that shows its list to nobody without the right key, but tells what it is."""
    if await _version(asker, "/version"):
        raise asker.refused("vllm")
    if source.configured:
        raise asker.refused()
    raise LookFailed(Trouble.STRANGE, "wants a key and does not say what it is")


async def _says_ollama(asker: Asker) -> bool:
    root = await asker.get("/")
    if not root.ok or root.body.strip() != b"Ollama is running":
        return False
    tags = (await asker.get("/api/tags")).json()
    return isinstance(tags, dict) and "models" in tags


async def _is_lmstudio(asker: Asker) -> bool:
    content = told.table(_json(await asker.get("/api/v1/models")))
    if any("key" in m and "loaded_instances" in m for m in told.tables(content.get("models"))):
        return True
    content = told.table(_json(await asker.get("/api/v0/models")))
    return any("state" in m and "publisher" in m for m in told.tables(content.get("data")))


async def _is_localai(asker: Asker) -> bool:
    content = told.table(_json(await asker.get("/v1/models/capabilities")))
    return any("capabilities" in m for m in told.tables(content.get("data")))


async def _version(asker: Asker, path: str) -> str:
    return told.word(told.table(_json(await asker.get(path))).get("version"))


def _json(answer: Answer) -> object:
    return answer.json() if answer.ok else None
