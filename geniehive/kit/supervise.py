"""Child processes: started, restarted with back-off, stopped in order, never left behind.

A `Supervisor` keeps each `Child` running until it is told to stop it, or until the child ends with one of
EXITS_FOR_GOOD. What happens is told to the owner by events. Children run in a session of their own, so that Ctrl-C
reaches the supervisor alone, and their standard input is a pipe that ends with the supervisor, however that ends.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from geniehive.kit import lifecycle, notices
from geniehive.kit.backoff import Backoff
from geniehive.kit.errors import EXITS_FOR_GOOD
from geniehive.kit.tasks import Tasks

# A log larger than this when its child starts is set aside as "NAME.log.1".
MAX_LOG_BYTES = 5 * 1024 * 1024
_LAST_LINES = 8
_LAST_BYTES = 8192
# What a child wrote last is read for so long.
LAST_WORDS_SECONDS = 1.0


@dataclass(frozen=True)
class Child:
    """A process to keep running.

    environment: added to this process's own. log: its standard error is appended there; None: it shares ours.
    grace: seconds from being asked to stop until it is killed.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    grace: float = 10.0


@dataclass(frozen=True)
class Started:
    name: str
    pid: int


@dataclass(frozen=True)
class Noticed:
    """A notice of the child, as kit.notices has it: always with a key "notice"."""

    name: str
    notice: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """A child is gone, or could not be started.

    code: as in subprocess, negative for a signal; None if it could not be started, then `why` says so.
    restart_in: seconds; None: it stays away, because it was asked to or ended for good.
    lines: the last ones it wrote to its log, if it has one.
    """

    name: str
    code: int | None
    why: str
    restart_in: float | None
    asked: bool
    lines: tuple[str, ...] = ()


Event = Started | Noticed | Ended


class Supervisor:
    """Owns children. Use `async with`: what still runs at the end is killed.

    on_event: called for each event, in order per child; must not block.
    restart_delays: makes the back-off of one child; its first delay is what a killed child costs its users.
    healthy_after: seconds a child must have run for the delays to begin anew.
    """

    def __init__(
        self,
        on_event: Callable[[Event], None],
        *,
        restart_delays: Callable[[], Backoff] = lambda: Backoff(first=0.2, longest=10.0),
        healthy_after: float = 10.0,
    ) -> None:
        self._on_event = on_event
        self._restart_delays = restart_delays
        self._healthy_after = healthy_after
        self._kept: dict[str, _Kept] = {}
        self._tasks = Tasks()

    async def __aenter__(self) -> "Supervisor":
        return self

    async def __aexit__(self, *_: object) -> None:
        for kept in self._kept.values():
            kept.stop.set()
            kept.kill()
        # Not cancelled: a child that is just being started is killed as soon as it has a pid.
        await asyncio.gather(*(kept.task for kept in self._kept.values()), return_exceptions=True)
        await self._tasks.close()

    @property
    def failed(self) -> "asyncio.Future[BaseException]":
        """Set if the supervisor itself has failed, and a child is no longer kept."""
        return self._tasks.failed

    def start(self, child: Child) -> None:
        """Starts a child, and keeps it. ValueError if one of that name is kept."""
        if self.keeps(child.name):
            raise ValueError(f"{child.name} is kept already")
        kept = _Kept(child)
        self._kept[child.name] = kept
        kept.task = self._tasks.start(self._keep(kept), f"keep {child.name}")

    def keeps(self, name: str) -> bool:
        """Whether a child of that name runs, or will be started again."""
        kept = self._kept.get(name)
        return kept is not None and not kept.task.done()

    def pid(self, name: str) -> int | None:
        kept = self._kept.get(name)
        return kept.process.pid if kept is not None and kept.process is not None else None

    async def stop(self, name: str) -> None:
        """Asks a child to stop, kills it after its grace, and returns when it is gone."""
        kept = self._kept.get(name)
        if kept is None:
            return
        kept.stop.set()
        kept.ask()
        done, _ = await asyncio.wait({kept.task}, timeout=kept.child.grace)
        if not done:
            kept.kill()
            await asyncio.wait({kept.task})

    async def _keep(self, kept: "_Kept") -> None:
        child = kept.child
        delays = self._restart_delays()
        loop = asyncio.get_running_loop()
        while not kept.stop.is_set():
            begun = loop.time()
            code: int | None = None
            with _Log(child.log) as log:
                try:
                    process = await _spawn(child, log.file)
                except OSError as error:
                    why = f"could not be started: {error}"
                else:
                    code = await self._attend(kept, process, log)
                    why = _describe(code)
                lines = log.last_lines()
            asked = kept.stop.is_set()
            if loop.time() - begun >= self._healthy_after:
                delays.reset()
            restart_in = None if asked or code in EXITS_FOR_GOOD else delays.next()
            self._on_event(Ended(child.name, code, why, restart_in, asked, lines))
            if restart_in is None:
                return
            await _either(kept.stop, restart_in)

    async def _attend(self, kept: "_Kept", process: asyncio.subprocess.Process, log: "_Log") -> int:
        """From the start of a process to its end; its exit code."""
        kept.process = process
        reader = asyncio.create_task(self._read(kept.child.name, process, log), name=f"read {kept.child.name}")
        try:
            self._on_event(Started(kept.child.name, process.pid))
            if kept.stop.is_set():
                # Told to stop, or to be killed, while it was being started.
                kept.ask()
            code = await process.wait()
            # What it wrote last is still in the pipe; a grandchild that holds it open must not hold us.
            await asyncio.wait({reader}, timeout=LAST_WORDS_SECONDS)
            return code
        finally:
            kept.process = None
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            if process.stdin is not None:
                process.stdin.close()
            if process.returncode is None:
                # Only if the owner's event handler failed.
                _signal(process.kill)
                await process.wait()

    async def _read(self, name: str, process: asyncio.subprocess.Process, log: "_Log") -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                # Longer than any notice; asyncio has dropped it.
                continue
            if not line:
                return
            notice = notices.parse(line)
            if notice is not None:
                self._on_event(Noticed(name, notice))
            else:
                log.write(line)


class _Kept:
    """A child and what is known of it now."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.stop = asyncio.Event()
        self.process: asyncio.subprocess.Process | None = None
        self.task: asyncio.Task[None]
        self._killed = False

    def ask(self) -> None:
        if self._killed:
            self.kill()
        elif self.process is not None:
            if sys.platform == "win32":
                # terminate() there ends a process on the spot; the end of its input lets it stop in order.
                assert self.process.stdin is not None
                self.process.stdin.close()
            else:
                _signal(self.process.terminate)

    def kill(self) -> None:
        self._killed = True
        if self.process is not None:
            _signal(self.process.kill)


class _Log:
    """Where one run of a child writes: its log file, or our standard error."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._begin = 0
        self.file: BinaryIO | None = None

    def __enter__(self) -> "_Log":
        if self._path is not None:
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self._path.exists() and self._path.stat().st_size > MAX_LOG_BYTES:
                    os.replace(self._path, self._path.with_name(self._path.name + ".1"))
                self.file = open(self._path, "ab")
                self._begin = self.file.tell()
            except OSError as error:
                # A log that can't be written keeps nothing from running.
                print(f"geniehive: cannot write the log {self._path}: {error}", file=sys.stderr)
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()

    def write(self, line: bytes) -> None:
        target = self.file or sys.stderr.buffer
        try:
            target.write(line)
            target.flush()
        except (OSError, ValueError):
            pass

    def last_lines(self) -> tuple[str, ...]:
        if self._path is None or self.file is None:
            return ()
        try:
            with open(self._path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._begin, size - _LAST_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ()
        return tuple(text.splitlines()[-_LAST_LINES:])


async def _spawn(child: Child, log: BinaryIO | None) -> asyncio.subprocess.Process:
    environment = {
        **os.environ,
        notices.VARIABLE: "1",
        lifecycle.STDIN_VARIABLE: "1",
        **child.environment,
    }
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return await asyncio.create_subprocess_exec(
        *child.argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        env=environment,
        **apart,
    )


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except ProcessLookupError:
        pass


def _describe(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, but no longer than that."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
