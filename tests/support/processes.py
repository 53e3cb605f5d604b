"""Real processes for system tests: started, told apart by their notices, and never left behind."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geniehive.kit import lifecycle, notices

ROOT = Path(__file__).resolve().parent.parent.parent


class Process:
    """A child with its notices and its log. Use `async with`; the child is killed at the end."""

    def __init__(
        self, name: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.arguments = [sys.executable, *arguments]
        self.log = folder / f"{name}.log"
        self._environment = {
            **os.environ,
            notices.VARIABLE: "1",
            lifecycle.STDIN_VARIABLE: "1",
            "PYTHONPATH": str(ROOT),
            **(environment or {}),
        }
        self._heard: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> "Process":
        self._heard.clear()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment,
                cwd=ROOT,
            )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aenter__(self) -> "Process":
        return self if self._process is not None else await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self.signal(signal.SIGCONT)
            self.kill()
            await self._process.wait()
        if self._reader is not None:
            await self._reader
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            notice = notices.parse(line)
            if notice is not None:
                async with self._changed:
                    self._heard.append(notice)
                    self._changed.notify_all()
        await self._process.wait()
        async with self._changed:
            self._changed.notify_all()

    async def notice(self, kind: str, within: float = 20.0) -> dict[str, Any]:
        """The first notice of that kind since the start. AssertionError with the log if it does not come."""

        def found() -> dict[str, Any] | None:
            return next((n for n in self._heard if n["notice"] == kind), None)

        try:
            async with asyncio.timeout(within), self._changed:
                while found() is None and self.running:
                    await self._changed.wait()
        except TimeoutError:
            pass
        heard = found()
        assert heard is not None, f"{self.name} sent no notice {kind!r}; its log:\n{self.text()}"
        return heard

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def signal(self, number: int) -> None:
        assert self._process is not None
        try:
            self._process.send_signal(number)
        except ProcessLookupError:
            pass

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    async def ended(self, within: float = 15.0) -> int:
        """The exit code. AssertionError with the log if it does not end."""
        assert self._process is not None
        try:
            async with asyncio.timeout(within):
                return await self._process.wait()
        except TimeoutError:
            raise AssertionError(f"{self.name} does not end; its log:\n{self.text()}") from None

    async def restart(self) -> None:
        """After its end: the same command again."""
        await self.close()
        await self.start()


async def until(what: str, check: Any, within: float = 10.0, every: float = 0.02) -> float:
    """Waits until the coroutine function `check` gives something true; the seconds it took. AssertionError if not."""
    start = time.monotonic()
    last: Any = None
    while time.monotonic() - start < within:
        last = await check()
        if last:
            return time.monotonic() - start
        await asyncio.sleep(every)
    raise AssertionError(f"not within {within} s: {what}; last seen: {last!r}")
