"""Tells which models need more engines: `python examples/autoscale.py [HOST:PORT]`. Ctrl-C ends it.

A real auto-scaler would start an engine where this prints a line, and stop one that is idle; GenieHive finds it by
itself. The load comes from control, summed over all gateways. Address and key are found as in inventory.py.
"""

import asyncio
import sys

import geniehive
from geniehive.failures import Refused
from geniehive.kit.errors import UserError
from geniehive.v1.registry_service_pb2 import WatchLoadResponse
from geniehive.v1.request_pb2 import Operation

# So many messages in a row must say the same: one moment's queue is no reason to start an engine.
PATIENCE = 3


class Scaler:
    """Decides by what each name has under way: requests that wait at the gateways, or none at all."""

    def __init__(self, patience: int = PATIENCE) -> None:
        self._patience = patience
        # By name: for how many messages requests have waited there; less than zero: nothing was asked.
        self._streaks: dict[tuple[str, int], int] = {}

    def decide(self, load: WatchLoadResponse) -> list[str]:
        """What to do after this message."""
        found = {(route.model, int(route.operation)): route for route in load.routes}
        lines = []
        for name in sorted({*found, *self._streaks}):
            route = found.get(name)
            waiting, busy = (route.waiting, route.in_flight) if route is not None else (0, 0)
            streak = self._streaks.get(name, 0)
            if waiting:
                streak = max(0, streak) + 1
            elif busy:
                streak = 0
            else:
                streak = min(0, streak) - 1
            self._streaks[name] = streak
            words = f"{name[0]} ({Operation.Name(name[1]).removeprefix('OPERATION_').lower()})"  # type: ignore[arg-type]
            if streak == self._patience:
                lines.append(f"+ {words}: {waiting} waiting, {busy} in flight; start an engine")
            elif streak == -self._patience:
                lines.append(f"- {words}: idle; stop one")
                del self._streaks[name]
        return lines


async def watch(control: str | None = None, interval: float = 1.0) -> None:
    scaler = Scaler()
    async with geniehive.connect(control) as hive, hive.watch_load(interval) as messages:
        async for load in messages:
            for line in scaler.decide(load):
                print(line, flush=True)


def main(control: str | None = None) -> int:
    try:
        asyncio.run(watch(control))
    except KeyboardInterrupt:
        return 130
    except (Refused, UserError) as error:
        print(f"autoscale: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
