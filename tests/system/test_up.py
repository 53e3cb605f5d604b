"""`geniehive up` as a newcomer runs it, with the real small model, driven by the openai SDK."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import openai
import psutil
import pytest

from geniehive.kit import address, state
from tests.support.processes import ROOT, until

pytestmark = pytest.mark.engine


class Up:
    """One `geniehive up` with ports and state of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.state = folder / "state"
        self.listen = f"127.0.0.1:{address.free_port()}"
        self.command = [
            *[sys.executable, "-m", "geniehive.cli", "up", "--state-dir", str(self.state), "--listen", self.listen],
            *["--control-listen", f"127.0.0.1:{address.free_port()}"],
            *["--relay-listen", f"127.0.0.1:{address.free_port()}"],
            *["--embedded-listen", f"127.0.0.1:{address.free_port()}"],
            *arguments,
        ]
        self.output = ""

    async def start(self) -> None:
        # Engines that happen to run on this machine are not for this test.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GENIEHIVE_NODE__DISCOVER": "false"}
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment, cwd=ROOT
        )
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.output += line.decode()

    async def shown(self, pattern: str, within: float = 30.0) -> re.Match[str]:
        async def found() -> re.Match[str] | None:
            assert self.process.returncode is None or re.search(pattern, self.output), self.output
            return re.search(pattern, self.output)

        await until(f"{pattern} in the output", found, within)
        match = re.search(pattern, self.output)
        assert match
        return match

    def children(self) -> dict[str, psutil.Process]:
        found = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                line = " ".join(child.cmdline())
            except psutil.Error:
                continue  # it has just ended
            for name, module in {
                "control": "geniehive_control",
                "node": "geniehive_node ",
                "gateway": "-m gateway",
                "demo": "geniehive_node.demo",
            }.items():
                if module in line + " ":
                    found[name] = child
        return found

    async def stop(self, number: int = signal.SIGTERM) -> int:
        children = list(psutil.Process(self.process.pid).children(recursive=True))
        self.process.send_signal(number)
        async with asyncio.timeout(20):
            code = await self.process.wait()
        await self._reader
        _gone, alive = await asyncio.to_thread(psutil.wait_procs, children, 10)
        assert alive == [], f"left behind: {alive}"
        return code


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Up]:
    made = Up(tmp_path)
    await made.start()
    yield made
    if made.process.returncode is None:
        await made.stop()


async def test_the_first_day(up: Up) -> None:
    """From nothing to answers of the real model, by everything that a newcomer would try."""
    await up.shown(r"curl ")
    key = state.read_secret(up.state / "client.key")
    assert key in up.output
    assert (up.state / "client.key").stat().st_mode & 0o777 == 0o600
    url = f"http://{up.listen}/v1"
    assert url in up.output
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
        models = [m async for m in await client.models.list()]
        assert [m.id for m in models] == ["smollm2-135m"]
        assert models[0].model_extra
        assert models[0].model_extra["geniehive"]["demo"] is True
        assert (await client.models.retrieve("smollm2-135m")).id == "smollm2-135m"
        ask = [{"role": "user", "content": "Say hello."}]
        answer = await client.chat.completions.create(model="smollm2-135m", messages=ask, max_tokens=8)  # type: ignore[arg-type]
        assert answer.choices[0].message.content
        assert answer.usage
        assert answer.usage.completion_tokens > 0
        pieces = []
        stream = await client.chat.completions.create(model="smollm2-135m", messages=ask, max_tokens=8, stream=True)  # type: ignore[arg-type]
        async for chunk in stream:
            pieces += [c.delta.content for c in chunk.choices if c.delta.content]
        assert len(pieces) > 1
        vectors = await client.embeddings.create(model="smollm2-135m", input=["hello", "world"])
        assert len(vectors.data) == 2
        assert len(vectors.data[0].embedding) == 576
        text = await client.completions.create(model="smollm2-135m", prompt="Once upon a", max_tokens=4)
        assert text.choices[0].text
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="smollm2-13b", messages=ask)  # type: ignore[arg-type]
        assert caught.value.code == "model_not_found"
    async with openai.AsyncOpenAI(base_url=url, api_key="gh-wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()

    # The curl line works as it stands.
    line = await up.shown(r"(?m)^\s*(curl .*(?:\\\n.*)*)$")
    process = await asyncio.create_subprocess_shell(line[1], stdout=-1, stderr=-1)
    out, _ = await process.communicate()
    assert b'"choices"' in out

    # The gateway is replaced, and requests work again within two seconds.
    up.children()["gateway"].kill()
    async with aiohttp.ClientSession() as http:

        async def works() -> bool:
            body = {"model": "smollm2-135m", "messages": ask, "max_tokens": 1}
            try:
                async with http.post(
                    f"{url}/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}
                ) as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        async def down() -> bool:
            return not await works()

        assert await until("requests work again", works) < 2.0
        for name in ("control", "node", "demo"):
            up.children()[name].kill()
        await until("requests work again", works, 15.0)

    async def whole() -> bool:
        return set(up.children()) == {"control", "node", "gateway", "demo"}

    await until("all children are back", whole)
    assert await up.stop(signal.SIGINT) == 0
    assert "Traceback" not in up.output


async def test_nothing_is_left_behind_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    up = Up(tmp_path, "--no-embedded")
    await up.start()
    await up.shown(r"http://")

    async def three() -> bool:
        return len(up.children()) == 3

    await until("three children", three)
    children = list(up.children().values())
    up.process.kill()
    await up.process.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, 10)
    assert alive == []
