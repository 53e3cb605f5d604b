"""Child processes: started, restarted, stopped, never left behind. The children are small real ones."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TypeVar

import pytest
import uvloop

from geniehive.kit import supervise
from geniehive.kit.backoff import Backoff
from geniehive.kit.errors import EXIT_REFUSED, EXIT_SUPERSEDED, EXIT_USAGE
from geniehive.kit.supervise import Child, Ended, Event, Noticed, Started, Supervisor
from tests.support.up import alive

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

SAY = "import json,sys; say = lambda k, **f: print(json.dumps({'notice': k, **f}), flush=True); "
# Ends in order when it is asked to.
OBEY = SAY + "import signal; signal.signal(15, lambda *_: sys.exit(0)); say('ready'); sys.stdin.read()"
STUBBORN = SAY + "import signal; signal.signal(15, signal.SIG_IGN); say('ready'); signal.pause()"

E = TypeVar("E", bound=Event)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


class Heard:
    """Events, and a way to wait for one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    def of(self, kind: type[E]) -> list[E]:
        return [e for e in self.events if isinstance(e, kind)]

    async def nth(self, kind: type[E], count: int = 1) -> E:
        async with asyncio.timeout(10):
            while len(self.of(kind)) < count:
                self._more.clear()
                await self._more.wait()
        return self.of(kind)[count - 1]


def quick() -> Backoff:
    return Backoff(first=0.01, longest=0.04)


async def test_a_notice_is_told_and_other_lines_go_to_the_log(tmp_path: Path) -> None:
    heard, log = Heard(), tmp_path / "logs" / "a.log"
    code = SAY + "print('words', flush=True); say('ready', address='x'); print('more', file=sys.stderr); sys.exit(2)"
    async with Supervisor(heard) as supervisor:
        supervisor.start(Child("a", python(code), log=log))
        ended = await heard.nth(Ended)
    assert [n.notice for n in heard.of(Noticed)] == [{"notice": "ready", "address": "x"}]
    assert sorted(log.read_text().split()) == ["more", "words"]
    assert sorted(ended.lines) == ["more", "words"]


async def test_a_line_longer_than_any_notice_does_no_harm(tmp_path: Path) -> None:
    heard = Heard()
    code = SAY + "print('x' * 300_000, flush=True); say('ready'); sys.exit(2)"
    async with Supervisor(heard) as supervisor:
        supervisor.start(Child("a", python(code), log=tmp_path / "log"))
        await heard.nth(Ended)
    assert [n.notice["notice"] for n in heard.of(Noticed)] == ["ready"]


async def test_the_child_gets_its_environment_and_is_told_to_notice() -> None:
    heard = Heard()
    names = "GENIEHIVE_NOTICES", "GENIEHIVE_STOP_AT_STDIN_END", "EXTRA"
    code = SAY + f"import os; say('env', seen=[os.environ.get(n) for n in {names}]); sys.exit(2)"
    async with Supervisor(heard) as supervisor:
        supervisor.start(Child("a", python(code), environment={"EXTRA": "7"}))
        noticed = await heard.nth(Noticed)
        await heard.nth(Ended)
    assert noticed.notice["seen"] == ["1", "1", "7"]


async def test_a_killed_child_is_replaced_at_once() -> None:
    heard = Heard()
    async with Supervisor(heard) as supervisor:
        supervisor.start(Child("a", python(OBEY)))
        await heard.nth(Noticed)
        first = (await heard.nth(Started)).pid
        assert supervisor.pid("a") == first
        os.kill(first, signal.SIGKILL)
        ended = await heard.nth(Ended)
        assert (ended.code, ended.why, ended.asked) == (-9, "was ended by SIGKILL", False)
        assert ended.restart_in is not None
        assert ended.restart_in < 0.3
        second = await heard.nth(Started, 2)
        await heard.nth(Noticed, 2)
        assert second.pid != first
        await supervisor.stop("a")
    assert not supervisor.keeps("a")


@pytest.mark.parametrize("code", [EXIT_USAGE, EXIT_SUPERSEDED, EXIT_REFUSED])
async def test_some_ends_are_for_good(code: int) -> None:
    heard = Heard()
    async with Supervisor(heard, restart_delays=quick) as supervisor:
        supervisor.start(Child("a", python(f"raise SystemExit({code})")))
        ended = await heard.nth(Ended)
        assert (ended.code, ended.restart_in) == (code, None)
        # Returns when nothing keeps the child any more.
        await supervisor.stop("a")
    assert len(heard.of(Started)) == 1


async def test_a_child_that_keeps_dying_is_started_less_and_less_often() -> None:
    heard = Heard()
    async with Supervisor(heard, restart_delays=quick) as supervisor:
        supervisor.start(Child("a", python("raise SystemExit(1)")))
        await heard.nth(Ended, 4)
        await supervisor.stop("a")
    delays = [e.restart_in for e in heard.of(Ended)[:4]]
    assert delays[2] is not None
    assert delays[0] is not None
    assert delays[2] > delays[0]


async def test_the_delay_begins_anew_after_a_healthy_while() -> None:
    heard = Heard()

    class Top(random.Random):
        def random(self) -> float:
            return 1.0

    def delays() -> Backoff:
        return Backoff(first=0.01, longest=0.1, source=Top())

    async with Supervisor(heard, restart_delays=delays, healthy_after=0.0) as supervisor:
        supervisor.start(Child("a", python("raise SystemExit(1)")))
        await heard.nth(Ended, 3)
        await supervisor.stop("a")
    assert [e.restart_in for e in heard.of(Ended)[:3]] == [0.01, 0.01, 0.01]


async def test_a_program_that_is_not_there_is_told_and_tried_again() -> None:
    heard = Heard()
    async with Supervisor(heard, restart_delays=quick) as supervisor:
        supervisor.start(Child("a", ("/nonexistent/program",)))
        ended = await heard.nth(Ended)
        assert ended.code is None
        assert "could not be started" in ended.why
        await heard.nth(Ended, 2)


async def test_stop_asks_first() -> None:
    heard = Heard()
    async with Supervisor(heard) as supervisor:
        supervisor.start(Child("a", python(OBEY)))
        await heard.nth(Noticed)
        await supervisor.stop("a")
        ended = await heard.nth(Ended)
    assert (ended.code, ended.asked, ended.restart_in) == (0, True, None)


async def test_stop_kills_after_the_grace() -> None:
    heard = Heard()
    async with Supervisor(heard) as supervisor:
        supervisor.start(Child("a", python(STUBBORN), grace=0.1))
        await heard.nth(Noticed)
        await supervisor.stop("a")
        assert (await heard.nth(Ended)).code == -signal.SIGKILL


async def test_stop_works_at_every_moment() -> None:
    """Before the process is there, and while it waits to be restarted."""
    heard = Heard()
    async with Supervisor(heard, restart_delays=lambda: Backoff(first=60, longest=60)) as supervisor:
        supervisor.start(Child("young", python(OBEY)))
        await supervisor.stop("young")
        before = len(heard.of(Ended))
        supervisor.start(Child("waiting", python("raise SystemExit(1)")))
        assert (await heard.nth(Ended, before + 1)).restart_in is not None
        await supervisor.stop("waiting")
        await supervisor.stop("unknown")
    assert not supervisor.keeps("young")
    assert not supervisor.keeps("waiting")


async def test_a_stopped_child_can_be_started_again_but_not_twice() -> None:
    heard = Heard()
    async with Supervisor(heard) as supervisor:
        supervisor.start(Child("a", python(OBEY)))
        with pytest.raises(ValueError, match="kept already"):
            supervisor.start(Child("a", python(OBEY)))
        await supervisor.stop("a")
        supervisor.start(Child("a", python(OBEY)))
        await heard.nth(Noticed)
        await supervisor.stop("a")


async def test_leaving_kills_what_runs() -> None:
    heard = Heard()
    async with Supervisor(heard) as supervisor:
        supervisor.start(Child("a", python(STUBBORN)))
        await heard.nth(Noticed)
        pid = supervisor.pid("a")
        supervisor.start(Child("young", python(STUBBORN)))
    assert pid is not None
    assert not alive(pid)
    assert not any(alive(s.pid) for s in heard.of(Started))


async def test_an_owner_that_fails_is_told_about() -> None:
    def fail(event: Event) -> None:
        raise RuntimeError("no")

    async with Supervisor(fail) as supervisor:
        supervisor.start(Child("a", python(OBEY)))
        async with asyncio.timeout(10):
            assert isinstance(await supervisor.failed, RuntimeError)


async def test_a_large_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "MAX_LOG_BYTES", 10)
    log = tmp_path / "a.log"
    log.write_text("an old run wrote this\n")
    heard = Heard()
    async with Supervisor(heard) as supervisor:
        supervisor.start(Child("a", python("import sys; sys.exit('new')"), log=log))
        await heard.nth(Ended)
    assert log.read_text() == "new\n"
    assert (tmp_path / "a.log.1").read_text() == "an old run wrote this\n"


async def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    heard = Heard()
    async with Supervisor(heard) as supervisor:
        supervisor.start(Child("a", python(OBEY), log=tmp_path / "logs" / "a.log"))
        await heard.nth(Noticed)
        await supervisor.stop("a")
    assert "cannot write the log" in capfd.readouterr().err


def test_it_works_on_uvloop() -> None:
    async def life() -> list[Event]:
        heard = Heard()
        async with Supervisor(heard) as supervisor:
            supervisor.start(Child("a", python(OBEY)))
            await heard.nth(Noticed)
            pid = supervisor.pid("a")
            assert pid is not None
            assert os.getsid(pid) == pid
            os.kill(pid, signal.SIGKILL)
            await heard.nth(Noticed, 2)
            await supervisor.stop("a")
        return heard.events

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        events = runner.run(life())
    assert [type(e).__name__ for e in events] == ["Started", "Noticed", "Ended"] * 2


OWNER = """
import asyncio, sys
from geniehive.kit.supervise import Child, Started, Supervisor

def tell(event):
    if isinstance(event, Started):
        print(event.pid, flush=True)

async def main():
    async with Supervisor(tell) as supervisor:
        for name in "ab":
            supervisor.start(Child(name, (sys.executable, "-c", "import sys; sys.stdin.read()")))
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_killed_supervisor_leaves_nothing_behind(root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(python(OWNER), stdout=subprocess.PIPE, env=environment) as owner:
        assert owner.stdout is not None
        pids = [int(owner.stdout.readline()) for _ in range(2)]
        owner.kill()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)
