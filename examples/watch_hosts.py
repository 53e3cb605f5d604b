"""Prints hosts as they come, change and go: `python examples/watch_hosts.py [HOST:PORT]`. Ctrl-C ends it.

It goes on by itself when control restarts. Address and key are found as in inventory.py.
"""

import asyncio
import sys

import geniehive
from geniehive.client import Changed, Event, Removed, Resync, Synced
from geniehive.failures import Refused
from geniehive.kit.errors import UserError
from geniehive.v1.registry_pb2 import Availability
from geniehive.v1.registry_service_pb2 import HostView, ObjectKind


class Board:
    """The hosts as they are known, and what to say when that changes."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}

    def lines(self, event: Event) -> list[str]:
        """What an event means for somebody who reads along."""
        match event:
            case Changed(name=name, object=HostView() as view):
                state = Availability.Name(view.condition.availability).removeprefix("AVAILABILITY_").lower()
                if view.condition.detail:
                    state += f" ({view.condition.detail})"
                before, self.states[name] = self.states.get(name), state
                if before == state:
                    return []  # something that is not shown here
                return [f"{name}: {state}" if before is None else f"{name}: {before} -> {state}"]
            case Removed(name=name):
                self.states.pop(name, None)
                return [f"{name}: forgotten"]
            case Synced():
                return [f"-- {len(self.states)} hosts"]
            case Resync(cause=cause):
                return [f"-- control is away ({cause.message}); what stands above may be old"]
        return []


async def watch(control: str | None = None) -> None:
    board = Board()
    async with geniehive.connect(control) as hive, hive.watch([ObjectKind.OBJECT_KIND_HOST]) as events:
        async for event in events:
            for line in board.lines(event):
                print(line, flush=True)


def main(control: str | None = None) -> int:
    try:
        asyncio.run(watch(control))
    except KeyboardInterrupt:
        return 130
    except (Refused, UserError) as error:
        print(f"watch_hosts: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
