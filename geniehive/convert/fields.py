"""How single fields are set and read, alike for all messages."""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

E = TypeVar("E", bound=IntEnum)

# A longer list is not remembered.
_USUAL_COUNT = 32
# Never changed, as nothing is that a frozen value has.
_NO_LABELS: dict[str, str] = {}


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
    listed = tuple(numbers)
    if not listed:
        return ()
    found: tuple[E, ...] = (_enums if len(listed) <= _USUAL_COUNT else _enums.__wrapped__)(kind, listed)
    return found


# The same few lists stand at every model of every machine, and are kept once.
@lru_cache(maxsize=1024)
def _enums(kind: type[E], numbers: tuple[int, ...]) -> tuple[E, ...]:
    known: Any = kind._value2member_map_
    return tuple(known[n] for n in numbers if n in known)


def labels(given: Mapping[str, str]) -> dict[str, str]:
    """What has none shares one that is empty."""
    return dict(given) if given else _NO_LABELS


def timestamp(seconds: float) -> Timestamp:
    # By parts: the whole in nanoseconds is more than a float can hold, and a time would not come back as it went.
    whole, fraction = divmod(seconds, 1)
    stamp = Timestamp()
    stamp.FromNanoseconds(int(whole) * 10**9 + round(fraction * 1e9))
    return stamp


def seconds(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos / 1e9
