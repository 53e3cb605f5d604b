"""Which headers of a message go further than one hop, for who passes requests and answers on.

Names and values stay as they were written, byte for byte; what is known of a name is remembered.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from http import HTTPStatus

import msgspec

from geniehive.kit import http1

# By connection (RFC 9110, 7.6.1), set anew for the next hop.
HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te",
        b"trailer", b"transfer-encoding", b"upgrade", b"content-length", b"host", b"expect",
    }
)  # fmt: skip

# Answers without a body, whatever their headers say.
EMPTY_STATUSES = frozenset({204, 304})

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}

_KEPT_BACK = HOP_BY_HOP | {b"server", b"set-cookie", b"set-cookie2", b"alt-svc", b"x-request-id"}


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


def nominated(connection: bytes) -> frozenset[bytes]:
    """Names that the value of a Connection header declares to be of this hop only, in lower case."""
    return frozenset(n.strip() for n in connection.lower().split(b",")) - {b"close", b"keep-alive", b""}


def request_parts(headers: Iterable[tuple[bytes, bytes]], start: Callable[[bytes], bytes | None]) -> list[bytes]:
    """Of a request's headers those that go on, for `http1.join_lines`.

    start: what a header's line begins with, as `http1.line_start` gives it; b"" if it stops here, None for that which
    names others that do.
    """
    parts: list[bytes] = []
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        begun = start(name)
        if begun:
            parts += (begun, value)
        elif begun is None:
            named |= nominated(value)
    if named:
        lines = zip(parts[::2], parts[1::2], strict=True)
        parts = [part for line in lines if line[0][2:-2].lower() not in named for part in line]
    return parts


def line_start(name: bytes, kept_back: frozenset[bytes], beginnings: tuple[bytes, ...]) -> bytes | None:
    """A `start` for `request_parts`: these names, and all that begin so, stop here. ValueError for no proper name."""
    lowered = name.lower()
    if lowered == b"connection":
        return None
    if lowered in kept_back or lowered.startswith(beginnings):
        return b""
    return http1.line_start(name)


class AnswerHead(msgspec.Struct, frozen=True, gc=False):
    """What of the head of an engine's answer matters to who passes it on.

    lines: that go on. length: of the body in bytes, None if it is not announced. events: it is a stream of events.
    """

    lines: bytes
    length: int | None
    events: bool


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> AnswerHead:
    parts: list[bytes] = []
    length = None
    events = False
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        lowered, start = _known(name)
        if start:
            if lowered == b"content-type":
                events = value[:17].lower() == b"text/event-stream"
            parts += (start, value, b"\r\n")
        elif lowered == b"content-length":
            length = int(value) if value.isdigit() else None
        elif lowered == b"connection":
            named |= nominated(value)
    if named:
        lines = zip(parts[::3], parts[1::3], strict=True)
        parts = [part for line in lines if line[0][:-2].lower() not in named for part in (*line, b"\r\n")]
    return AnswerHead(b"".join(parts), length, events)


@lru_cache(maxsize=1024)
def _known(name: bytes) -> tuple[bytes, bytes]:
    """A header's name in lower case, and what to begin its line with; b"" if it stops here."""
    lowered = name.lower()
    # Which web pages may read an answer is for who faces the browser to say, and engines don't know these pages.
    stops = lowered in _KEPT_BACK or lowered.startswith((b"x-geniehive-", b"access-control-"))
    return lowered, b"" if stops else name + b": "
