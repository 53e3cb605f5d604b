"""Control, gateway and node of this machine under one supervisor: what `geniehive up` runs.

The node looks for engines first. It was told from the start where a demonstration engine would be; if its first look
finds no model to chat with, that engine is started, and the node sees it like any other.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geniehive._version import __version__
from geniehive.cli import banner, credentials, output, ports, probe
from geniehive.kit import notices, state
from geniehive.kit.errors import EXIT_FAILED, EXIT_USAGE, UserError
from geniehive.kit.http1 import Client, Origin
from geniehive.kit.lifecycle import Stop
from geniehive.kit.lock import FileLock, Locked
from geniehive.kit.supervise import Child, Ended, Event, Noticed, Supervisor
from geniehive.kit.tasks import Tasks

# In this order, with the seconds that each has for it: a gateway's clients get answers while the rest still stands.
_STOPS = {"gateway": 5.0, "node": 2.0, "demo": 1.0, "control": 3.0}
_DRAIN_SECONDS = 4.0
# What is left of a run that was killed ends by itself within this time.
_LEFTOVER_SECONDS = 10.0
# After this long without everything being up, the user is told what is missing.
_PATIENCE_SECONDS = 15.0
_MODELS_SECONDS = 20.0


@dataclass(frozen=True)
class Plan:
    """What to run. addresses: by flag, as up.ADDRESSES names them. engines, providers: as the node's settings."""

    state: Path
    addresses: Mapping[str, str]
    engines: tuple[Mapping[str, Any], ...] = ()
    providers: tuple[Mapping[str, Any], ...] = ()
    embedded: Literal["auto", "never", "always"] = "auto"
    verbose: bool = False
    as_json: bool = False


class Hive:
    def __init__(self, plan: Plan, stop: Stop) -> None:
        self._plan = plan
        self._stop = stop
        self._addresses: dict[str, str] = {}
        self._heard: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._changed = asyncio.Event()
        self._fatal: UserError | None = None
        self._supervisor: Supervisor
        # Why there is no demonstration engine though there should be one.
        self._demo_trouble = ""
        self._demo_decided = False

    async def run(self) -> None:
        """Until told to stop. UserError if it can't start, or can't go on."""
        folder = self._plan.state
        async with AsyncExitStack() as stack:
            killed = credentials.read_up(folder) != {}
            try:
                stack.enter_context(FileLock(folder / "up.lock"))
            except Locked:
                raise self._running_already() from None
            except OSError as error:
                raise UserError(f"cannot lock {folder}: {error.strerror}. Choose another: --state-dir DIR") from error
            await self._settle_addresses(patient=killed)
            for name, prefix in (("node.key", "ghn"), ("admin.key", "gha"), ("client.key", "ghc")):
                state.local_secret(folder / name, prefix)
            self._write_up_file()
            stack.callback((folder / credentials.UP_FILE).unlink, missing_ok=True)
            self._listen_for_hangup()
            self._supervisor = await stack.enter_async_context(Supervisor(self._on_event))
            await self._live()
        if self._fatal is not None:
            raise self._fatal

    async def _live(self) -> None:
        """From the start of the children to the end of the last one."""
        self._say("starting control, gateway and node" + self._where_logs_are())
        for child in self._children():
            self._supervisor.start(child)
        if self._plan.embedded == "always":
            self._start_demo()
        tasks = Tasks()
        try:
            tasks.start(self._wake_on_stop(), "stop")
            tasks.start(self._announce(), "announce")
            for failed in (tasks.failed, self._supervisor.failed):
                failed.add_done_callback(self._on_bug)
            await self._until(lambda: self._stop.asked or self._fatal is not None)
        finally:
            await tasks.close()
        self._say("stopping")
        for name in _STOPS:
            await self._supervisor.stop(name)

    # Before the start.

    def _running_already(self) -> UserError:
        found = credentials.read_up(self._plan.state)
        where = f" (process {found['pid']}, {found['gateway']})" if {"pid", "gateway"} <= found.keys() else ""
        return UserError(
            f"`geniehive up` runs already with the state folder {self._plan.state}{where}. "
            "Stop that one first, or give this one a folder and ports of its own: --state-dir DIR --listen ADDR ..."
        )

    async def _settle_addresses(self, patient: bool) -> None:
        wanted = dict(self._plan.addresses)
        demo = wanted.pop("--embedded-listen")
        waits = self._loop_time() + _LEFTOVER_SECONDS if patient else 0.0
        self._addresses = ports.settle(wanted)
        for flag, text in self._addresses.items():
            while True:
                try:
                    ports.check(flag, text)
                    break
                except ports.InUse:
                    if self._stop.asked or self._loop_time() > waits:
                        raise
                await asyncio.sleep(0.1)
        if self._plan.embedded == "never":
            return
        # Nobody need know where the demonstration engine is, so it yields to whatever has its usual port.
        try:
            ports.check("--embedded-listen", demo)
        except ports.InUse:
            demo = f"{demo.rpartition(':')[0]}:0"
        self._addresses = ports.settle({**self._addresses, "--embedded-listen": demo})

    @staticmethod
    def _loop_time() -> float:
        return asyncio.get_running_loop().time()

    def _write_up_file(self) -> None:
        content = {
            "version": __version__,
            "pid": os.getpid(),
            "control": self._control_address,
            "gateway": self._gateway_url,
        }
        file = self._plan.state / credentials.UP_FILE
        try:
            state.write_private(file, json.dumps(content).encode())
        except OSError as error:
            raise UserError(f"cannot write {file}: {error.strerror}. Choose another folder: --state-dir DIR") from error

    @property
    def _gateway_url(self) -> str:
        return f"http://{ports.for_clients(self._addresses['--listen'])}"

    @property
    def _control_address(self) -> str:
        return ports.for_clients(self._addresses["--control-listen"])

    def _listen_for_hangup(self) -> None:
        """The end of the terminal stops us in order, unless we were told to outlive it (nohup)."""
        if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._stop.ask, "SIGHUP")

    # Children.

    def _log_file(self, name: str) -> Path | None:
        return None if self._plan.verbose else self._plan.state / "logs" / f"{name}.log"

    def _log_of(self, name: str) -> str:
        file = self._log_file(name)
        return "" if file is None else f"; its log is {file}"

    def _children(self) -> list[Child]:
        at = self._addresses
        control = self._control_address
        engines = [dict(e) for e in self._plan.engines]
        if "--embedded-listen" in at:
            engines.append(
                {
                    "name": "demo",
                    "url": f"http://{at['--embedded-listen']}",
                    "runtime": "llamacpp",
                    "demo": True,
                    "operations": ["chat", "completions", "embeddings"],
                }
            )
        node: dict[str, Any] = {"control": control, "relay.listen": at["--relay-listen"]}
        if engines:
            node["engines+"] = engines
        if self._plan.providers:
            node["providers+"] = list(self._plan.providers)
        return [
            self._daemon("control", "geniehive_control", {"listen": at["--control-listen"]}),
            self._daemon(
                "gateway", "gateway", {"listen": at["--listen"], "control": control, "drain_timeout": _DRAIN_SECONDS}
            ),
            self._daemon("node", "geniehive_node", node),
        ]

    def _daemon(self, name: str, module: str, settings: Mapping[str, Any]) -> Child:
        # JSON is YAML, and quoted: "[::1]:8800" would be a list.
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
        return self._child(name, module, "--state-dir", str(self._plan.state), *sets)

    def _child(self, name: str, module: str, *arguments: str) -> Child:
        # -P: a folder "gateway" where the user happens to be is not ours.
        return Child(
            name, (sys.executable, "-P", "-m", module, *arguments), log=self._log_file(name), grace=_STOPS[name]
        )

    def _start_demo(self) -> None:
        from geniehive_node import demo

        self._demo_decided = True
        trouble = demo.available()
        if trouble is not None:
            self._demo_trouble = trouble
            return
        host, _, port = self._addresses["--embedded-listen"].rpartition(":")
        self._supervisor.start(self._child("demo", "geniehive_node.demo", "--host", host.strip("[]"), "--port", port))

    # Events.

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Noticed):
            self._heard[event.name, event.notice["notice"]] = event.notice
            if event.notice["notice"] == "first_look" and not self._demo_decided:
                self._decide_demo(event.notice)
        elif isinstance(event, Ended) and not event.asked:
            self._on_end(event)
        self._changed.set()

    def _decide_demo(self, notice: Mapping[str, Any]) -> None:
        # Only the first look counts: an engine that fails later is no reason for another one.
        self._demo_decided = True
        if self._plan.embedded == "auto" and not notice.get("chat_models"):
            self._start_demo()

    def _on_end(self, event: Ended) -> None:
        told = f"{event.name} {event.why}"
        if event.restart_in is not None:
            self._warn(f"{told}; starting it again{self._log_of(event.name)}", event.lines if _has_words(event) else ())
            # It will tell anew.
            for key in [k for k in self._heard if k[0] == event.name]:
                del self._heard[key]
        elif event.name == "demo":
            self._demo_trouble = _reason(event)
        elif event.name == "node" and self._is_up:
            self._warn(f"{told}, and stays away; everything else runs on{self._log_of(event.name)}", event.lines)
        elif self._fatal is None:
            self._fatal = UserError(_reason(event), event.code or EXIT_USAGE)

    @property
    def _is_up(self) -> bool:
        return ("up", "announced") in self._heard

    def _on_bug(self, failed: "asyncio.Future[BaseException]") -> None:
        if not failed.cancelled() and self._fatal is None:
            self._fatal = UserError(f"stopped by an error that nothing expected: {failed.result()!r}", EXIT_FAILED)
            self._changed.set()

    # Telling.

    def _missing(self) -> list[str]:
        """What is still to come before the user can be told how to use it."""
        wanted = {
            ("control", "ready"): "control listens",
            ("gateway", "serving"): "the gateway has its routing table",
            ("node", "first_look"): "the node has looked for engines",
            ("node", "registered"): "the node is registered",
        }
        missing = [what for key, what in wanted.items() if key not in self._heard]
        if self._supervisor.keeps("demo") and ("demo", "ready") not in self._heard:
            missing.append("the demo engine has loaded its model")
        return missing

    async def _announce(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._until(lambda: not self._missing())
        except TimeoutError:
            self._warn(f"not up yet; waiting until {', '.join(self._missing())}")
            await self._until(lambda: not self._missing())
        key = state.local_secret(self._plan.state / "client.key", "ghc")
        models = await self._models(key)
        self._heard["up", "announced"] = {}
        self._show(key, models)
        notices.send("ready", daemon="up", url=self._gateway_url, control=self._control_address)

    @property
    def _look(self) -> Mapping[str, Any]:
        """What the node's first look found."""
        return self._heard.get(("node", "first_look"), {})

    async def _models(self, key: str) -> list[banner.Model]:
        """What the gateway lists, once there is a model to chat with, if one is to be expected."""
        expected = self._supervisor.keeps("demo") or bool(self._look.get("chat_models"))
        origin = Origin.parse(self._gateway_url)
        models: list[banner.Model] = []
        client = Client()
        try:
            async with asyncio.timeout(_MODELS_SECONDS):
                if self._heard.get(("gateway", "serving"), {}).get("source") == "kept":
                    await probe.until_current(self._control_address, self._plan.state)
                while True:
                    models = await probe.models(client, origin, key)
                    if not expected or banner.to_show(models) is not None:
                        return models
                    await asyncio.sleep(probe.PAUSE)
        except TimeoutError:
            self._warn("no model to chat with is routed to yet; `geniehive status` says why")
            return models
        finally:
            await client.close()

    def _show(self, key: str, models: Sequence[banner.Model]) -> None:
        if self._plan.as_json:
            content = {
                "gateway": self._gateway_url,
                "base_url": f"{self._gateway_url}/v1",
                "control": self._control_address,
                "key": key,
                "state_dir": str(self._plan.state),
                "models": [m.name for m in models],
                "demo_trouble": self._demo_trouble or None,
                "engine_troubles": self._look.get("troubles") or {},
            }
            print(json.dumps(content, ensure_ascii=False), flush=True)
            return
        notes = []
        if self._demo_trouble:
            notes.append(f"The demo engine could not be started: {self._demo_trouble}")
        troubles = self._look.get("troubles") or {}
        for where, why in troubles.items():
            told = why if why.startswith(where) else f"{where} {why}"
            notes.append(f"{told}.\nIt is looked at again and again, and used as soon as it can be.")
        if banner.to_show(models) is None and not troubles:
            notes.append(
                "No model to chat with was found. Start an engine on this machine, such as Ollama, and it is found by "
                "itself;\nor name one: geniehive up --engine URL"
            )
        print(banner.text(self._gateway_url, key, str(self._plan.state), models, notes), flush=True)

    def _where_logs_are(self) -> str:
        return "" if self._plan.verbose else f"; logs are in {self._plan.state / 'logs'}"

    def _say(self, text: str) -> None:
        print(f"geniehive: {text}", file=sys.stderr, flush=True)

    def _warn(self, text: str, lines: Sequence[str] = ()) -> None:
        output.warn(text)
        for line in lines:
            print(f"    {output.clean(line)}", file=sys.stderr, flush=True)

    # Waiting.

    async def _wake_on_stop(self) -> None:
        await self._stop.wait()
        self._changed.set()

    async def _until(self, check: Callable[[], bool]) -> None:
        while not check():
            self._changed.clear()
            await self._changed.wait()


def _has_words(event: Ended) -> bool:
    """Whether the end of its log says why: somebody else's signal leaves nothing there."""
    return event.code not in (-signal.SIGTERM, -getattr(signal, "SIGKILL", signal.SIGTERM))


def _reason(event: Ended) -> str:
    """What a child that stays away said last, in its own words if it had some for us."""
    said = [line.removeprefix("geniehive: ") for line in event.lines if line.startswith("geniehive: ")]
    if said:
        return said[-1]
    return "\n    ".join((f"{event.name} {event.why}", *event.lines))
