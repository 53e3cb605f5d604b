"""How single fields are set and read, alike for all messages."""

from collections.abc import Iterable
from enum import IntEnum
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

E = TypeVar("E", bound=IntEnum)


def put(message: Message, **values: Any) -> None:
    """Sets the fields whose value is not None: unset is not zero."""
    for name, value in values.items():
        if value is not None:
            setattr(message, name, value)


def get(message: Message, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


# Both look into the table that enums have anyway: to call the enum costs several times as much.
def enum(kind: type[E], number: int) -> E:
    found: Any = kind._value2member_map_.get(number)
    return kind(0) if found is None else found


def enums(kind: type[E], numbers: Iterable[int]) -> tuple[E, ...]:
    known: Any = kind._value2member_map_
    return tuple(known[n] for n in numbers if n in known)


def timestamp(seconds: float) -> Timestamp:
    # By parts: the whole in nanoseconds is more than a float can hold, and a time would not come back as it went.
    whole, fraction = divmod(seconds, 1)
    stamp = Timestamp()
    stamp.FromNanoseconds(int(whole) * 10**9 + round(fraction * 1e9))
    return stamp


def seconds(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos / 1e9
