"""Refusals of the core and of the store -> the one exception of the wire. The only place that translates them."""

import grpc

from geniehive.failures import Refused
from geniehive.v1.failure_pb2 import FailureReason
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.ports import StoreUnavailable

# In bytes. A status travels in HTTP headers, of which a peer takes no more than 8 KiB; the message is in it twice, and
# each byte of it may take three.
_LONGEST_MESSAGE = 800
_LONGEST_DETAIL = 2000


def to_refused(error: Refusal | StoreUnavailable) -> Refused:
    if isinstance(error, StoreUnavailable):
        return Refused(_reason(Why.STORE_UNAVAILABLE), _cut(f"nothing was stored: {error}"))
    if error.why is Why.ALREADY_EXISTS:
        unspecified = FailureReason.FAILURE_REASON_UNSPECIFIED
        return Refused(unspecified, _cut(error.message), code=grpc.StatusCode.ALREADY_EXISTS)
    details = {name: _whole_lines(value) for name, value in error.details.items()}
    return Refused(_reason(error.why), _cut(error.message), metadata=details, retry_after=error.retry_after)


def _cut(text: str) -> str:
    encoded = text.encode()
    return text if len(encoded) <= _LONGEST_MESSAGE else encoded[:_LONGEST_MESSAGE].decode(errors="ignore") + "..."


def _whole_lines(text: str) -> str:
    """As many lines as there is room for."""
    encoded = text.encode()
    if len(encoded) <= _LONGEST_DETAIL:
        return text
    lines, _, broken = encoded[:_LONGEST_DETAIL].rpartition(b"\n")
    return (lines or broken).decode(errors="ignore")


def _reason(why: Why) -> FailureReason.ValueType:
    return FailureReason.Value(f"FAILURE_REASON_{why.name}")
