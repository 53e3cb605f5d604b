"""Usage as people ask for it and as they are shown it: for the command line and for the gateway's HTTP endpoint."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from geniehive.convert import timestamp
from geniehive.rules.histogram import quantile
from geniehive.v1 import registry_service_pb2, request_pb2, usage_pb2

_PREFIX = "USAGE_DIMENSION_"
# By the words that people write: "key", "model", "host", and so on.
DIMENSIONS: dict[str, registry_service_pb2.UsageDimension.ValueType] = {
    name.removeprefix(_PREFIX).lower(): number
    for name, number in registry_service_pb2.UsageDimension.items()
    if number != registry_service_pb2.USAGE_DIMENSION_UNSPECIFIED
}
_OPERATION_PREFIX = "OPERATION_"
# By their names, as people write them.
OPERATIONS = {
    name: name.removeprefix(_OPERATION_PREFIX).lower()
    for name, number in request_pb2.Operation.items()
    if number != request_pb2.OPERATION_UNSPECIFIED
}

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_COUNTS = (
    "requests",
    "requests_succeeded",
    "requests_cancelled",
    "requests_unserved",
    "attempts",
    "attempts_connect_failed",
    "attempts_upstream_failed",
    "attempts_timed_out",
    "attempts_cut",
    "attempts_refused",
    "requests_with_tokens",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
)


def moment(text: str, now: datetime) -> datetime:
    """ "24h" or "7d" ago, "2026-11-01", or "2026-11-01T08:00:00Z"; without a zone it is UTC. ValueError, in words."""
    if match := re.fullmatch(r"(\d{1,5})([mhdw])", text):
        return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        # What cannot be said as such a number is no time that anything happened at.
        found.timestamp()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text[:80]!r} is no time, such as 24h, 7d, 2026-11-01 or 2026-11-01T08:00:00Z") from error
    return found


def dimension(word: str) -> registry_service_pb2.UsageDimension.ValueType:
    """ValueError, in words."""
    found = DIMENSIONS.get(word)
    if found is None:
        raise ValueError(f"{word[:80]!r} is nothing that usage is summed by: use {', '.join(DIMENSIONS)}")
    return found


def filter_value(word: str, text: str) -> str:
    """A dimension's value as people write it, as the contract has it. ValueError, in words."""
    if word == "operation":
        name = _OPERATION_PREFIX + text.upper()
        if name not in OPERATIONS:
            raise ValueError(f"{text[:80]!r} is no operation: use {', '.join(OPERATIONS.values())}")
        return name
    if word in ("hour", "day"):
        try:
            at = datetime.fromisoformat(text)
            return iso(at if at.tzinfo is not None else at.replace(tzinfo=UTC))
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{text[:80]!r} is no {word}, such as 2026-11-01T08:00:00Z") from error
    return text


def request(
    by: Iterable[str],
    since: datetime,
    until: datetime,
    page_size: int = 0,
    page_token: str = "",
    only: Iterable[tuple[str, str]] = (),
) -> registry_service_pb2.QueryUsageRequest:
    """only: dimensions and the values, as `filter_value` gives them, that they must have. ValueError, in words."""
    if since > until:
        raise ValueError("the time asked for ends before it begins")
    of = registry_service_pb2.QueryUsageRequest.Filter
    return registry_service_pb2.QueryUsageRequest(
        group_by=[dimension(word) for word in by],
        since_time=timestamp(since.timestamp()),
        until_time=timestamp(until.timestamp()),
        page_size=page_size,
        page_token=page_token,
        filters=[of(dimension=dimension(word), value=value) for word, value in only],
    )


def view(by: Sequence[str], row: registry_service_pb2.QueryUsageResponse.Row) -> dict[str, Any]:
    """A row as a plain object. Keys are never renamed or dropped, only added; what is not known is null."""
    shown: dict[str, Any] = {}
    for word, value in zip(by, row.values, strict=True):
        shown[word] = _operation(value) if word == "operation" else value
    sums = row.outcomes
    shown |= {name: getattr(sums, name) for name in _COUNTS}
    served = sums.requests_succeeded + sums.requests_cancelled + sums.requests_unserved
    shown["requests_failed"] = max(0, sums.requests - served)
    for name, histogram in (("first_token", sums.first_token), ("duration", sums.duration)):
        shown |= {f"{name}_p{share}_seconds": _quantile(histogram, share / 100) for share in (50, 95)}
    return shown


def _operation(name: str) -> str:
    return OPERATIONS.get(name, name)


def _quantile(histogram: usage_pb2.Histogram, share: float) -> float | None:
    found = quantile(histogram.upper_bounds_seconds, histogram.counts, share)
    return None if found is None else round(found, 4)


def iso(at: datetime) -> str:
    """As it stands in answers: "2026-11-01T08:00:00Z"."""
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
