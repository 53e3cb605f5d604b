"""Errors of engines, brought into OpenAI's shape.

Three shapes are met: `{"error": {"message": ...}}` (OpenAI, llama.cpp, vLLM), `{"error": "text"}` (Ollama) and
`{"detail": ...}` (FastAPI); and plain text. The first is passed on as it is, whatever its `code` is.
"""

from typing import Any

import msgspec

from gateway.core.errors import ApiError

_TEXT_SHOWN = 2000


def normalised(status: int, body: bytes) -> bytes:
    """The body to send for an engine's error: the same bytes if an OpenAI SDK can read them."""
    found = _decoded(body)
    if (
        isinstance(found, dict)
        and isinstance(error := found.get("error"), dict)
        and isinstance(error.get("message"), str)
    ):
        return body
    message = _message(found, body) or f"The engine answered {status} without saying why"
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return ApiError(status, message, None, type=kind).body()


def message_of(body: bytes) -> str:
    """What an error body says, in one line for people; "" if nothing can be read from it."""
    found = _decoded(body)
    if isinstance(found, dict) and isinstance(error := found.get("error"), dict):
        found = {"error": error.get("message")}
    return " ".join(_message(found, body).split())[:300]


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None


def _message(found: Any, body: bytes) -> str:
    if isinstance(found, dict):
        for key in ("error", "detail", "message"):
            value = found.get(key)
            if isinstance(value, str) and value:
                return value[:_TEXT_SHOWN]
            if value:
                return msgspec.json.encode(value).decode()[:_TEXT_SHOWN]
    return body.decode("utf-8", "replace").strip()[:_TEXT_SHOWN]
