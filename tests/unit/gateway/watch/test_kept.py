import asyncio
import logging
import stat
import threading
from pathlib import Path

import pytest

from gateway.watch.kept import Broken, KeptTable
from geniehive.convert import resource_to_proto
from geniehive.kit.tasks import Tasks
from geniehive.rules.model import Relay
from geniehive.v1.routing_pb2 import Resource as ResourceMessage
from tests.unit.gateway.builders import key, resource, served

RESOURCES = [resource_to_proto(r) for r in (*served("m", a="http://x:1"), key("s"))]
RELAY = resource_to_proto(resource(Relay(host_id="a", base_urls=("http://x:2",), token="t0")))


async def write(path: Path, *changed: ResourceMessage) -> None:
    kept = KeptTable(path)
    kept.note(changed or RESOURCES, (), "c-1")
    await kept.flush()


async def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "table.pb"
    await write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = KeptTable(path).load()
    assert kept is not None
    assert list(kept.changed) == RESOURCES
    assert (kept.cluster_id, kept.nonce) == ("c-1", "")


async def test_nothing_kept_yet(tmp_path: Path) -> None:
    assert KeptTable(tmp_path / "table.pb").load() is None


async def test_later_updates_merge(tmp_path: Path) -> None:
    kept = KeptTable(tmp_path / "table.pb")
    kept.note([*RESOURCES, RELAY], (), "c-1")
    newer = ResourceMessage()
    newer.CopyFrom(RELAY)
    newer.version = "2"
    kept.note([newer], (RESOURCES[0].name, "route/never-was"), "")
    await kept.flush()
    found = kept.load()
    assert found is not None
    assert [(r.name, r.version) for r in found.changed] == [(r.name, "1") for r in RESOURCES[1:]] + [(RELAY.name, "2")]
    assert found.cluster_id == "c-1"


async def test_what_this_version_does_not_know_is_kept_whole(tmp_path: Path) -> None:
    # A resource with a field 99 that no kind of today has.
    novelty = ResourceMessage.FromString(
        ResourceMessage(name="new/x", version="1").SerializeToString() + b"\x9a\x06\x02hi"
    )
    await write(tmp_path / "table.pb", novelty)
    found = KeptTable(tmp_path / "table.pb").load()
    assert found is not None
    assert found.changed[0].SerializeToString().endswith(b"\x9a\x06\x02hi")


async def test_a_broken_file_is_told_from_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "table.pb"
    await write(path)
    whole = path.read_bytes()
    for broken in (b"", b"x", whole[:-1], whole[:50], whole[40:], whole + b"x", b"\x00" * 500):
        path.write_bytes(broken)
        with pytest.raises(Broken, match="not whole"):
            KeptTable(path).load()
    path.unlink()
    path.mkdir()
    with pytest.raises(Broken, match="cannot read"):
        KeptTable(path).load()


async def test_many_changes_are_few_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptTable(tmp_path / "sub" / "table.pb", interval=0.05)
    writes = 0
    write = kept._write

    def counted(pieces: list[bytes]) -> None:
        nonlocal writes
        writes += 1
        write(pieces)

    monkeypatch.setattr(kept, "_write", counted)
    tasks = Tasks()
    tasks.start(kept.run(), "keep")
    for _ in range(10):
        kept.note(RESOURCES, (), "c-1")
        await asyncio.sleep(0.01)
    await tasks.close()
    await kept.flush()
    assert 1 <= writes <= 5
    assert kept.load() is not None


async def test_a_full_disk_is_said_once_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    kept = KeptTable(tmp_path / "table.pb")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("geniehive.kit.state.write_private", full)
        for _ in range(3):
            kept.note(RESOURCES, (), "c-1")
            await kept.flush()
    await kept.flush()  # there is room again, and nothing new to keep
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]
    assert kept.load() is not None


async def test_a_write_that_was_cancelled_is_waited_for_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptTable(tmp_path / "table.pb")
    kept.note(RESOURCES, (), "c-1")
    begun, go_on = threading.Event(), threading.Event()
    write_now = KeptTable._write

    def slowly(self: KeptTable, pieces: list[bytes]) -> None:
        begun.set()
        assert go_on.wait(5)
        write_now(self, pieces)

    monkeypatch.setattr(KeptTable, "_write", slowly)
    first = asyncio.create_task(kept.flush())
    await asyncio.to_thread(begun.wait, 5)
    first.cancel()
    await asyncio.wait({first})
    assert first.cancelled()
    second = asyncio.create_task(kept.flush())
    await asyncio.sleep(0)
    assert kept.load() is None
    go_on.set()
    await second
    found = kept.load()
    assert found is not None
    assert list(found.changed) == RESOURCES
