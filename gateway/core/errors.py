"""Errors in the client's dialect: what is wrong, where, and what to do next, for people and for SDKs.

SDKs make their exception from the status: 400 BadRequestError, 401 AuthenticationError, 403 PermissionDeniedError,
404 NotFoundError, 5xx InternalServerError (which they retry, after Retry-After); anthropic's has more kinds of those,
such as OverloadedError for 529. In the middle of a stream they raise what is told of by

    openai      a data line with "error"
    responses   the event "response.failed", by which Codex goes; and "error" with "error" in it, which the openai SDK
                raises
    anthropic   the event "error"
"""

from collections.abc import Iterable, Sequence
from math import ceil

import msgspec

from gateway.core.api import Dialect
from gateway.core.keys import NoKey, ScopeMissing, UnknownKey
from gateway.core.plan import Unusable
from gateway.core.table import ChooseFrom, NotFound, OtherOperations
from geniehive.rules.operations import BY_PATH, Operation

_LISTED = 20
# A name is shown as far as a person would read it.
_NAME_SHOWN = 128

SATURATED = "saturated"
# Whether a client comes again after "not now" hangs on the status: Codex gives up at 429, and what speaks Anthropic's
# words waits for 529.
_SATURATED_STATUSES = {Dialect.OPENAI: 429, Dialect.RESPONSES: 503, Dialect.ANTHROPIC: 529}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


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

    def status_in(self, dialect: Dialect) -> int:
        return _SATURATED_STATUSES[dialect] if self.code == SATURATED else self.status

    def body(self, dialect: Dialect = Dialect.OPENAI, request_id: str = "") -> bytes:
        if dialect is Dialect.ANTHROPIC:
            kind = anthropic_type(self.status_in(dialect))
            error = {"type": "error", "error": {"type": kind, "message": self.message}}
            return msgspec.json.encode(error | {"request_id": request_id} if request_id else error)
        return msgspec.json.encode({"error": self._fields()})

    def event(self, dialect: Dialect = Dialect.OPENAI, request_id: str = "") -> bytes:
        """As what ends a stream."""
        match dialect:
            case Dialect.OPENAI:
                return b"data: " + self.body() + b"\n\n"
            case Dialect.ANTHROPIC:
                return b"event: error\ndata: " + self.body(dialect, request_id) + b"\n\n"
            case Dialect.RESPONSES:
                return self._response_failed(request_id)

    def _fields(self) -> dict[str, str | None]:
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}

    def _response_failed(self, request_id: str) -> bytes:
        # How many events went before is not known here; parsers want a number, and none compares it.
        numbered = {"sequence_number": 0}
        response = {
            "id": f"resp_{request_id}",
            "object": "response",
            "created_at": 0,
            "status": "failed",
            "error": {"code": "server_error", "message": self.message},
            "model": "",
            "output": [],
        }
        failed = {"type": "response.failed", **numbered, "response": response}
        fields = self._fields()
        error = {"type": "error", **numbered, "code": self.code, "message": self.message, "param": self.param}
        return b"event: response.failed\ndata: %b\n\nevent: error\ndata: %b\n\n" % (
            msgspec.json.encode(failed),
            msgspec.json.encode({**error, "error": fields}),
        )


def anthropic_type(status: int) -> str:
    """Anthropic's word for errors of this status."""
    return _ANTHROPIC_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")


class Tried(msgspec.Struct, frozen=True):
    """One endpoint that was asked in vain. kind: "unreachable", "broke", "late", "busy", "loading"."""

    name: str
    kind: str
    reason: str


def tried_names(failures: Sequence[Tried]) -> str:
    """Each with its reason, for logs and messages."""
    return "; ".join(f"{t.name}: {t.reason}" for t in failures)


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, code, param=param)


def too_large(limit: int, setting: str = "max_body_bytes") -> ApiError:
    message = f"The request body is larger than {limit} bytes, the gateway's limit ({setting})"
    return ApiError(413, message, "request_too_large", close=True)


def no_room() -> ApiError:
    """An upload that had to be kept on the disk could not be."""
    message = (
        "The gateway's disk took no more of the upload, which is kept there until its model is known. Send the field "
        '"model" before the file, so that nothing is kept, or have room made (upload_dir)'
    )
    return ApiError(507, message, "no_room", type="server_error", close=True)


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
    known = "" if path.startswith("/v1/") else ". The API is below /v1: use a base URL that ends in /v1"
    return ApiError(404, f"There is nothing at {method} {path[:_NAME_SHOWN]}{known}", "unknown_url")


def wrong_method(method: str, path: str, allow: str) -> ApiError:
    return ApiError(
        405, f"{path[:_NAME_SHOWN]} does not take {method}; it takes {allow}", "method_not_allowed", allow=allow
    )


def bad_query(longest: int) -> ApiError:
    message = f"What follows the path after `?` is longer than {longest} bytes, or not percent-encoded"
    return ApiError(400, message, "bad_query")


def bad_hops(name: str) -> ApiError:
    return ApiError(400, f"The header {name} is set by gateways, to a number; leave it out", "bad_request")


def loop(hops: int) -> ApiError:
    message = (
        f"The request has passed {hops} gateways, which must be going in a circle: on its way some cluster has an "
        "engine that is a gateway leading back. Take that out of its node's engines"
    )
    return ApiError(508, message, "loop_detected", type="server_error")


def unresolved(model: str, operation: Operation | None, found: NotFound | OtherOperations | ChooseFrom) -> ApiError:
    """A name that leads nowhere for this operation."""
    name = shown(model)
    match found:
        case NotFound():
            near = f". Near matches: {', '.join(found.near)}" if found.near else ""
            message = f"The model {name} does not exist{near}. GET /v1/models lists all models"
            return ApiError(404, message, "model_not_found", param="model")
        case OtherOperations():
            can = ", ".join(_paths(found.operations)) or "nothing that this gateway offers"
            message = f"The model {name} can't be used for {operation.word if operation else 'this'}; it serves {can}"
            return ApiError(400, message, "operation_not_served", param="model")
        case ChooseFrom():
            message = f"{name} is a server with several models. Name one of them: {listed(found.names)}"
            return ApiError(400, message, "model_ambiguous", param="model")


def not_ready() -> ApiError:
    message = "The gateway has no routing table yet: it waits for its control service. Is that running?"
    return ApiError(503, message, "not_ready", type="server_error", retry_after=2)


def stopping() -> ApiError:
    return ApiError(503, "The gateway is stopping", "stopping", type="server_error", retry_after=1)


def control_away(why: str, retry_after: float | None) -> ApiError:
    """What only control knows was asked for."""
    message = f"This is kept by control, which can't be asked now: {why}. Calls to models go on"
    return msgspec.structs.replace(
        _server_error(503, message, "control_unavailable"), retry_after=max(1, ceil(retry_after or 1.0))
    )


def workers_away(why: str) -> ApiError:
    """What only all workers together know was asked for."""
    message = f"The process that knows what all workers count can't be asked now: {why}. Calls to models go on"
    return msgspec.structs.replace(_server_error(503, message, "workers_unavailable"), retry_after=1)


def internal(request_id: str) -> ApiError:
    message = f"The gateway failed at this request; its log says more under {request_id}"
    return ApiError(500, message, "internal_error", type="server_error")


def unserved(model: str, tried: Sequence[Tried], unusable: Sequence[Unusable], retry_in: float | None) -> ApiError:
    """A name that exists, with nobody to serve it.

    tried: in order; the last one's kind decides. retry_in: seconds until an ejected endpoint is tried again, None if
    all of them are out for other reasons.
    """
    reasons = _reasons(tried, unusable)
    because = f" ({reasons})" if reasons else ": nobody offers it"
    kind = tried[-1].kind if tried else "unreachable"
    match kind:
        case "late":
            return _server_error(504, f"No answer for {shown(model)} came in time{because}", "upstream_timeout")
        case "broke":
            return _server_error(502, f"Asking for {shown(model)} failed{because}", "upstream_failed")
    wait = 5 if retry_in is None else max(1, ceil(retry_in))
    return ApiError(
        503,
        f"No endpoint can serve {shown(model)} now{because}",
        "no_endpoint",
        type="server_error",
        param="model",
        retry_after=wait,
    )


def saturated(model: str, reason: str, retry_in: float) -> ApiError:
    """Every endpoint is at its limit. retry_in: seconds until one may have room."""
    message = f"Every endpoint of {shown(model)} is at its limit now: {reason}"
    wait = max(1, ceil(retry_in))
    return ApiError(429, message, SATURATED, type="rate_limit_error", param="model", retry_after=wait)


def busy(model: str, tried: Sequence[Tried], retry_after: int | None) -> ApiError:
    """Engines said that they have too much to do, and nobody else could be asked. retry_after: as they said."""
    message = f"Nobody has room for {shown(model)} now ({_reasons(tried)})"
    wait = max(1, retry_after or 5)
    return ApiError(429, message, SATURATED, type="rate_limit_error", param="model", retry_after=wait)


def loading(model: str, tried: Sequence[Tried], unusable: Sequence[Unusable], retry_in: float) -> ApiError:
    """The model was being loaded for all the time that there was."""
    message = f"The model {shown(model)} is still being loaded; try again ({_reasons(tried, unusable)})"
    wait = max(1, ceil(retry_in))
    return ApiError(503, message, "model_loading", type="server_error", param="model", retry_after=wait)


def cut(name: str, reason: str, late: bool) -> ApiError:
    """An answer that broke off in the middle."""
    code = "upstream_timeout" if late else "upstream_failed"
    return _server_error(504 if late else 502, f"The answer of {name} broke off: {reason}", code)


def _server_error(status: int, message: str, code: str) -> ApiError:
    return ApiError(status, message, code, type="server_error")


def _reasons(tried: Sequence[Tried], unusable: Sequence[Unusable] = ()) -> str:
    return listed([f"{t.name}: {t.reason}" for t in tried] + [f"{u.name}: {u.reason}" for u in unusable], "; ")


def shown(model: str) -> str:
    """A name as clients wrote it, as far as a person would read it."""
    return f'"{model[:_NAME_SHOWN]}"'


def _paths(operations: Iterable[Operation]) -> list[str]:
    wanted = set(operations)
    return [f"{op.word} ({path})" for path, op in BY_PATH.items() if op in wanted]


def listed(items: Sequence[str], between: str = ", ") -> str:
    more = f"{between}and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return between.join(items[:_LISTED]) + more
