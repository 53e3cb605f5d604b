"""Names that resemble an unknown one, for its error message."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

_WORDS = re.compile(r"[a-z]+|[0-9]+")
# Comparing costs tens of microseconds a name: an error message is worth no more than some milliseconds.
_COMPARED = 200
_SHOWN = 3


def near_matches(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Up to three of `names`, the most similar first."""
    wanted = name[:128].lower()
    words = set(_WORDS.findall(wanted))
    listed = list(names)
    likely = [n for n in listed if words & set(_WORDS.findall(n.lower()))] or listed
    by_folded = {n.lower(): n for n in likely[:_COMPARED]}
    return tuple(by_folded[folded] for folded in get_close_matches(wanted, by_folded, _SHOWN, 0.5))
