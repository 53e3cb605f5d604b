"""QueryUsage, between messages and `geniehive_control.usage`."""

from collections.abc import Sequence
from datetime import UTC, datetime

from geniehive import convert
from geniehive.rules.histogram import BOUNDS
from geniehive.v1 import registry_service_pb2 as pb
from geniehive.v1 import request_pb2, usage_pb2
from geniehive_control.core.refusal import field_invalid
from geniehive_control.core.usage import BUCKETS, COUNTS, SECONDS, By, Group, Query
from geniehive_control.rpc.paging import asked, page
from geniehive_control.usage import Usage

_DAY = 86400.0


async def query_usage(request: pb.QueryUsageRequest, usage: Usage, wall: float) -> pb.QueryUsageResponse:
    """Refusal: FIELD_INVALID. StoreUnavailable."""
    size, after = asked(request)
    # Groups have no order of their own that would be text: pages are by place.
    offset = int(after) if after is not None and after.isdecimal() else 0
    until = convert.seconds(request.until_time) if request.HasField("until_time") else wall
    since = convert.seconds(request.since_time) if request.HasField("since_time") else until - _DAY
    if since > until:
        raise field_invalid("since_time", "is after until_time")
    query = Query(
        first=int(since // 3600),
        end=int(-(-until // 3600)),
        group_by=tuple(_dimension(number, "group_by") for number in request.group_by),
        filters=tuple(_filter(given) for given in request.filters),
        limit=size + 1,
        offset=offset,
    )
    found = await usage.ask(query)
    places = ((f"{offset + number:015d}", group) for number, group in enumerate(found, 1))
    rows, token = page(request, places, lambda group: _row(query.group_by, group))
    return pb.QueryUsageResponse(rows=rows, next_page_token=token)


def _dimension(number: int, field: str) -> By:
    try:
        return By(number)
    except ValueError as error:
        raise field_invalid(field, f"{number} is nothing that usage can be told apart by") from error


def _filter(given: pb.QueryUsageRequest.Filter) -> tuple[By, str | int]:
    by = _dimension(given.dimension, "filters.dimension")
    if by is By.OPERATION:
        try:
            return by, request_pb2.Operation.Value(given.value)
        except ValueError as error:
            raise field_invalid("filters.value", f"{given.value[:80]!r} is no operation") from error
    if by in (By.HOUR, By.DAY):
        try:
            at = datetime.fromisoformat(given.value)
            seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError) as error:
            raise field_invalid("filters.value", f"{given.value[:80]!r} is no time, as 2026-11-01T00:00:00Z") from error
        return by, int(seconds // (3600 if by is By.HOUR else _DAY))
    return by, given.value.replace("\0", "\ufffd")


def _row(group_by: Sequence[By], group: Group) -> pb.QueryUsageResponse.Row:
    values = [_value(by, value) for by, value in zip(group_by, group.values, strict=True)]
    return pb.QueryUsageResponse.Row(values=values, outcomes=_outcomes(group.numbers))


def _value(by: By, value: str | int) -> str:
    if isinstance(value, str):
        return value
    if by is By.OPERATION:
        try:
            return request_pb2.Operation.Name(value)  # type: ignore[arg-type]
        except ValueError:
            return str(value)
    seconds = value * (3600 if by is By.HOUR else int(_DAY))
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _outcomes(numbers: Sequence[float]) -> usage_pb2.Outcomes:
    plain = dict(zip((*COUNTS, *SECONDS), numbers, strict=False))
    first, last = len(plain), len(plain) + BUCKETS
    made = usage_pb2.Outcomes(**plain)  # type: ignore[arg-type]
    for histogram, counts in ((made.first_token, numbers[first:last]), (made.duration, numbers[last:])):
        if any(counts):
            histogram.upper_bounds_seconds.extend(BOUNDS)
            histogram.counts.extend(int(count) for count in counts)
    return made
