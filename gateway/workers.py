"""Several processes that share one address, for machines whose gateway needs more than one core.

The parent serves nothing: it takes the address, starts the workers, and starts one again that dies. Each worker listens
there by SO_REUSEPORT, so that the kernel shares connections out, and has a table and a stream to control of its own.
What they count is told as one by any of them: see `crew`.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Sequence

from gateway.crew import Parent
from geniehive.kit import address, notices
from geniehive.kit.errors import EXIT_FAILED, UserError
from geniehive.kit.lifecycle import Stop
from geniehive.kit.supervise import Child, Ended, Event, Noticed, Supervisor
from geniehive.kit.tasks import Tasks

log = logging.getLogger(__name__)

# Which worker a process is, from 0; set by the parent.
_NUMBER = "GENIEHIVE_GATEWAY_WORKER"
# Beyond the time to drain.
GRACE = 5.0
MOST = 64


def number() -> int | None:
    """Of the worker that this process is; None: it has the address for itself."""
    said = os.environ.get(_NUMBER, "")
    return int(said) if said.isdecimal() else None


def check(workers: int) -> None:
    """UserError for a number of workers that can't be."""
    if not 1 <= workers <= MOST:
        raise UserError(f"workers: {workers} must be 1 to {MOST}")
    if workers > 1 and not (sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT")):
        raise UserError("workers: more than 1 needs Linux, whose kernel shares connections out among processes")


async def serve(workers: int, listen: str, drain_timeout: float, stop: Stop, arguments: Sequence[str]) -> None:
    """Runs so many gateways at one address until told to stop. arguments: this process's own.

    UserError if the address can't be had, or a worker ends for a reason that the next one would meet, too.
    """
    with _taken(listen) as held:
        host, _ = address.split(listen)
        listen = address.join(host, held.getsockname()[1])
        crew, tasks = _Crew(workers), Tasks()
        async with Parent(workers) as parent, Supervisor(crew.heard) as supervisor:
            for worker in range(workers):
                argv = (sys.executable, "-m", "gateway", *arguments, "--set", f"listen={listen}")
                environment = {_NUMBER: str(worker), **parent.environment}
                grace = drain_timeout + GRACE
                supervisor.start(Child(f"worker {worker}", argv, environment, grace=grace))
            told = tasks.start(stop.wait(), "wait for the end")
            await asyncio.wait((told, crew.lost, supervisor.failed), return_when=asyncio.FIRST_COMPLETED)
            await tasks.close()
            if supervisor.failed.done():
                raise supervisor.failed.result()
            await asyncio.gather(*(supervisor.stop(f"worker {n}") for n in range(workers)))
    if crew.lost.done():
        raise UserError("a worker of the gateway ended for good; it said why", crew.lost.result())


def _taken(listen: str) -> socket.socket:
    """A socket that keeps the address for the workers, and takes no connections itself."""
    host, port = address.split(listen)
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # Without sharing: another gateway there is to be noticed, not joined.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
        held = socket.socket(family, kind)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(where)
    except OSError as error:
        raise UserError(
            f"the gateway cannot listen on {listen}: {error.strerror or error}. Stop what uses it, or choose another "
            "address: --set listen=HOST:PORT"
        ) from error
    return held


class _Crew:
    """What the workers tell, as one. lost: the exit code of one that will not be started again."""

    def __init__(self, workers: int) -> None:
        self.lost: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._workers = workers
        self._said: dict[str, set[str]] = {}

    def heard(self, event: Event) -> None:
        match event:
            case Noticed(name, notice):
                said = self._said.setdefault(notice["notice"], set())
                if name not in said:
                    said.add(name)
                    if len(said) == self._workers:
                        notices.send(notice["notice"], **{k: v for k, v in notice.items() if k != "notice"})
            case Ended(asked=False):
                log.error("%s %s", event.name, event.why)
                if event.restart_in is None and not self.lost.done():
                    self.lost.set_result(EXIT_FAILED if event.code is None else event.code)
