"""How much may wait in a connection until whoever fills it has to wait."""

import asyncio
from typing import cast

# Bytes. What one read or one write brings comes on top.
HELD = 16 * 1024


def hold_little(transport: asyncio.BaseTransport) -> None:
    """Of what is written; with TLS, of what was read and is not opened, too. By default that is some hundred KiB."""
    cast(asyncio.Transport, transport).set_write_buffer_limits(HELD)
    limit_reads = getattr(transport, "set_read_buffer_limits", None)
    if limit_reads is not None:
        limit_reads(HELD)


def hold_little_of_tls(transport: asyncio.BaseTransport) -> None:
    """The same, and nothing for a connection without TLS, which has lower limits by itself."""
    if hasattr(transport, "set_read_buffer_limits"):
        hold_little(transport)
