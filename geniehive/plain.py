"""Messages of the contract as plain objects, for JSON: every field by its own name.

What is not known is null. An enum's value is its word ("healthy" for HEALTH_STATE_HEALTHY), times are ISO 8601 in UTC,
durations are seconds, and a field `…_json` is the object that it holds, without that ending. Secrets are left out.
"""

import json
from collections.abc import Callable
from datetime import UTC
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

# Of a relay, and of a key: nobody who reads has a use for them.
_SECRETS = frozenset({"geniehive.v1.Relay.token", "geniehive.v1.ClientKey.key_sha256"})
_JSON = "_json"

_Part = tuple[str, str, Callable[[Any], Any], bool]


def plain(message: Message) -> dict[str, Any]:
    """The message, all of it."""
    shown: dict[str, Any] = {}
    for name, key, convert, may_lack in _parts(message.DESCRIPTOR):
        shown[key] = None if may_lack and not message.HasField(name) else convert(getattr(message, name))
    return shown


def word(enum: EnumDescriptor, number: int) -> str:
    """ "unknown" for the unspecified value, the number for one that is newer than this version."""
    return _words(enum).get(number) or str(number)


def number(enum: EnumDescriptor, text: str) -> int:
    """The value that has this word. ValueError, in words."""
    for value, known in _words(enum).items():
        if known == text and value:
            return value
    known_words = ", ".join(known for value, known in _words(enum).items() if value)
    raise ValueError(f"{text[:80]!r} is none of these: {known_words}")


@cache
def _words(enum: EnumDescriptor) -> dict[int, str]:
    first = enum.values[0].name
    prefix = first.removesuffix("UNSPECIFIED")
    words = {value.number: value.name.removeprefix(prefix).lower() for value in enum.values}
    if first != prefix:
        words[0] = "unknown"
    return words


@cache
def _parts(kind: Descriptor) -> tuple[_Part, ...]:
    """Of each field: its name, its key, what makes its value plain, and whether it may be unset."""
    return tuple(_part(field) for field in kind.fields if field.full_name not in _SECRETS)


def _part(field: FieldDescriptor) -> _Part:
    one = _of_one(field)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = _of_one(field.message_type.fields_by_name["value"])
        return field.name, field.name, lambda held: {key: value(held[key]) for key in sorted(held)}, False
    if field.is_repeated:
        return field.name, field.name, lambda held: [one(item) for item in held], False
    key = field.name.removesuffix(_JSON)
    return field.name, key, one if key == field.name else _object, field.has_presence


def _of_one(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.enum_type is not None:
        words = _words(field.enum_type)
        return lambda held: words.get(held) or str(held)
    if field.message_type is None:
        return _same
    if field.message_type.full_name == Timestamp.DESCRIPTOR.full_name:
        return _time
    if field.message_type.full_name == Duration.DESCRIPTOR.full_name:
        return lambda held: held.ToNanoseconds() / 1e9
    return plain


def _same(held: Any) -> Any:
    return held


def _time(held: Timestamp) -> str:
    return held.ToDatetime(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _object(text: str) -> Any:
    if not text:
        return {}
    try:
        return json.loads(text)
    except ValueError:
        return text
