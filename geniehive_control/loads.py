"""Passes load on from nodes to gateways, on the streams of their tables: at each interval what changed.

Nodes' loads are read when they are to be passed on: without a gateway nothing is.
"""

import asyncio
from collections.abc import Iterator

from geniehive import convert
from geniehive.v1 import routing_service_pb2 as pb
from geniehive_control.core.events import Now
from geniehive_control.core.sampling import Sampling
from geniehive_control.hub import Hub

# Of the interval: after how much of it figures are too old to balance by, and are told again though they are the same.
_STALE = 10.0
_REFRESH = 4.0
# Services in one message: far below its 4 MiB.
_MOST = 5_000


class Loads:
    """interval: between two messages to a gateway, in seconds."""

    def __init__(self, hub: Hub, interval: float) -> None:
        self._hub = hub
        self._interval = interval
        self._sampling = Sampling(_REFRESH * interval)
        self._gathered = float("-inf")
        # What was made last for gateways that had been told up to the first number.
        self._made: tuple[int, float, list[bytes]] = (-1, 0.0, [])

    def start(self) -> None:
        self._hub.tasks.start(self._run(), "load for gateways")

    def reader(self) -> "LoadReader":
        """For one stream."""
        return LoadReader(self)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            if self._hub.subscribed and self.gather():
                self._hub.tell_loads()

    def gather(self) -> bool:
        """Reads what nodes sent. Whether there is anything to tell."""
        now = self._hub.now()
        self._gathered = now.mono
        return self._sampling.gather(self._hub.registry.hosts(), now)

    def messages(self, number: int) -> tuple[int, list[bytes]]:
        """For a gateway that was told up to this number; and the number for the next time."""
        now = self._hub.now()
        if now.mono - self._gathered > self._interval:
            # Nobody listened meanwhile.
            self.gather()
        newest = self._sampling.number
        made = self._made
        # Gateways that keep up get the same, a moment after one another.
        if made[0] != number or made[1] != self._gathered:
            self._made = made = (number, self._gathered, list(self._make(number, now)))
        return newest, made[2]

    def _make(self, number: int, now: Now) -> Iterator[bytes]:
        found = self._sampling.since(number, now)
        for start in range(0, len(found), _MOST):
            message = pb.WatchRoutesResponse()
            message.load.stale_after.FromNanoseconds(round(_STALE * self._interval * 1e9))
            message.load.services.extend(map(convert.service_load_to_proto, found[start : start + _MOST]))
            yield message.SerializeToString()


class LoadReader:
    """What one gateway was told."""

    __slots__ = ("_loads", "_number")

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self._number = 0

    def messages(self) -> Iterator[pb.WatchRoutesResponse]:
        self._number, made = self._loads.messages(self._number)
        return map(pb.WatchRoutesResponse.FromString, made)
