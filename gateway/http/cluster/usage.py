"""GET /v1/cluster/usage: what control knows of usage."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec

from gateway.core.questions import Found, Question
from gateway.http.cluster.reading import bad, pairs, row_count
from geniehive import usage
from geniehive.kit.clock import Clock

AskUsage = Callable[[Question, str], Awaitable[Found]]

_SINCE = "24h"
PARAMS = ("by", "since", "until", "limit", "page")
# What rows can be told apart by can also be asked for alone.
_FILTERS = frozenset(usage.DIMENSIONS)


class UsageApi:
    """ask: asks control, in the name of a key."""

    def __init__(self, ask: AskUsage, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock

    async def answer(self, query: str, body: bytes, key_id: str) -> bytes:
        """query: with its "?", or "". key_id: of the client, "" where authentication is off."""
        del body
        question = _question(query, datetime.fromtimestamp(self._clock.wall(), UTC))
        found = await self._ask(question, key_id)
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
    by: list[str] = []
    only: list[tuple[str, str]] = []
    fields: dict[str, str] = {}
    for name, value in pairs(query, (*PARAMS, *usage.DIMENSIONS)):
        if name in _FILTERS:
            try:
                only.append((name, usage.filter_value(name, value)))
            except ValueError as error:
                raise bad(str(error), name) from error
        elif name == "by":
            by += value.split(",")
        else:
            fields[name] = value
    given = {}
    for name, otherwise in (("since", _SINCE), ("until", "0m")):
        try:
            given[name] = usage.moment(fields.get(name, otherwise), now)
        except ValueError as error:
            raise bad(str(error), name) from error
    limit = row_count(fields.get("limit", "0"))
    return Question(by, given["since"], given["until"], limit, fields.get("page", ""), only)
