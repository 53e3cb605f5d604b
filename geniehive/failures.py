"""The reasons that steer a peer: as errors of calls, and inside streams.

`Refused` is the one exception for all of them. A server raises it and `abort` sends it as a gRPC status with
`google.rpc.ErrorInfo` (and `RetryInfo`); a client gets it back by `from_rpc_error`. The comment of each FailureReason
in failure.proto says what the peer does next; `CODES` is its status code.
"""

from collections.abc import Mapping
from typing import NoReturn, cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from geniehive.v1 import failure_pb2
from geniehive.v1.failure_pb2 import FailureReason

DOMAIN = "geniehive"
_PREFIX = "FAILURE_REASON_"

_C = grpc.StatusCode
# In the order of failure.proto; a test compares each with the first word of the reason's comment.
CODES: Mapping[int, grpc.StatusCode] = {
    failure_pb2.FAILURE_REASON_UNSPECIFIED: _C.UNKNOWN,
    failure_pb2.FAILURE_REASON_CREDENTIAL_REFUSED: _C.UNAUTHENTICATED,
    failure_pb2.FAILURE_REASON_CREDENTIAL_REVOKED: _C.UNAUTHENTICATED,
    failure_pb2.FAILURE_REASON_SCOPE_MISSING: _C.PERMISSION_DENIED,
    failure_pb2.FAILURE_REASON_NOT_YOURS: _C.PERMISSION_DENIED,
    failure_pb2.FAILURE_REASON_JOIN_TOKEN_REFUSED: _C.UNAUTHENTICATED,
    failure_pb2.FAILURE_REASON_SESSION_SUPERSEDED: _C.ABORTED,
    failure_pb2.FAILURE_REASON_SESSION_LOST: _C.FAILED_PRECONDITION,
    failure_pb2.FAILURE_REASON_OUT_OF_ORDER: _C.INVALID_ARGUMENT,
    failure_pb2.FAILURE_REASON_TOO_MUCH: _C.RESOURCE_EXHAUSTED,
    failure_pb2.FAILURE_REASON_CONTROL_UNAVAILABLE: _C.UNAVAILABLE,
    failure_pb2.FAILURE_REASON_STORE_UNAVAILABLE: _C.UNAVAILABLE,
    failure_pb2.FAILURE_REASON_TABLE_REJECTED: _C.INVALID_ARGUMENT,
    failure_pb2.FAILURE_REASON_ROUTE_NOT_FOUND: _C.NOT_FOUND,
    failure_pb2.FAILURE_REASON_NAME_AMBIGUOUS: _C.INVALID_ARGUMENT,
    failure_pb2.FAILURE_REASON_OPERATION_NOT_SERVED: _C.INVALID_ARGUMENT,
    failure_pb2.FAILURE_REASON_NO_ENDPOINT: _C.UNAVAILABLE,
    failure_pb2.FAILURE_REASON_CONTEXT_EXCEEDED: _C.INVALID_ARGUMENT,
    failure_pb2.FAILURE_REASON_LOAD_NOT_PLACED: _C.RESOURCE_EXHAUSTED,
    failure_pb2.FAILURE_REASON_HOST_OFFLINE: _C.UNAVAILABLE,
    failure_pb2.FAILURE_REASON_COMMAND_UNSUPPORTED: _C.UNIMPLEMENTED,
    failure_pb2.FAILURE_REASON_MODEL_UNKNOWN: _C.NOT_FOUND,
    failure_pb2.FAILURE_REASON_MODEL_BUSY: _C.FAILED_PRECONDITION,
    failure_pb2.FAILURE_REASON_MEMORY_SHORT: _C.RESOURCE_EXHAUSTED,
    failure_pb2.FAILURE_REASON_ENGINE_FAILED: _C.INTERNAL,
    failure_pb2.FAILURE_REASON_COMMAND_STOPPED: _C.CANCELLED,
    failure_pb2.FAILURE_REASON_ETAG_STALE: _C.ABORTED,
    failure_pb2.FAILURE_REASON_OWNED_BY_FILE: _C.FAILED_PRECONDITION,
    failure_pb2.FAILURE_REASON_STILL_REFERENCED: _C.FAILED_PRECONDITION,
    failure_pb2.FAILURE_REASON_FIELD_INVALID: _C.INVALID_ARGUMENT,
    failure_pb2.FAILURE_REASON_OBJECT_NOT_FOUND: _C.NOT_FOUND,
    failure_pb2.FAILURE_REASON_NOT_SERVED: _C.UNIMPLEMENTED,
}


class Refused(Exception):
    """A call, or an item of a stream, that a peer refused; or one that did not reach it.

    reason: a FailureReason; UNSPECIFIED if the peer gave none, then only `code` counts.
    retry_after: seconds, None if no better time is known.
    """

    def __init__(
        self,
        reason: FailureReason.ValueType,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.code = code or CODES.get(reason, grpc.StatusCode.UNKNOWN)
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after

    @property
    def name(self) -> str:
        """The reason without its prefix, such as "SESSION_LOST"."""
        return reason_name(self.reason)


def reason_name(reason: int) -> str:
    try:
        return FailureReason.Name(reason).removeprefix(_PREFIX)  # type: ignore[arg-type]
    except ValueError:
        return f"REASON_{reason}"


def _duration(seconds: float) -> duration_pb2.Duration:
    made = duration_pb2.Duration()
    made.FromNanoseconds(int(seconds * 1e9))
    return made


def to_failure(error: Refused) -> failure_pb2.Failure:
    """For use inside a stream."""
    return failure_pb2.Failure(
        code=error.code.value[0],
        reason=error.reason,
        message=error.message,
        metadata=error.metadata,
        retry_after=None if error.retry_after is None else _duration(error.retry_after),
    )


def from_failure(failure: failure_pb2.Failure) -> Refused:
    return Refused(
        failure.reason,
        failure.message,
        code=_BY_NUMBER.get(failure.code),
        metadata=dict(failure.metadata),
        retry_after=failure.retry_after.ToNanoseconds() / 1e9 if failure.HasField("retry_after") else None,
    )


_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


def to_status(error: Refused) -> grpc.Status:
    """For `context.abort_with_status`."""
    info = error_details_pb2.ErrorInfo(reason=error.name, domain=DOMAIN, metadata=error.metadata)
    details = [_pack(info)]
    if error.retry_after is not None:
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_after))))
    number: code_pb2.Code.ValueType = error.code.value[0]
    return rpc_status.to_status(status_pb2.Status(code=number, message=error.message, details=details))


def _pack(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


async def abort(context: "grpc.aio.ServicerContext[object, object]", error: Refused) -> NoReturn:
    """Ends a call with this error."""
    status = to_status(error)
    await context.abort(error.code, error.message, tuple(status.trailing_metadata or ()))
    raise AssertionError("abort returned")


def from_rpc_error(error: grpc.RpcError) -> Refused:
    """The reason in the error of a call, synchronous or not."""
    code: grpc.StatusCode = error.code()
    message: str = error.details() or ""
    reason: FailureReason.ValueType = failure_pb2.FAILURE_REASON_UNSPECIFIED
    metadata: dict[str, str] = {}
    retry_after = None
    for key, value in cast(tuple[tuple[str, bytes], ...], error.trailing_metadata() or ()):
        if key != "grpc-status-details-bin":
            continue
        status = status_pb2.Status.FromString(value)
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(info) and info.domain == DOMAIN:
                name = _PREFIX + info.reason
                if name in FailureReason.keys():  # noqa: SIM118 - an enum wrapper is no dict
                    reason = FailureReason.Value(name)
                metadata = dict(info.metadata)
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    return Refused(reason, message, code=code, metadata=metadata, retry_after=retry_after)
