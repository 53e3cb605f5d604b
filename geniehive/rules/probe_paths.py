"""Whether an engine is well, by the cheapest question that it answers.

None of these paths loads or wakes a model, or makes the engine work: SGLang's /health generates a token, say, and its
/ready does not. An engine that is bringing its model into memory is well: it says itself that it loads. A refusal (401,
404) is an answer too; where an engine has a sign of its own, it must be there, since other programs answer 200 to
anything.
"""

from typing import NamedTuple

# Of the relay, after "/{host}/{service}": GET it, and the node asks the engine in the caller's place.
AT_RELAY = "/probe"
# What is read of an answer.
LONGEST = 4 * 1024 * 1024


class Question(NamedTuple):
    """path: as if the engine stood at the root of its address; None: its list of models, wherever its API is. sign: in
    the body of an answer with 200; empty: any will do."""

    path: str | None
    sign: bytes = b""


# An engine of which nothing else is known.
LIST = Question(None)

_BY_RUNTIME = {
    "ollama": Question("/", b"Ollama is running"),
    "llamacpp": Question("/health", b'"status"'),
    "vllm": Question("/health"),
    "sglang": Question("/ready"),
    "llama-swap": Question("/health", b"OK"),
    "localai": Question("/readyz"),
    "tei": Question("/health"),
}


def question(runtime: str) -> Question:
    return _BY_RUNTIME.get(runtime, LIST)


def ailment(asked: Question, status: int, body: bytes) -> str | None:
    """What is wrong with the engine that gave this answer, in words; None: nothing."""
    if status == 503 and b"Loading model" in body:
        return None
    if status >= 500:
        return f"it answers {status}"
    if status == 200 and asked.sign not in body:
        return "something else answers at its address"
    return None
