"""Errors in OpenAI's JSON shape: what is wrong, where, and what to do next, for people and for SDKs.

The openai SDK makes its exception from the status: 400 BadRequestError, 401 AuthenticationError, 403
PermissionDeniedError, 404 NotFoundError, 5xx InternalServerError (which it retries, after Retry-After).
"""

from collections.abc import Iterable, Sequence
from math import ceil

import msgspec

from gateway.core.keys import NoKey, ScopeMissing, UnknownKey
from gateway.core.plan import Unusable
from gateway.core.table import ChooseFrom, NotFound, OtherOperations
from geniehive.rules.operations import BY_PATH, SERVED, Operation

_LISTED = 20
# A name is shown as far as a person would read it.
_NAME_SHOWN = 128


class ApiError(msgspec.Struct, frozen=True):
    """retry_after: whole seconds. allow: methods, for 405. close: the connection must not be used further."""

    status: int
    message: str
    code: str | None
    type: str = "invalid_request_error"
    param: str | None = None
    retry_after: int | None = None
    allow: str = ""
    close: bool = False

    def body(self) -> bytes:
        return msgspec.json.encode({"error": self._fields()})

    def event(self) -> bytes:
        """As an event in the middle of a stream."""
        return b"data: " + self.body() + b"\n\n"

    def _fields(self) -> dict[str, str | None]:
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


class Tried(msgspec.Struct, frozen=True):
    """One endpoint that was asked in vain. kind: "unreachable", "broke", "late"."""

    name: str
    kind: str
    reason: str


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, code, param=param)


def too_large(limit: int) -> ApiError:
    message = f"The request body is larger than {limit} bytes, the gateway's limit (max_body_bytes)"
    return ApiError(413, message, "request_too_large", close=True)


def too_slow(seconds: float) -> ApiError:
    message = f"No more of the request body came for {seconds:g} s"
    return ApiError(408, message, "request_timeout", close=True)


def unauthenticated(refusal: NoKey | UnknownKey | ScopeMissing) -> ApiError:
    match refusal:
        case NoKey():
            message = "No API key was sent. Send one as `Authorization: Bearer KEY` or `X-Api-Key: KEY`"
            return ApiError(401, message, "invalid_api_key")
        case UnknownKey():
            message = "The API key is not known: misspelt, expired or revoked. `geniehive keys` manages keys"
            return ApiError(401, message, "invalid_api_key")
        case ScopeMissing():
            needed = " or ".join(s.word for s in sorted(refusal.needed))
            message = f"The API key {refusal.key_id} may not do this: it needs the scope {needed}"
            return ApiError(403, message, "insufficient_scope", type="permission_error")


def unknown_path(method: str, path: str) -> ApiError:
    if path in BY_PATH:
        served = ", ".join(p for p, operation in BY_PATH.items() if operation in SERVED)
        return ApiError(404, f"{path} is not served by this version of GenieHive; it serves {served}", "unknown_url")
    known = "" if path.startswith("/v1/") else ". The API is below /v1: use a base URL that ends in /v1"
    return ApiError(404, f"There is nothing at {method} {path[:_NAME_SHOWN]}{known}", "unknown_url")


def wrong_method(method: str, path: str, allow: str) -> ApiError:
    return ApiError(
        405, f"{path[:_NAME_SHOWN]} does not take {method}; it takes {allow}", "method_not_allowed", allow=allow
    )


def unresolved(model: str, operation: Operation | None, found: NotFound | OtherOperations | ChooseFrom) -> ApiError:
    """A name that leads nowhere for this operation."""
    shown = _shown(model)
    match found:
        case NotFound():
            near = f". Near matches: {', '.join(found.near)}" if found.near else ""
            message = f"The model {shown} does not exist{near}. GET /v1/models lists all models"
            return ApiError(404, message, "model_not_found", param="model")
        case OtherOperations():
            can = ", ".join(_paths(found.operations)) or "nothing that this gateway offers"
            message = f"The model {shown} can't be used for {operation.word if operation else 'this'}; it serves {can}"
            return ApiError(400, message, "operation_not_served", param="model")
        case ChooseFrom():
            message = f"{shown} is a server with several models. Name one of them: {_listed(found.names)}"
            return ApiError(400, message, "model_ambiguous", param="model")


def not_ready() -> ApiError:
    message = "The gateway has no routing table yet: it waits for its control service. Is that running?"
    return ApiError(503, message, "not_ready", type="server_error", retry_after=2)


def stopping() -> ApiError:
    return ApiError(503, "The gateway is stopping", "stopping", type="server_error", retry_after=1)


def internal(request_id: str) -> ApiError:
    message = f"The gateway failed at this request; its log says more under {request_id}"
    return ApiError(500, message, "internal_error", type="server_error")


def unserved(model: str, tried: Sequence[Tried], unusable: Sequence[Unusable], retry_in: float | None) -> ApiError:
    """A name that exists, with nobody to serve it.

    tried: in order; the last one's kind decides. retry_in: seconds until an ejected endpoint is tried again, None if
    all of them are out for other reasons.
    """
    reasons = _listed([f"{t.name}: {t.reason}" for t in tried] + [f"{u.name}: {u.reason}" for u in unusable], "; ")
    because = f" ({reasons})" if reasons else ": nobody offers it"
    kind = tried[-1].kind if tried else "unreachable"
    match kind:
        case "late":
            return _server_error(504, f"No answer for {_shown(model)} came in time{because}", "upstream_timeout")
        case "broke":
            return _server_error(502, f"Asking for {_shown(model)} failed{because}", "upstream_failed")
    wait = 5 if retry_in is None else max(1, ceil(retry_in))
    return ApiError(
        503,
        f"No endpoint can serve {_shown(model)} now{because}",
        "no_endpoint",
        type="server_error",
        param="model",
        retry_after=wait,
    )


def cut(name: str, reason: str, late: bool) -> ApiError:
    """An answer that broke off in the middle."""
    code = "upstream_timeout" if late else "upstream_failed"
    return _server_error(504 if late else 502, f"The answer of {name} broke off: {reason}", code)


def _server_error(status: int, message: str, code: str) -> ApiError:
    return ApiError(status, message, code, type="server_error")


def _shown(model: str) -> str:
    return f'"{model[:_NAME_SHOWN]}"'


def _paths(operations: Iterable[Operation]) -> list[str]:
    wanted = set(operations).intersection(SERVED)
    return [f"{op.word} ({path})" for path, op in BY_PATH.items() if op in wanted]


def _listed(items: Sequence[str], between: str = ", ") -> str:
    more = f"{between}and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return between.join(items[:_LISTED]) + more
