"""Careful reading of what engines tell: anything may be missing, or of another type than expected."""

import re
from collections.abc import Iterator
from typing import Any

_WORD_LIMIT = 200
_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMBT]?)", re.IGNORECASE)
_SCALES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
UINT32 = 2**32 - 1
UINT64 = 2**64 - 1


def table(value: Any) -> dict[str, Any]:
    """`value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def tables(value: Any) -> Iterator[dict[str, Any]]:
    """The objects in a JSON array; none if it is no array."""
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def words(value: Any) -> tuple[str, ...]:
    """The strings in a JSON array; none if it is no array."""
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def word(value: Any) -> str:
    return value.strip()[:_WORD_LIMIT] if isinstance(value, str) else ""


def whole(value: Any, most: int = UINT32) -> int | None:
    """A positive whole number that fits; zero means "not set" to every engine that was met."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        return None
    return value


def count(value: Any) -> int | None:
    """ "3.2B" -> 3,200,000,000; numbers as they are."""
    if isinstance(value, str) and (match := _COUNT.fullmatch(value.strip()[:_WORD_LIMIT])):
        return whole(round(float(match[1]) * _SCALES[match[2].upper()]), UINT64)
    return whole(value, UINT64)


def gauge(text: bytes) -> int | None:
    """b"2" and b"2.0" -> 2, as metrics spell how many there are now; None for what is no such number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return round(value) if 0 <= value <= UINT32 else None


def version(text: str) -> tuple[int, ...]:
    """ "0.13.3-rc1" -> (0, 13, 3); empty if there is no number at the front."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", text)
    return tuple(map(int, match[1].split("."))) if match else ()
