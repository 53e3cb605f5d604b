"""A fake engine as a process of its own, which a test may kill, stop and start again."""

import asyncio
import json
import sys
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent.parent


class FakeProcess:
    """A fake engine as a process, which a test may kill, stop and start again on its port.

    async with FakeProcess("ollama", ["qwen3:8b"], name="A") as engine: ...
    """

    def __init__(
        self,
        runtime: str = "openai",
        models: Iterable[str] = ("test-model",),
        *,
        name: str = "X",
        key: str | None = None,
        port: int = 0,
    ) -> None:
        self.port = port
        self.name = name
        self._arguments = ["--runtime", runtime, "--models", ",".join(models), "--name", name]
        if key is not None:
            self._arguments += ["--key", key]
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts it, on the port it had if it had one, and returns when it serves."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.fake_engine",
            "--port",
            str(self.port),
            *self._arguments,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the fake engine {self.name} ended with {await self.process.wait()}")
        self.port = int(json.loads(line)["url"].rpartition(":")[2])

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        """kill -9, and waits for the end."""
        if self.process is not None:
            if self.process.returncode is None:
                self.process.kill()
            await self.process.wait()
            self.process = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.kill()

    async def script(self, **orders: Any) -> Any:
        return await self._call("POST", "/fake/script", json.dumps(orders).encode())

    async def state(self) -> Any:
        return await self._call("GET", "/fake/state")

    async def requests(self, path: str = "") -> Any:
        return await self._call("GET", "/fake/requests" + (f"?path={path}" if path else ""))

    async def forget(self) -> None:
        await self._call("DELETE", "/fake/requests")

    async def _call(self, method: str, path: str, body: bytes | None = None) -> Any:
        def call() -> Any:
            request = urllib.request.Request(self.url + path, data=body, method=method)
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)

        return await asyncio.to_thread(call)
