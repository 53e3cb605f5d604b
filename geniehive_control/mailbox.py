"""What waits to be written to one stream. The newest of each kind wins, so that a slow reader costs no memory."""

import asyncio
from typing import Generic, TypeVar

from geniehive_control.core.refusal import Refusal

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Filled by the hub, emptied by the one task that writes the stream."""

    __slots__ = ("_taker", "_waiting", "ended", "refusal")

    def __init__(self) -> None:
        self._waiting: dict[str, T] = {}
        # A future for the one who waits; an event would keep a queue for others.
        self._taker: asyncio.Future[None] | None = None
        self.ended = False
        # Why the stream ends; None: in good order.
        self.refusal: Refusal | None = None

    def put(self, slot: str, item: T) -> None:
        """`item` takes the place of what waits in this slot."""
        if not self.ended:
            self._waiting[slot] = item
            self._wake()

    def end(self, refusal: Refusal | None = None) -> None:
        """The stream is to end, after what waits now. The first reason counts."""
        if not self.ended:
            self.ended = True
            self.refusal = refusal
            self._wake()

    async def take(self) -> list[T]:
        """What waits, in the order of its slots. Empty: the stream is to end."""
        if not self._waiting and not self.ended:
            self._taker = asyncio.get_running_loop().create_future()
            try:
                await self._taker
            finally:
                self._taker = None
        waiting, self._waiting = list(self._waiting.values()), {}
        return waiting

    def _wake(self) -> None:
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)
