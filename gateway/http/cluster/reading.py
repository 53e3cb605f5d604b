"""What clients write, in queries and in bodies; Refusal says what can't be read, and what would do."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from gateway.core import errors
from gateway.http.exchange import Refusal
from geniehive.rules.model import Availability
from geniehive.rules.operations import BY_WORD, Operation

MOST_FIELDS = 32
MOST_ROWS = 1000
_LONGEST_SHOWN = 80

T = TypeVar("T")


def bad(message: str, param: str | None = None) -> Refusal:
    return Refusal(errors.bad_request(message, param))


def pairs(query: str, known: Collection[str]) -> list[tuple[str, str]]:
    """The parameters, in order. query: with its "?", or ""."""
    try:
        found = parse_qsl(query[1:], keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise bad(f"The query has more than {MOST_FIELDS} parameters") from error
    for name, _ in found:
        if name not in known:
            use = f"use {', '.join(known)}" if known else "it takes none"
            raise bad(f"{name[:_LONGEST_SHOWN]!r} is no parameter of this: {use}", name[:_LONGEST_SHOWN])
    return found


def row_count(text: str) -> int:
    """Of `limit`; 0: not said."""
    if not text.isascii() or not text.isdecimal() or int(text[:9]) > MOST_ROWS:
        raise bad(f"{text[:_LONGEST_SHOWN]!r} is no number of rows from 1 to {MOST_ROWS}", "limit")
    return int(text[:9])


def operation(word: str, param: str) -> Operation:
    found = BY_WORD.get(word)
    if found is None:
        raise bad(f"{word[:_LONGEST_SHOWN]!r} is no operation: use {', '.join(BY_WORD)}", param)
    return found


def operation_field(word: str, param: str) -> str:
    """As a message of the contract has it."""
    return f"OPERATION_{operation(word, param).name}"


def _availability(word: str, param: str) -> str:
    words = [a.name.lower() for a in Availability if a]
    if word not in words:
        raise bad(f"{word[:_LONGEST_SHOWN]!r} is no availability: use {', '.join(words)}", param)
    return f"AVAILABILITY_{word.upper()}"


def _text(value: str, param: str) -> str:
    del param
    return value


# By parameter: the field of the request, and what makes a value of it.
Filters = Mapping[str, tuple[str, Callable[[str, str], Any]]]

NO_FILTERS: Filters = {}
HOSTS: Filters = {"availability": ("availability", _availability)}
SERVICES: Filters = {
    "host": ("host_id", _text),
    "model": ("asset_id", _text),
    "operation": ("operation", operation_field),
}
BENCHMARKS: Filters = {"service": ("service", _text), "model": ("asset_id", _text), "workload": ("workload", _text)}
ROUTE: Filters = {
    "model": ("model", _text),
    "kind": ("operation", operation_field),
    "operation": ("operation", operation_field),
}
PAGES = ("limit", "page")


def listing(query: str, filters: Filters, labels: bool = False) -> dict[str, Any]:
    """The fields of a request for a list. labels: it can be narrowed by `label`, NAME=VALUE."""
    fields: dict[str, Any] = {}
    held: dict[str, str] = {}
    for name, value in pairs(query, (*filters, *(("label",) if labels else ()), *PAGES)):
        if name == "limit":
            fields["page_size"] = row_count(value)
        elif name == "page":
            fields["page_token"] = value
        elif name == "label":
            key, equals, text = value.partition("=")
            if not equals:
                raise bad(f"{value[:_LONGEST_SHOWN]!r} is no label: write NAME=VALUE", "label")
            held[key] = text
        else:
            field, made = filters[name]
            fields[field] = made(value, name)
    return {**fields, "labels": held} if held else fields


def route(query: str) -> dict[str, Any]:
    """The fields of a look-up."""
    fields = {ROUTE[name][0]: ROUTE[name][1](value, name) for name, value in pairs(query, ROUTE)}
    if not fields.get("model"):
        raise bad("Say which name is meant: ?model=NAME", "model")
    return fields


_Count = Annotated[int, Meta(ge=-(2**31), lt=2**31)]
_Figure = Annotated[float, Meta(ge=0)]


class Match(msgspec.Struct, forbid_unknown_fields=True):
    """task, tasks: free text. kind: an operation."""

    task: str = ""
    tasks: list[str] = []
    workload: str = ""
    workloads: list[str] = []
    kind: str = ""
    modality: str = ""
    include_direct_services: bool = False
    limit: _Count = 0

    def fields(self) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "tasks": [*((self.task,) if self.task else ()), *self.tasks],
            "workloads": [*((self.workload,) if self.workload else ()), *self.workloads],
            "modality": self.modality,
            "include_services": self.include_direct_services,
            "limit": self.limit,
        }
        return {**asked, "operation": operation_field(self.kind, "kind")} if self.kind else asked


class Sample(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """As BenchmarkSample; `model` for `asset_id`."""

    sample_id: str
    service: str
    workload: str
    measure_time: Annotated[datetime, Meta(tz=True)]
    model: str = ""
    asset_id: str = ""
    request_count: Annotated[int, Meta(ge=0, lt=2**32)] = 0
    correctness: _Figure | None = None
    first_token_seconds: _Figure | None = None
    prefill_tokens_per_second: _Figure | None = None
    decode_tokens_per_second: _Figure | None = None

    def fields(self) -> dict[str, Any]:
        asked: dict[str, Any] = msgspec.to_builtins(self)
        model = asked.pop("model", "")
        return {**asked, "asset_id": self.asset_id or model}


class Samples(msgspec.Struct, forbid_unknown_fields=True):
    samples: Annotated[list[Sample], Meta(min_length=1, max_length=1000)]


def body(content: bytes, shape: type[T]) -> T:
    """A JSON object of this shape."""
    try:
        return msgspec.json.decode(content or b"{}", type=shape)
    except msgspec.ValidationError as error:
        raise bad(f"The body is wrong: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad(f"The body is no JSON: {error}") from error
