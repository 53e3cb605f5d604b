"""The API that clients see: which path is which operation, in whose words, and how its body comes."""

from enum import StrEnum
from typing import NamedTuple

from geniehive.rules.operations import BY_PATH, Operation


class Dialect(StrEnum):
    """Whose words a client speaks: what errors look like, alone and in the middle of a stream."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"


class ApiCall(NamedTuple):
    """asked: the path to ask an engine at. multipart: its body is a form with files, not JSON."""

    path: str
    asked: str
    operation: Operation
    dialect: Dialect = Dialect.OPENAI
    multipart: bool = False


_DIALECTS = {Operation.RESPONSES: Dialect.RESPONSES, Operation.MESSAGES: Dialect.ANTHROPIC}
_MULTIPART = frozenset(
    {"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits", "/v1/images/variations"}
)

# Where engines that serve a path at all have it, if not where clients may ask for it.
_AT_ENGINES = {"/rerank": "/v1/rerank"}

CALLS = {
    path: ApiCall(
        path,
        _AT_ENGINES.get(path, path),
        operation,
        _DIALECTS.get(operation, Dialect.OPENAI),
        path in _MULTIPART,
    )
    for path, operation in BY_PATH.items()
}


def dialect_of(path: str) -> Dialect:
    """In whose words to refuse what asks for this path, which may be none of ours."""
    call = CALLS.get(path)
    if call is not None:
        return call.dialect
    return Dialect.ANTHROPIC if path.startswith("/v1/messages/") else Dialect.OPENAI
