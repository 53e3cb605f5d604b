"""Several processes at one address: real ones, without a control, so that they say that they have no table."""

import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from gateway import workers
from geniehive.kit import http1
from geniehive.kit.address import free_port
from geniehive.kit.errors import UserError
from tests.support.processes import Process, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shares connections out among processes")


def gateway(folder: Path, name: str, *settings: str) -> Process:
    sets = [part for setting in settings for part in ("--set", setting)]
    dead = f"control=127.0.0.1:{free_port()}"
    arguments = ["-m", "gateway", "--state-dir", str(folder / "state"), "--set", dead, *sets]
    return Process(name, arguments, folder)


def crew(process: Process) -> set[int]:
    return {child.pid for child in psutil.Process(process.pid).children()}


async def says_so(url: str) -> bool:
    """Whether a gateway without a table answers there."""
    async with http1.Client() as client:
        try:
            answer = await client.request(http1.Origin.parse(url), "GET", "/readyz")
        except http1.HttpError:
            return False
        async with answer:
            return b"not_ready" in await answer.read()


async def test_two_share_an_address_and_one_that_dies_comes_back(tmp_path: Path) -> None:
    async with gateway(tmp_path, "gateway", "listen=127.0.0.1:0", "workers=2") as process:
        url = (await process.notice("ready"))["url"]
        first = crew(process)
        assert len(first) == 2
        assert await says_so(url)
        psutil.Process(min(first)).kill()

        async def replaced() -> bool:
            return len(crew(process)) == 2 and min(first) not in crew(process) and await says_so(url)

        await until("the worker is back", replaced)
        assert max(first) in crew(process)
        children = crew(process)
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
        assert not any(psutil.pid_exists(pid) for pid in children)


async def ask(url: str, method: str, path: str, body: bytes | None = None) -> bytes:
    """On a connection of its own, so that any worker may get it."""
    async with http1.Client() as client, await client.request(http1.Origin.parse(url), method, path, (), body) as got:
        return await got.read()


async def test_what_they_count_is_one(tmp_path: Path) -> None:
    async with gateway(tmp_path, "gateway", "listen=127.0.0.1:0", "workers=2") as process:
        url = (await process.notice("ready"))["url"]
        for _ in range(16):
            assert b"not_ready" in await ask(url, "POST", "/v1/chat/completions", b"{}")
        counted = 'geniehive_gateway_requests_total{ending="unserved",operation="chat",status="5xx"} 16.0\n'
        for _ in range(8):
            page = (await ask(url, "GET", "/metrics")).decode()
            assert counted in page
            assert page.count("\nprocess_resident_memory_bytes{worker=") == 2
            assert 'geniehive_gateway_worker_up{worker="0"} 1.0\n' in page
        dead = min(crew(process))
        psutil.Process(dead).kill()
        began = "\nprocess_start_time_seconds{worker="

        async def replaced() -> bool:
            try:
                page = (await ask(url, "GET", "/metrics")).decode()
            except http1.HttpError:
                return False
            # What the dead one counted is not lost.
            assert counted in page
            return page.count(began) == 2 and dead not in crew(process)

        await until("the worker is back, and seen by the other", replaced)


async def test_a_killed_parent_leaves_nobody_behind(tmp_path: Path) -> None:
    async with gateway(tmp_path, "gateway", "listen=127.0.0.1:0", "workers=2") as process:
        await process.notice("ready")
        children = [psutil.Process(pid) for pid in crew(process)]
        process.kill()

        async def gone() -> bool:
            return not any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in children)

        await until("the workers end", gone)


async def test_an_address_in_use_is_not_joined(tmp_path: Path) -> None:
    async with gateway(tmp_path, "first", "listen=127.0.0.1:0", "workers=2") as first:
        url = (await first.notice("ready"))["url"]
        listen = f"listen={url.removeprefix('http://')}"
        async with gateway(tmp_path, "second", listen, "workers=2") as second:
            assert await second.ended() == 2
            assert "Address already in use" in second.text()
        async with gateway(tmp_path, "third", listen) as third:
            assert await third.ended() == 2


async def test_an_access_log_to_standard_output_comes_on_standard_error(tmp_path: Path) -> None:
    # What workers write is read for notices; the rest is not lost.
    async with gateway(tmp_path, "gateway", "listen=127.0.0.1:0", "workers=2", 'access_log.file="-"') as process:
        url = (await process.notice("ready"))["url"]
        assert await says_so(url)

        async def written() -> bool:
            return "method=GET path=/readyz status=503" in process.text()

        await until("the line is there", written)


async def test_what_ends_a_worker_for_good_ends_all(tmp_path: Path) -> None:
    async with gateway(tmp_path, "gateway", "listen=127.0.0.1:0", "workers=2", "gateway_id=Not An Id") as process:
        assert await process.ended() == 2
        assert "is no id" in process.text()


@pytest.mark.parametrize("number", [0, -1, workers.MOST + 1])
def test_numbers_that_cannot_be(number: int) -> None:
    with pytest.raises(UserError, match="workers"):
        workers.check(number)


def test_another_system_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    workers.check(2)
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(UserError, match="Linux"):
        workers.check(2)
    workers.check(1)
