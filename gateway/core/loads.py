"""What engines are busy with, as control passes it on: of each load key the newest figures.

A load key is a service ("host/service"), or an endpoint ("endpoint/...") whose model the engine tells apart. Figures
are seconds old when they come, and count this gateway's own requests too: these are told apart by how many were in
flight when the figures were taken.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from geniehive.rules.model import ServiceLoad
from geniehive.rules.names import endpoint_resource

# Own requests in flight under a load key, at a time.
OwnAt = Callable[[str, float], int]


class Sample(NamedTuple):
    """at: when the engine had so much to do, on the clock that only grows. own: of that, from this gateway."""

    at: float
    running: int
    queued: int
    own: int

    @property
    def others(self) -> int:
        """Requests of other gateways, and of whoever asks the engine himself."""
        return max(0, self.running + self.queued - self.own)


class Loads:
    """Bounded by what control tells within `stale_after`: what is older is forgotten."""

    __slots__ = ("_samples", "_stale_after", "_sweep_due", "taken")

    def __init__(self) -> None:
        self._samples: dict[str, Sample] = {}
        # How often there was news.
        self.taken = 0
        self._stale_after = 0.0
        self._sweep_due = 0.0

    def __len__(self) -> int:
        return len(self._samples)

    def take(self, samples: Iterable[ServiceLoad], stale_after: float, own_at: OwnAt, now: float) -> None:
        """Newer figures of some services. stale_after: so long they are good, in seconds."""
        self._stale_after = stale_after
        self.taken += 1
        held = self._samples
        for load in samples:
            service = load.service
            at = now - (load.age_seconds or 0.0)
            # Of an engine that doesn't tell, what passes through its relay is known at least.
            running = load.relayed if load.running is None else load.running
            if running is None and load.queued is None:
                held.pop(service, None)
            else:
                held[service] = Sample(at, running or 0, load.queued or 0, own_at(service, at))
            for asset in load.assets:
                if asset.running is not None or asset.queued is not None:
                    key = endpoint_resource(service, asset.upstream_name)
                    held[key] = Sample(at, asset.running or 0, asset.queued or 0, own_at(key, at))
        if now >= self._sweep_due:
            self._sweep_due = now + stale_after
            self._samples = {key: sample for key, sample in held.items() if sample.at + stale_after >= now}

    def others(self, load_key: str, now: float) -> Sample | None:
        """The newest figures; None: there are none, or they are too old to balance by."""
        sample = self._samples.get(load_key)
        return None if sample is None or sample.at + self._stale_after < now else sample
