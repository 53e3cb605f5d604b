"""Errors of engines, brought into the client's dialect.

Three shapes are met: `{"error": {"message": ...}}` (OpenAI, llama.cpp, vLLM), `{"error": "text"}` (Ollama, vLLM's 401)
and `{"detail": ...}` (FastAPI, at times with the first within); and plain text. What an SDK of the dialect can read is
passed on as it is: the first in OpenAI's, whatever its `code` is; in Anthropic's, what says "type": "error" besides.
"""

import re
from typing import Any

import msgspec

from gateway.core.api import Dialect
from gateway.core.errors import ApiError

_TEXT_SHOWN = 2000
_LOADING = re.compile(r"\bis (?:still |currently )?(?:loading|being loaded)\b")
# `{"detail": {"error": {"message": ...}}}` has three.
_WRAPPINGS = 3


def normalised(status: int, body: bytes, dialect: Dialect = Dialect.OPENAI, request_id: str = "") -> bytes:
    """The body to send for an engine's error: the same bytes if an SDK of this dialect can read them."""
    found = _decoded(body)
    if _readable(found, dialect):
        return body
    message = _message(found, body) or f"The engine answered {status} without saying why"
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return ApiError(status, message, None, type=kind).body(dialect, request_id)


def message_of(body: bytes) -> str:
    """What an error body says, in one line for people; "" if nothing can be read from it."""
    return " ".join(_message(_decoded(body), body).split())[:300]


def is_loading(message: str) -> bool:
    """Whether the message of a 503 says that the model is there soon: llama.cpp's "Loading model", or alike."""
    said = message.lower()
    return said.startswith("loading model") or _LOADING.search(said) is not None


def _readable(found: Any, dialect: Dialect) -> bool:
    if not isinstance(found, dict) or not isinstance(error := found.get("error"), dict):
        return False
    if dialect is Dialect.ANTHROPIC and (found.get("type") != "error" or not isinstance(error.get("type"), str)):
        return False
    return isinstance(error.get("message"), str)


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None


def _message(found: Any, body: bytes) -> str:
    """ "" if there is nothing."""
    for _ in range(_WRAPPINGS):
        if not isinstance(found, dict):
            break
        inner = next((value for key in ("error", "detail", "message") if (value := found.get(key))), None)
        if isinstance(inner, str):
            return inner[:_TEXT_SHOWN]
        if inner is None:
            break
        body = msgspec.json.encode(inner)
        found = inner
    return body.decode("utf-8", "replace").strip()[:_TEXT_SHOWN]
