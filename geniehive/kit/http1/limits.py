"""Limits in time and in bytes."""

from dataclasses import dataclass

HEAD_LIMIT = 64 * 1024
"""Bytes of a response's head, interim 1xx heads included; also of framing (trailers, extensions) between body bytes."""

READ_SIZE = 64 * 1024
"""Bytes taken from a socket at once."""

PAUSE_AT = 32 * 1024
"""Unread body bytes from which on the socket is no longer read. What is taken at once may come on top, and what TLS has
not opened yet. Together with what then waits for a client, that is less than 256 KiB without TLS."""

WRITE_JOIN_LIMIT = 64 * 1024
"""A request body up to this many bytes leaves in one write with its head; copying more costs more than a write."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; None means no limit.

    connect: until the connection stands, TLS handshake included.
    first_byte: from the end of sending until the response head is complete.
    idle: each wait for more of the body, and each wait for the server to take more of a streamed request body. The
        time in which nobody waits (a slow reader, a slow source) doesn't count.
    total: from the call of `request` to the last byte of the answer.
    """

    connect: float | None = 5.0
    first_byte: float | None = 300.0
    idle: float | None = 120.0
    total: float | None = None


DEFAULT_TIMEOUTS = Timeouts()
