"""A request's head as bytes.

The caller's headers come from clients of the gateway, so nothing in them may end a line or a head early. Names are
checked once and remembered; line breaks are counted over the finished head, which costs three scans instead
of a check for each value.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from geniehive.kit.http1.origin import Origin

Header = tuple[str | bytes, str | bytes]

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_OURS = frozenset({b"host", b"content-length", b"transfer-encoding"})


def encode_head(origin: Origin, method: str, target: str, headers: Sequence[Header], framing: bytes) -> bytes:
    """The whole head; `framing` is its last lines with the empty line that ends it.

    Text is encoded as UTF-8 (surrogate escapes back to their bytes). ValueError for a method, target, name or value
    that could break out of its line, and for headers that the client sets itself.
    """
    parts = [_start(method), _target(target), _host_line(origin)]
    append = parts.append
    for name, value in headers:
        append(_name(name))
        append(value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape"))
    append(b"\r\n")
    append(framing)
    head = b"".join(parts)
    lines = len(headers) + 2 + framing.count(b"\n")
    if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
        raise ValueError(f"a header's value contains CR, LF or NUL: {_offender(headers)}")
    return head


def length_framing(length: int) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % length


@lru_cache(maxsize=1024)
def _start(method: str) -> bytes:
    encoded = method.encode("utf-8", "surrogateescape")
    if not _TOKEN.fullmatch(encoded) or encoded == b"CONNECT":
        raise ValueError(f"{method!r} is not a method that can be sent")
    return encoded + b" "


def _target(target: str) -> bytes:
    encoded = target.encode("utf-8", "surrogateescape")
    if not _TARGET.fullmatch(encoded):
        raise ValueError(f"{target!r} is not a request target: it is empty or contains blanks or control characters")
    return encoded


@lru_cache(maxsize=1024)
def _host_line(origin: Origin) -> bytes:
    authority = origin.authority.encode("ascii")
    if not _TARGET.fullmatch(authority):
        raise ValueError(f"{origin!r} is not an origin")
    return b" HTTP/1.1\r\nHost: " + authority


@lru_cache(maxsize=4096)
def _name(name: str | bytes) -> bytes:
    encoded = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    if not _TOKEN.fullmatch(encoded):
        raise ValueError(f"{name!r} is not a header name")
    if encoded.lower() in _OURS:
        raise ValueError(f"the header {name!r} is set by the client itself")
    return b"\r\n" + encoded + b": "


def _offender(headers: Sequence[Header]) -> str:
    for name, value in headers:
        raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        if any(byte in raw for byte in b"\r\n\0"):
            return repr(name)  # not the value: it may be a secret
    return "?"
