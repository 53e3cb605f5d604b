"""What waits to be written to one stream. The newest of each kind wins, so that a slow reader costs no memory."""

import asyncio
from typing import Generic, TypeVar

from geniehive_control.core.refusal import Refusal

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Filled by the hub, emptied by the one task that writes the stream."""

    def __init__(self) -> None:
        self._waiting: dict[str, T] = {}
        self._something = asyncio.Event()
        self.ended = False
        # Why the stream ends; None: in good order.
        self.refusal: Refusal | None = None

    def put(self, slot: str, item: T) -> None:
        """`item` takes the place of what waits in this slot."""
        if not self.ended:
            self._waiting[slot] = item
            self._something.set()

    def end(self, refusal: Refusal | None = None) -> None:
        """The stream is to end, after what waits now. The first reason counts."""
        if not self.ended:
            self.ended = True
            self.refusal = refusal
            self._something.set()

    async def take(self) -> list[T]:
        """What waits, in the order of its slots. Empty: the stream is to end."""
        await self._something.wait()
        waiting, self._waiting = list(self._waiting.values()), {}
        if not self.ended:
            self._something.clear()
        return waiting
