"""What gateways are told of load: of each service the newest figures, in the order in which they changed.

Each gateway remembers up to where it was told (`Sampling.since`), so that one that reads slowly gets fewer and newer
figures, and never a queue.
"""

from collections.abc import Iterable

import msgspec

from geniehive.rules.model import ServiceLoad
from geniehive_control.core.events import Now
from geniehive_control.core.hosts import HostState
from geniehive_control.core.verdict import Life


class _Told(msgspec.Struct, gc=False):
    """at: when it was so, on the clock that only grows. number: of the gathering that found it."""

    load: ServiceLoad
    at: float
    number: int


class Sampling:
    """refresh: figures that stay the same are told again after so many seconds, so that they don't look old."""

    def __init__(self, refresh: float) -> None:
        self._refresh = refresh
        # The newest last.
        self._told: dict[str, _Told] = {}
        # Of hosts that are here: when the load came that was read last, and whose figures are told.
        self._read: dict[str, tuple[float, frozenset[str]]] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._told)

    @property
    def number(self) -> int:
        """Of the last gathering that found something."""
        return self._number

    def gather(self, hosts: Iterable[HostState], now: Now) -> bool:
        """Takes what nodes sent since the last time. Whether there is anything to tell."""
        number = self._number + 1
        read: dict[str, tuple[float, frozenset[str]]] = {}
        gone: set[str] = set()
        for host in hosts:
            if host.life is not Life.ONLINE:
                continue
            before = self._read.get(host.host_id)
            if before is not None and before[0] == host.load_at:
                read[host.host_id] = before
                continue
            names = self._take(host, now, number)
            read[host.host_id] = host.load_at, names
            if before is not None:
                gone |= before[1] - names
        for host_id in self._read.keys() - read.keys():
            gone |= self._read[host_id][1]
        for name in gone:
            self._told.pop(name, None)
        self._read = read
        return self._number == number

    def _take(self, host: HostState, now: Now, number: int) -> frozenset[str]:
        names: list[str] = []
        for load in host.brief_load():
            name = load.service
            if name not in host.services:
                continue
            names.append(name)
            at = host.load_at - (load.age_seconds or 0.0)
            told = self._told.get(name)
            if told is None or at - told.at >= self._refresh or _figures(told.load) != _figures(load):
                # Put in anew, so that it stands last.
                self._told.pop(name, None)
                self._told[name] = _Told(load, at, number)
                self._number = number
        return frozenset(names)

    def since(self, number: int, now: Now) -> list[ServiceLoad]:
        """What was found after the gathering of this number, with its age. Newest first."""
        found = []
        for told in reversed(self._told.values()):
            if told.number <= number:
                break
            found.append(msgspec.structs.replace(told.load, age_seconds=max(0.0, now.mono - told.at)))
        return found


def _figures(load: ServiceLoad) -> tuple[object, ...]:
    """Without its age."""
    return load.running, load.queued, load.relayed, load.assets
