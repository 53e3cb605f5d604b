"""GET /v1/cluster/usage: what control knows of usage, in JSON."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import msgspec

from gateway.core import errors
from gateway.core.errors import ApiError
from gateway.core.questions import Away, Forbidden, Found, Question, Wrong
from gateway.http.exchange import Refusal
from geniehive import usage
from geniehive.kit.clock import Clock

USAGE = "/v1/cluster/usage"
_SINCE = "24h"
_MOST_FIELDS = 32
_MOST_ROWS = 1000
_PARAMS = ("by", "since", "until", "limit", "page")
# What rows can be told apart by can also be asked for alone.
_FILTERS = frozenset(usage.DIMENSIONS)


class ClusterApi:
    """ask: asks control, in the name of a key."""

    def __init__(self, ask: Callable[[Question, str], Awaitable[Found]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock

    async def usage(self, query: str, key_id: str) -> bytes:
        """query: with its "?", or "". key_id: of the client, "" where authentication is off. Refusal."""
        question = _question(query, datetime.fromtimestamp(self._clock.wall(), UTC))
        try:
            found = await self._ask(question, key_id)
        except Wrong as error:
            raise _bad(str(error)) from error
        except Forbidden as error:
            raise Refusal(ApiError(403, str(error), "forbidden")) from error
        except Away as error:
            raise Refusal(errors.control_away(str(error), error.retry_after)) from error
        return msgspec.json.encode(
            {
                "object": "list",
                "by": question.by,
                "since": usage.iso(question.since),
                "until": usage.iso(question.until),
                "data": found.rows,
                "next_page": found.next_page or None,
            }
        )


def _question(query: str, now: datetime) -> Question:
    """Refusal for what can't be read."""
    try:
        pairs = parse_qsl(query[1:], keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise _bad(f"The query has more than {_MOST_FIELDS} parameters") from error
    by: list[str] = []
    only: list[tuple[str, str]] = []
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in _FILTERS:
            try:
                only.append((name, usage.filter_value(name, value)))
            except ValueError as error:
                raise _bad(str(error), name) from error
        elif name not in _PARAMS:
            known = ", ".join((*_PARAMS, *usage.DIMENSIONS))
            raise _bad(f"{name[:80]!r} is no parameter of this: use {known}", name[:80])
        elif name == "by":
            by += value.split(",")
        else:
            fields[name] = value
    given = {}
    for name, otherwise in (("since", _SINCE), ("until", "0m")):
        try:
            given[name] = usage.moment(fields.get(name, otherwise), now)
        except ValueError as error:
            raise _bad(str(error), name) from error
    limit = fields.get("limit", "0")
    if not limit.isascii() or not limit.isdecimal() or int(limit[:9]) > _MOST_ROWS:
        raise _bad(f"{limit[:80]!r} is no number of rows from 1 to {_MOST_ROWS}", "limit")
    return Question(by, given["since"], given["until"], int(limit[:9]), fields.get("page", ""), only)


def _bad(message: str, param: str | None = None) -> Refusal:
    return Refusal(errors.bad_request(message, param))
