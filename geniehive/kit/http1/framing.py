"""What a response head says about its own size and about where the body ends."""

from collections.abc import Sequence


def ends_with_connection(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Is a clean end of the connection the end of the body? Not when any length or chunking was announced."""
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"content-length" or (lowered == b"transfer-encoding" and b"chunked" in value.lower()):
            return False
    return True


def head_size(headers: Sequence[tuple[bytes, bytes]]) -> int:
    """Bytes of the header lines on the wire."""
    return sum(len(name) + len(value) + 4 for name, value in headers)
