"""Which headers of an engine's answer reach the client, and what the gateway adds."""

from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import quote

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


def passed_on(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The header lines of an engine's answer that the client gets."""
    named = nominated(headers)
    lines: list[bytes] = []
    for name, value in headers:
        if _comes_back(name) and not (named and name.lower() in named):
            if not value and name[:15].lower() == b"access-control-":
                continue  # llama.cpp sends them empty, and browsers stumble over that
            lines += (name, b": ", value, b"\r\n")
    return b"".join(lines)


@lru_cache(maxsize=1024)
def _comes_back(name: bytes) -> bool:
    lowered = name.lower()
    return lowered not in _KEPT_BACK and not lowered.startswith(b"x-geniehive-")
