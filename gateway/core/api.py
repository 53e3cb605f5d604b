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
    """One path. multipart: its body is a form with files, not JSON."""

    path: str
    operation: Operation
    dialect: Dialect = Dialect.OPENAI
    multipart: bool = False


_DIALECTS = {Operation.RESPONSES: Dialect.RESPONSES, Operation.MESSAGES: Dialect.ANTHROPIC}
_MULTIPART = frozenset(
    {"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits", "/v1/images/variations"}
)

CALLS = {
    path: ApiCall(path, operation, _DIALECTS.get(operation, Dialect.OPENAI), path in _MULTIPART)
    for path, operation in BY_PATH.items()
}
