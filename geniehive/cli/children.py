"""Daemons of this machine as children under a supervisor: what `up` and `join` have alike.

One of the two at a time runs with a state folder: whoever comes second is told of the first.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from geniehive._version import __version__
from geniehive.cli import credentials, output, ports
from geniehive.kit import state
from geniehive.kit.errors import EXIT_FAILED, EXIT_USAGE, UserError
from geniehive.kit.lifecycle import Stop
from geniehive.kit.lock import FileLock, Locked
from geniehive.kit.supervise import Child, Ended, Event, Noticed, Supervisor
from geniehive.kit.tasks import Tasks

LOCK_FILE = "up.lock"
# In this order, with the seconds that each has for it: a gateway's clients get answers while the rest still stands. One
# with workers waits for them for some seconds longer than they have to drain, and must not be killed before.
STOPS = {"gateway": 11.0, "node": 2.0, "demo": 1.0, "control": 3.0}
# For the gateway's setting drain_timeout. It then reports what it counted last.
DRAIN_SECONDS = 4.0
# What is left of a run that was killed ends by itself within this time.
LEFTOVER_SECONDS = 12.0
# After this long without everything being up, the user is told what is missing.
_PATIENCE_SECONDS = 15.0


@dataclass(frozen=True)
class Place:
    """Where children run. command: "up" or "join". verbose: their logs are shown, not kept in files."""

    state: Path
    command: str
    verbose: bool = False

    def log_file(self, name: str) -> Path | None:
        return None if self.verbose else self.state / "logs" / f"{name}.log"

    @property
    def where_logs_are(self) -> str:
        return "" if self.verbose else f"; logs are in {self.state / 'logs'}"


class Children:
    """Use `async with`; UserError if others run already. Then `start` them, and `live`.

    on_notice: called with a daemon's name and its notice. bears: asked about each daemon that stays away; True: the
    others can go on, and the user was told; else all end with its reason.
    heard: the last notice of each kind, by daemon and kind; what a daemon told is gone with it.
    """

    def __init__(
        self,
        place: Place,
        stop: Stop,
        on_notice: Callable[[str, Mapping[str, Any]], None],
        bears: Callable[[Ended], bool],
    ) -> None:
        self.place = place
        self.heard: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._stop = stop
        self._on_notice = on_notice
        self._bears = bears
        self._changed = asyncio.Event()
        self._fatal: UserError | None = None
        self._lock = FileLock(place.state / LOCK_FILE)
        self._up_file = place.state / credentials.UP_FILE
        # Whether the one before was killed, so that its children may still be about to end.
        self._killed = False
        self._told = False
        self._supervisor = Supervisor(self._on_event)

    async def __aenter__(self) -> Self:
        left = credentials.read_up(self.place.state)
        try:
            self._lock.__enter__()
        except Locked:
            raise self._running_already(left) from None
        except OSError as error:
            raise UserError(
                f"cannot lock {self.place.state}: {error.strerror}. Choose another: --state-dir DIR"
            ) from error
        self._killed = left != {}
        await self._supervisor.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._supervisor.__aexit__(kind, error, trace)
        finally:
            if self._told:
                self._up_file.unlink(missing_ok=True)
            self._lock.__exit__(kind, error, trace)

    def _running_already(self, found: Mapping[str, str]) -> UserError:
        shown = {"pid": "process {}", "gateway": "{}"}
        told = ", ".join(form.format(found[name]) for name, form in shown.items() if name in found)
        ours = self.place.command
        # One that is about to start has not told of itself yet.
        theirs = f"`geniehive {found['command']}`" if "command" in found else "another `geniehive up` or `join`"
        return UserError(
            f"{theirs} runs already with the state folder {self.place.state}"
            f"{f' ({told})' if told else ''}. Stop that one first, or give this `geniehive {ours}` a folder and ports "
            "of its own: --state-dir DIR --listen ADDR ..."
        )

    # Before the start.

    async def settle(self, wanted: Mapping[str, str], yielding: str | None = None) -> dict[str, str]:
        """Addresses by flag, each free, with a port for each 0. UserError names the flag.

        yielding: a flag whose address need not be what was asked for, since nobody need know it.
        """
        fixed = dict(wanted)
        yields = fixed.pop(yielding, None) if yielding is not None else None
        waits = _loop_time() + LEFTOVER_SECONDS if self._killed else 0.0
        settled = ports.settle(fixed)
        for flag, text in settled.items():
            while True:
                try:
                    ports.check(flag, text)
                    break
                except ports.InUse:
                    if self._stop.asked or _loop_time() > waits:
                        raise
                await asyncio.sleep(0.1)
        if yielding is None or yields is None:
            return settled
        try:
            ports.check(yielding, yields)
        except ports.InUse:
            yields = f"{yields.rpartition(':')[0]}:0"
        return ports.settle({**settled, yielding: yields})

    def write_up_file(self, **content: Any) -> None:
        """What other commands of this machine find the daemons by, while they run."""
        told = {"version": __version__, "command": self.place.command, "pid": os.getpid(), **content}
        try:
            state.write_private(self._up_file, json.dumps(told).encode())
            self._told = True
        except OSError as error:
            raise UserError(
                f"cannot write {self._up_file}: {error.strerror}. Choose another folder: --state-dir DIR"
            ) from error

    # Running.

    def daemon(self, name: str, module: str, settings: Mapping[str, Any]) -> None:
        """Starts a daemon with these settings, and keeps it running."""
        # JSON is YAML, and quoted: "[::1]:8800" would be a list.
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
        self.start(name, module, "--state-dir", str(self.place.state), *sets)

    def start(self, name: str, module: str, *arguments: str) -> None:
        # -P: a folder "gateway" where the user happens to be is not ours.
        argv = (sys.executable, "-P", "-m", module, *arguments)
        self._supervisor.start(Child(name, argv, log=self.place.log_file(name), grace=STOPS[name]))

    def keeps(self, name: str) -> bool:
        return self._supervisor.keeps(name)

    async def live(self, work: Coroutine[Any, Any, None]) -> None:
        """Until told to stop, or until a daemon stays away without which the rest is of no use: UserError says why.

        work: beside the children; its failure ends everything. All children are gone at the end.
        """
        self._listen_for_hangup()
        tasks = Tasks()
        try:
            tasks.start(self._wake_on_stop(), "stop")
            tasks.start(work, "work")
            for failed in (tasks.failed, self._supervisor.failed):
                failed.add_done_callback(self._on_bug)
            await self.until(lambda: self._stop.asked or self._fatal is not None)
        finally:
            await tasks.close()
        say("stopping")
        for name in STOPS:
            await self._supervisor.stop(name)
        if self._fatal is not None:
            raise self._fatal

    def _listen_for_hangup(self) -> None:
        """The end of the terminal stops us in order, unless we were told to outlive it (nohup)."""
        if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._stop.ask, "SIGHUP")

    async def until(self, check: Callable[[], bool]) -> None:
        """Until what is heard makes `check` true."""
        while not check():
            self._changed.clear()
            await self._changed.wait()

    async def until_none(self, missing: Callable[[], list[str]]) -> None:
        """Until nothing is missing; the user is told what is, if that takes long."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self.until(lambda: not missing())
        except TimeoutError:
            output.warn(f"not up yet; waiting until {', '.join(missing())}{self.place.where_logs_are}")
            await self.until(lambda: not missing())

    async def _wake_on_stop(self) -> None:
        await self._stop.wait()
        self._changed.set()

    # Events.

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Noticed):
            self.heard[event.name, event.notice["notice"]] = event.notice
            self._on_notice(event.name, event.notice)
        elif isinstance(event, Ended) and not event.asked:
            self._on_end(event)
        self._changed.set()

    def _on_end(self, event: Ended) -> None:
        if event.restart_in is not None:
            warn_of(event, "; starting it again", self.place, with_lines=_has_words(event))
            # It will tell anew.
            for key in [k for k in self.heard if k[0] == event.name]:
                del self.heard[key]
        elif not self._bears(event) and self._fatal is None:
            self._fatal = UserError(reason(event), event.code or EXIT_USAGE)

    def _on_bug(self, failed: "asyncio.Future[BaseException]") -> None:
        if failed.cancelled() or self._fatal is not None:
            return
        error = failed.result()
        if not isinstance(error, UserError):
            error = UserError(f"stopped by an error that nothing expected: {error!r}", EXIT_FAILED)
        self._fatal = error
        self._changed.set()


def say(text: str) -> None:
    print(f"geniehive: {text}", file=sys.stderr, flush=True)


def warn_of(event: Ended, what_next: str, place: Place, *, with_lines: bool = True) -> None:
    """Tells the user of a daemon that ended."""
    file = place.log_file(event.name)
    output.warn(f"{event.name} {event.why}{what_next}{f'; its log is {file}' if file else ''}")
    for line in event.lines if with_lines else ():
        print(f"    {output.clean(line)}", file=sys.stderr, flush=True)


def trouble_notes(troubles: Mapping[str, str]) -> Sequence[str]:
    """What keeps engines that the user named from being used, as paragraphs."""
    return [
        f"{why if why.startswith(where) else f'{where} {why}'}.\n"
        "It is looked at again and again, and used as soon as it can be."
        for where, why in troubles.items()
    ]


def _has_words(event: Ended) -> bool:
    """Whether the end of its log says why: somebody else's signal leaves nothing there."""
    return event.code not in (-signal.SIGTERM, -getattr(signal, "SIGKILL", signal.SIGTERM))


def reason(event: Ended) -> str:
    """What a child that stays away said last, in its own words if it had some for us."""
    said = [line.removeprefix("geniehive: ") for line in event.lines if line.startswith("geniehive: ")]
    if said:
        return said[-1]
    return "\n    ".join((f"{event.name} {event.why}", *event.lines))


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
