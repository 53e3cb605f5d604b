"""Refusals of the core and of the store -> the one exception of the wire. The only place that translates them."""

from geniehive.failures import Refused
from geniehive.v1.failure_pb2 import FailureReason
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.ports import StoreUnavailable


def to_refused(error: Refusal | StoreUnavailable) -> Refused:
    if isinstance(error, StoreUnavailable):
        return Refused(_reason(Why.STORE_UNAVAILABLE), f"nothing was stored: {error}")
    return Refused(_reason(error.why), error.message, metadata=error.details, retry_after=error.retry_after)


def _reason(why: Why) -> FailureReason.ValueType:
    return FailureReason.Value(f"FAILURE_REASON_{why.name}")
