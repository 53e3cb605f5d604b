"""What is under way at gateways, by name: the newest word of each process, while its stream stands and it goes on."""

from collections.abc import Mapping

from geniehive_control.core.usage import Who

# Model and operation -> in flight, waiting.
Routes = Mapping[tuple[str, int], tuple[int, int]]


class Gauges:
    def __init__(self) -> None:
        self._told: dict[Who, tuple[str, float, Routes]] = {}

    def put(self, who: Who, stream_id: str, until: float, routes: Routes) -> None:
        """until: on the clock that only grows."""
        self._told[who] = stream_id, until, routes

    def drop(self, stream_id: str) -> None:
        """The stream has ended. What a newer one of the same process told stays."""
        for who in [who for who, told in self._told.items() if told[0] == stream_id]:
            del self._told[who]

    def routes(self, now: float) -> dict[tuple[str, int], tuple[int, int]]:
        """Summed, by model and operation."""
        found: dict[tuple[str, int], tuple[int, int]] = {}
        for _, until, routes in self._told.values():
            if until < now:
                continue
            for name, (in_flight, waiting) in routes.items():
                flying, held = found.get(name, (0, 0))
                found[name] = flying + in_flight, held + waiting
        return dict(sorted(found.items()))
