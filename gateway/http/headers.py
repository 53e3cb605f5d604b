"""Which headers of an engine's answer reach the client, and what the gateway adds."""

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import quote

import msgspec

from gateway.core.balance import Choice
from gateway.upstream import HOP_BY_HOP, nominated

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}

_KEPT_BACK = HOP_BY_HOP | {b"server", b"set-cookie", b"set-cookie2", b"alt-svc", b"x-request-id"}


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


@lru_cache(maxsize=8)
def common(cluster_id: str) -> bytes:
    """On every answer, so that a node never takes a gateway for an engine."""
    cluster = f"x-geniehive-cluster: {_safe(cluster_id)}\r\n" if cluster_id else ""
    return f"server: GenieHive\r\n{cluster}".encode()


def served_by(choice: Choice, attempts: int) -> bytes:
    """Who answered, and by which route."""
    candidate = choice.candidate
    return _served_by(candidate.service, candidate.host, candidate.asset_id, choice.label) + (
        b"x-geniehive-attempts: %d\r\n" % attempts
    )


@lru_cache(maxsize=4096)
def _served_by(service: str, host: str, model: str, label: str) -> bytes:
    return (
        f"x-geniehive-service: {_safe(service)}\r\nx-geniehive-host: {_safe(host)}\r\n"
        f"x-geniehive-model: {_safe(model)}\r\nx-geniehive-route: {_safe(label)}\r\n"
    ).encode()


def _safe(text: str) -> str:
    """Percent-encoded where a header can't hold it, such as a name in Chinese."""
    return quote(text, safe="!#$&'()*+,/:;<=>?@[]^_`{|}~ -.").strip()


class AnswerHead(msgspec.Struct, frozen=True, gc=False):
    """What of the head of an engine's answer matters here.

    lines: for the client. length: of the body in bytes, None if it is not announced. events: it is a stream of events.
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
            elif not value and lowered.startswith(b"access-control-"):
                continue  # llama.cpp sends them empty, and browsers stumble over that
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
    stops = lowered in _KEPT_BACK or lowered.startswith(b"x-geniehive-")
    return lowered, b"" if stops else name + b": "
