"""What the gateway adds to the headers of an engine's answer."""

from functools import lru_cache
from urllib.parse import quote

from gateway.core.plan import Choice


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
