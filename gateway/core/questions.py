"""Questions about the cluster that control is to answer, and how that may end."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple


class Question(NamedTuple):
    """by: "key", "model", and so on. limit, page: as in the contract; 0 and "": the first rows. only: what is counted,
    by the same words and their values; all must match.
    """

    by: Sequence[str]
    since: datetime
    until: datetime
    limit: int = 0
    page: str = ""
    only: Sequence[tuple[str, str]] = ()


class Found(NamedTuple):
    """rows: plain objects. next_page: "" at the end."""

    rows: list[dict[str, Any]]
    next_page: str


class Inquiry(NamedTuple):
    """Any other question. call: the contract's name of it, such as "ListHosts". fields: those of its request, by the
    contract's names; values of enums by theirs.
    """

    call: str
    fields: Mapping[str, Any] = {}


class Wrong(Exception):
    """The question can't be answered; the text says what is wrong with it."""


class Absent(Exception):
    """There is nothing of that name; the text says so."""


class Forbidden(Exception):
    """Whoever asks may not know; the text says why."""


class Away(Exception):
    """Control, or its database, can't be asked now. retry_after: seconds."""

    def __init__(self, why: str, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after
