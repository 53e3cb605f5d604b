"""A control that a measurement has for itself, as a child process; nothing of it stays."""

import asyncio
import sys
from pathlib import Path
from typing import NamedTuple

import psutil

from geniehive.cli import credentials, daemons
from geniehive.client import connect
from geniehive.kit import address, state
from geniehive.kit.backoff import Backoff
from geniehive.kit.errors import EXIT_FAILED, UserError
from geniehive.kit.supervise import Child, Ended, Event, Noticed, Started, Supervisor
from geniehive.v1.admin_service_pb2 import CreateJoinTokenRequest


class Usage(NamedTuple):
    """cpu: seconds. rss: bytes."""

    cpu: float
    rss: int


class ThrowAwayControl:
    """Use `async with`. tls: it also listens with TLS, on loopback, for machines that join."""

    def __init__(self, folder: Path, tls: bool) -> None:
        self.folder = folder
        self.target = f"127.0.0.1:{address.free_port()}"
        self.tls_target = f"127.0.0.1:{address.free_port()}" if tls else None
        self.pid = 0
        self._supervisor = Supervisor(self._on_event, restart_delays=lambda: Backoff(first=0.05, longest=1.0))
        self._ready = asyncio.Event()
        self._failure = ""

    async def __aenter__(self) -> "ThrowAwayControl":
        # Said here, so that no setting of the environment leads to a real cluster's database or keys.
        sets = [f"listen={self.target}", "database_url=null"]
        sets += ["auth.require=true", "auth.client_keys=null", "auth.node_keys=null"]
        if self.tls_target is not None:
            sets += [f"tls.listen={self.tls_target}", f"tls.peers_port={address.free_port()}"]
        options = ["--state-dir", str(self.folder), *(part for s in sets for part in ("--set", s))]
        await self._supervisor.__aenter__()
        argv = (sys.executable, "-m", daemons.MODULES["control"], *options)
        self._supervisor.start(Child("control", argv, log=self.folder / "control.log"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._supervisor.stop("control")
        await self._supervisor.__aexit__()

    def _on_event(self, event: Event) -> None:
        match event:
            case Started():
                self.pid = event.pid
            case Noticed() if event.notice["notice"] == "ready":
                self._ready.set()
            case Ended() if event.restart_in is None and not event.asked:
                self._failure = "\n".join((f"control {event.why}", *event.lines))
                self._ready.set()

    async def ready(self) -> None:
        """Until it serves. UserError if it can't."""
        try:
            async with asyncio.timeout(30.0):
                await self._ready.wait()
        except TimeoutError:
            raise UserError("the control of the simulation does not start", EXIT_FAILED) from None
        if self._failure:
            raise UserError(self._failure, EXIT_FAILED)

    def kill(self) -> None:
        """It is started again by itself."""
        self._ready.clear()
        psutil.Process(self.pid).kill()

    def usage(self) -> Usage:
        process = psutil.Process(self.pid)
        times = process.cpu_times()
        return Usage(times.user + times.system, process.memory_info().rss)

    @property
    def link(self) -> credentials.Link:
        return credentials.Link(self.target, state.read_secret(self.folder / "admin.key"), "its state folder")

    async def token(self, uses: int) -> str:
        """A new join token."""
        async with connect(self.target, key=self.link.key) as hive:
            return (await hive.admin.CreateJoinToken(CreateJoinTokenRequest(uses=uses))).token
