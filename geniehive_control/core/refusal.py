"""Why something was refused. The names are those of FailureReason in failure.proto."""

from enum import Enum


class Why(Enum):
    CREDENTIAL_REFUSED = "CREDENTIAL_REFUSED"
    CREDENTIAL_REVOKED = "CREDENTIAL_REVOKED"
    SCOPE_MISSING = "SCOPE_MISSING"
    NOT_YOURS = "NOT_YOURS"
    JOIN_TOKEN_REFUSED = "JOIN_TOKEN_REFUSED"
    SESSION_SUPERSEDED = "SESSION_SUPERSEDED"
    SESSION_LOST = "SESSION_LOST"
    OUT_OF_ORDER = "OUT_OF_ORDER"
    TOO_MUCH = "TOO_MUCH"
    CONTROL_UNAVAILABLE = "CONTROL_UNAVAILABLE"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    ROUTE_NOT_FOUND = "ROUTE_NOT_FOUND"
    NAME_AMBIGUOUS = "NAME_AMBIGUOUS"
    OPERATION_NOT_SERVED = "OPERATION_NOT_SERVED"
    OWNED_BY_FILE = "OWNED_BY_FILE"
    FIELD_INVALID = "FIELD_INVALID"
    OBJECT_NOT_FOUND = "OBJECT_NOT_FOUND"
    ETAG_STALE = "ETAG_STALE"
    STILL_REFERENCED = "STILL_REFERENCED"
    # A code of gRPC alone: its peers do nothing else about it.
    ALREADY_EXISTS = "ALREADY_EXISTS"
    NOT_SERVED = "NOT_SERVED"


class Refusal(Exception):
    """Something that was not done. `details` has the keys that the reason's comment names.

    retry_after: seconds; None if no better time is known.
    """

    def __init__(self, why: Why, message: str, *, retry_after: float | None = None, **details: str) -> None:
        super().__init__(message)
        self.why = why
        self.message = message
        self.retry_after = retry_after
        self.details = details

    def __repr__(self) -> str:
        return f"Refusal({self.why.name}, {self.message!r})"


def field_invalid(field: str, message: str) -> Refusal:
    return Refusal(Why.FIELD_INVALID, f"{field}: {message}", field=field)
