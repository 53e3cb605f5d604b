"""How a process starts and ends, on real processes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from geniehive.kit import lifecycle, notices
from geniehive.kit.errors import EXIT_FAILED, EXIT_OK, EXIT_SUPERSEDED, EXIT_USAGE, EXITS_FOR_GOOD, UserError

Start = Callable[..., Coroutine[Any, Any, asyncio.subprocess.Process]]


@pytest.fixture
async def start(root: Path) -> AsyncIterator[Start]:
    started: list[asyncio.subprocess.Process] = []

    async def go(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.tiny_daemon",
            *arguments,
            cwd=root,
            env={**os.environ, notices.VARIABLE: "1", **environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        return process

    yield go
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def notice(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        found = notices.parse(await process.stdout.readline())
    assert found is not None
    return found


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """Exit code and what stood on standard error."""
    async with asyncio.timeout(20):
        _, err = await process.communicate()
    return process.returncode, err.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("work", ["serve", "linger"])
async def test_a_signal_stops_it_in_order(start: Start, number: signal.Signals, work: str) -> None:
    process = await start("--set", f"work={work}")
    assert (await notice(process))["notice"] == "ready"
    process.send_signal(number)
    said = await notice(process)
    assert (said["notice"], said["cause"]) == ("stopped", number.name)
    assert await ended(process) == (EXIT_OK, "")


async def test_a_second_signal_changes_nothing(start: Start) -> None:
    process = await start("--set", "work=linger")
    await notice(process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    assert (await notice(process))["notice"] == "stopped"
    assert (await ended(process))[0] == EXIT_OK


async def test_it_ends_with_its_supervisor(start: Start) -> None:
    process = await start(GENIEHIVE_STOP_AT_STDIN_END="1")
    await notice(process)
    assert process.stdin is not None
    process.stdin.write(b"not the end\n")
    process.stdin.close()
    assert (await notice(process))["cause"] == "the supervisor ended"
    assert await ended(process) == (EXIT_OK, "")


async def test_without_a_supervisor_the_end_of_input_means_nothing(start: Start) -> None:
    process = await start()
    await notice(process)
    assert process.stdin is not None
    process.stdin.close()
    process.send_signal(signal.SIGTERM)
    assert (await notice(process))["cause"] == "SIGTERM"


async def test_a_user_error_is_its_text_and_its_exit_code(start: Start) -> None:
    code, err = await ended(await start("--set", "work=refuse"))
    assert (code, err) == (EXIT_SUPERSEDED, "geniehive: the newer one runs on gpu-2\n")


async def test_a_bug_is_a_traceback_and_a_failure(start: Start) -> None:
    code, err = await ended(await start("--set", "work=break"))
    assert code == EXIT_FAILED
    assert "RuntimeError: a bug" in err
    assert "Traceback" in err


def test_who_supervises_knows_which_ends_are_for_good() -> None:
    assert EXITS_FOR_GOOD.isdisjoint({EXIT_OK, EXIT_FAILED})
    assert EXIT_SUPERSEDED in EXITS_FOR_GOOD
    assert UserError("x").exit_code == EXIT_USAGE
    assert EXIT_USAGE in EXITS_FOR_GOOD


async def test_stop_keeps_its_first_cause() -> None:
    stop = lifecycle.Stop()
    waiting = asyncio.create_task(stop.wait())
    assert not stop.asked
    stop.ask("first")
    stop.ask("second")
    await waiting
    assert (stop.asked, stop.cause) == (True, "first")


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
async def test_as_many_files_as_the_system_allows(root: Path) -> None:
    code = (
        "import resource\n"
        "from geniehive.kit import lifecycle\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300))\n"
        "print(lifecycle.allow_many_files(200), lifecycle.allow_many_files(50), lifecycle.allow_many_files(1000))\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=root, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert out.decode().split("\n")[:2] == ["200 200 300", "(300, 300)"], err
