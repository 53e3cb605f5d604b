"""A request's head as bytes.

The caller's headers come from clients of the gateway, so nothing in them may end a line or a head early. Names and
request lines are checked once and remembered; line breaks are counted over all header lines together, which costs three
scans instead of a check for each value.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NewType

from geniehive.kit.http1.origin import Origin

Header = tuple[str | bytes, str | bytes]

HeaderLines = NewType("HeaderLines", bytes)
"""Checked and encoded header lines, each begun by a line break; two of them added up are some again."""

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_OURS = frozenset({b"host", b"content-length", b"transfer-encoding"})


def encode_head(
    origin: Origin, method: str, target: str, headers: Sequence[Header] | HeaderLines, framing: bytes
) -> bytes:
    """The whole head; `framing` is its last lines with the empty line that ends it.

    Text is encoded as UTF-8 (surrogate escapes back to their bytes). ValueError for a method, target, name or value
    that could break out of its line, and for headers that the client sets itself.
    """
    lines = headers if isinstance(headers, bytes) else encode_lines(headers)
    return b"%b%b\r\n%b" % (_request_line(origin, method, target), lines, framing)


def encode_lines(headers: Iterable[Header]) -> HeaderLines:
    """Header lines that several requests may carry. ValueError as for `encode_head`."""
    parts: list[bytes] = []
    for name, value in headers:
        parts.append(line_start(name))
        parts.append(value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape"))
    return join_lines(parts)


def join_lines(parts: list[bytes]) -> HeaderLines:
    """`parts`: what `line_start` gives for a name, and the value, in turn. ValueError for a value that breaks out."""
    lines = b"".join(parts)
    breaks = len(parts) // 2
    if lines.count(b"\n") != breaks or lines.count(b"\r") != breaks or b"\0" in lines:
        raise ValueError(f"a header's value contains CR, LF or NUL: {_offender(parts)}")
    return HeaderLines(lines)


@lru_cache(maxsize=4096)
def line_start(name: str | bytes) -> bytes:
    """What goes before a header's value. ValueError for no proper name, and for headers that the client itself sets."""
    encoded = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    if not _TOKEN.fullmatch(encoded):
        raise ValueError(f"{name!r} is not a header name")
    if encoded.lower() in _OURS:
        raise ValueError(f"the header {name!r} is set by the client itself")
    return b"\r\n" + encoded + b": "


def length_framing(length: int) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % length


@lru_cache(maxsize=256)
def _request_line(origin: Origin, method: str, target: str) -> bytes:
    """With the host's line, which is the first of the headers; no line break at the end."""
    verb = method.encode("utf-8", "surrogateescape")
    if not _TOKEN.fullmatch(verb) or verb == b"CONNECT":
        raise ValueError(f"{method!r} is not a method that can be sent")
    path = target.encode("utf-8", "surrogateescape")
    if not _TARGET.fullmatch(path):
        raise ValueError(f"{target!r} is not a request target: it is empty or contains blanks or control characters")
    authority = origin.authority.encode("ascii")
    if not _TARGET.fullmatch(authority):
        raise ValueError(f"{origin!r} is not an origin")
    return b"%b %b HTTP/1.1\r\nHost: %b" % (verb, path, authority)


def _offender(parts: list[bytes]) -> str:
    for start, value in zip(parts[::2], parts[1::2], strict=True):
        if any(byte in value for byte in b"\r\n\0"):
            return repr(start[2:-2])  # not the value: it may be a secret
    return "?"
