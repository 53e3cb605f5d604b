"""How a daemon starts, is told to stop, and ends.

`run` owns the event loop of a process: SIGTERM, SIGINT (and, under a supervisor, the end of standard input) set
`Stop`; the daemon's coroutine returns when it has stopped in order. A UserError ends the process with its text and exit
code and no traceback.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable

from geniehive.kit.errors import EXIT_FAILED, EXIT_OK, UserError

log = logging.getLogger(__name__)

# Set by a supervisor: the daemon ends when its standard input does, so that it never outlives who started it.
STDIN_VARIABLE = "GENIEHIVE_STOP_AT_STDIN_END"


class Stop:
    """Asked to stop, or not yet."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.cause = ""

    def ask(self, cause: str) -> None:
        if not self._event.is_set():
            self.cause = cause
            self._event.set()

    @property
    def asked(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        await self._event.wait()


def run(main: Callable[[Stop], Awaitable[None]]) -> int:
    """Runs `main` to its end and gives the exit code of the process."""

    async def supervised() -> None:
        stop = Stop()
        _listen(stop)
        await main(stop)

    try:
        # A daemon has a connection for every peer, and the usual limit is 1024.
        allow_many_files()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(supervised())
    except UserError as error:
        return show(error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception:
        log.exception("stopping after an error that nothing expected")
        return EXIT_FAILED
    return EXIT_OK


def show(error: UserError) -> int:
    """Tells the user, and gives the exit code."""
    print(f"geniehive: {error}", file=sys.stderr)
    return error.exit_code


def settle() -> None:
    """Called when a daemon has built what it keeps: the collector need not look at that again."""
    gc.collect()
    gc.freeze()
    # More objects than some hundred requests under way have: these are no garbage, and would be looked at for nothing.
    gc.set_threshold(50_000, 20, 50)


def allow_many_files(wanted: int = 65536) -> int | None:
    """Raises the limit of open files, connections among them, towards `wanted`, and gives it. None: there is none."""
    try:
        import resource
    except ImportError:  # on Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return most
        except (OSError, ValueError) as error:
            log.debug("the limit of open files stays at %d: %s", soft, error)
    return None if soft == resource.RLIM_INFINITY else soft


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _listen(stop: Stop) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.ask, signal.Signals(number).name)
        except NotImplementedError:
            # Windows: the handler runs in the main thread between byte codes.
            signal.signal(number, lambda n, _: loop.call_soon_threadsafe(stop.ask, signal.Signals(n).name))
    if os.environ.get(STDIN_VARIABLE) == "1":
        threading.Thread(target=_await_stdin_end, args=(loop, stop), name="stdin", daemon=True).start()


def _await_stdin_end(loop: asyncio.AbstractEventLoop, stop: Stop) -> None:
    try:
        # Unbuffered: a daemon thread that holds the lock of sys.stdin would break the interpreter's exit.
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    try:
        loop.call_soon_threadsafe(stop.ask, "the supervisor ended")
    except RuntimeError:
        pass
