"""What is written in one turn of the event loop leaves together at its end, while there is much to do.

Between two requests each write costs several times as much: the system's code has to be fetched anew, and whoever is
written to has gone to sleep meanwhile and is woken for every single one.
"""

import asyncio
import logging

log = logging.getLogger(__name__)

# With fewer under way each write leaves at once: there is hardly anything to put it together with.
_MANY = 4
# More than that leaves at once, so that the transport can say that it has too much.
_LARGE = 16 * 1024
# So many wait at most, even for the end of the turn.
_MOST = 64


class Outbox:
    """Of one event loop; to be made inside it.

    Who writes to a transport here must write everything here, or call `flush` before, and before closing it: else the
    order is lost, or the end.
    """

    __slots__ = ("_loop", "_waiting", "under_way")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # What writes here now and then, such as requests; told by who knows.
        self.under_way = 0
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        waiting = self._waiting
        if self.under_way < _MANY or len(data) > _LARGE:
            if waiting:
                self.flush()
            transport.write(data)
            return
        if not waiting:
            self._loop.call_soon(self.flush)
        waiting.append((transport, data))
        if len(waiting) >= _MOST:
            self.flush()

    def flush(self) -> None:
        """Hands on what waits."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if not transport.is_closing():
                try:
                    transport.write(data)
                except Exception:
                    log.exception("a connection could not be written to")
                    transport.abort()
