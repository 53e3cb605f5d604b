"""The file of roles and aliases: read, watched, refused as a whole or taken."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from geniehive.kit.clock import SystemClock
from geniehive.kit.errors import UserError
from geniehive.kit.tasks import Tasks
from geniehive_control.catalogue import CatalogueFile
from geniehive_control.core import summary
from geniehive_control.core.events import Now
from geniehive_control.core.records import Stored
from geniehive_control.core.registry import Pace, Registry
from geniehive_control.hub import Hub
from tests.support.control_server import until
from tests.support.fake_store import FakeStore

GOOD = "roles:\n  - {role_id: a, operation: chat}\naliases: {x: a}\n"
OTHER = "roles:\n  - {role_id: b, operation: chat}\n"
CIRCLE = "roles:\n  - role_id: a\n    operation: chat\n    routing_policy:\n      fallback_role_ids: [a]\n"


class Read:
    def __init__(self, folder: Path) -> None:
        clock = SystemClock()
        stored = Stored(cluster_id="c1")
        self.hub = Hub(Registry(stored, Now(clock.now(), clock.wall()), Pace()), FakeStore(), clock)
        self.file = folder / "roles.yaml"
        self.kept = folder / "kept.yaml"
        self.looked = CatalogueFile(self.hub, self.file, self.kept, every=0.01)
        self.tasks = Tasks()

    @property
    def roles(self) -> set[str]:
        return set(self.hub.registry.catalogue.roles)

    @property
    def warnings(self) -> str:
        return "\n".join(summary.summarize(self.hub.registry).warnings)

    async def start(self, text: str, *, watch: bool = True) -> None:
        self.file.write_text(text)
        await self.looked.start()
        if watch:
            self.tasks.start(self.looked.run(), "catalogue")


@pytest.fixture
async def read(tmp_path: Path) -> AsyncIterator[Read]:
    made = Read(tmp_path)
    yield made
    assert not made.tasks.failed.done()
    await made.tasks.close()
    await made.hub.close(1.0)


async def test_a_change_is_taken(read: Read) -> None:
    await read.start(GOOD)
    assert read.roles == {"a"}
    assert read.hub.registry.catalogue.aliases["x"].target == "a"
    read.file.write_text(OTHER)
    await until(lambda: read.roles == {"b"})
    assert read.hub.registry.catalogue.aliases == {}
    await until(lambda: read.kept.read_text() == OTHER)


async def test_a_file_put_in_its_place_is_taken(read: Read) -> None:
    await read.start(GOOD)
    new = read.file.with_suffix(".new")
    new.write_text(GOOD.replace("a,", "c,").replace("x: a", "x: c"))
    os.utime(new, ns=(read.file.stat().st_atime_ns, read.file.stat().st_mtime_ns))
    new.replace(read.file)
    await until(lambda: read.roles == {"c"})


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("roles: 3", "line 1: roles: expected a list"),
        (CIRCLE, "line 5: roles[0].routing_policy.fallback_role_ids[0]: goes round in a circle: a > a"),
        ("roles: [", "not valid YAML"),
    ],
)
async def test_a_bad_one_is_refused_whole(read: Read, caplog: pytest.LogCaptureFixture, bad: str, told: str) -> None:
    await read.start(GOOD)
    read.file.write_text(bad)
    await until(lambda: told in read.warnings)
    assert read.roles == {"a"}
    assert str(read.file) in read.warnings
    assert sum(told in record.message for record in caplog.records) == 1
    assert read.kept.read_text() == GOOD
    read.file.write_text(OTHER)
    await until(lambda: read.roles == {"b"})
    assert told not in read.warnings


async def test_one_that_vanishes_stays_in_force(read: Read) -> None:
    await read.start(GOOD)
    read.file.unlink()
    await until(lambda: "cannot be read" in read.warnings)
    assert read.roles == {"a"}
    read.file.write_text(GOOD)
    await until(lambda: "cannot be read" not in read.warnings)


async def test_half_a_file_is_not_taken(read: Read) -> None:
    await read.start(GOOD, watch=False)
    with read.file.open("w") as writing:
        for number in range(5):
            # Each half is a catalogue by itself.
            writing.write(f"# {number}\n")
            writing.flush()
            await read.looked.look()
            assert read.roles == {"a"}
        writing.write(OTHER)
    await read.looked.look()
    await read.looked.look()
    assert read.roles == {"b"}


async def test_a_control_that_starts_with_a_bad_one_has_what_it_had(read: Read, tmp_path: Path) -> None:
    await read.start(GOOD)
    again = Read(tmp_path)
    again.file.write_text(CIRCLE)
    await again.looked.start()
    assert again.roles == {"a"}
    assert "goes round in a circle" in again.warnings


@pytest.mark.parametrize("text", [None, CIRCLE, "\udcff"])
async def test_with_nothing_to_go_by_it_does_not_start(tmp_path: Path, text: str | None) -> None:
    read = Read(tmp_path)
    if text is not None:
        read.file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"the catalogue can't be used: .*roles\.yaml"):
        await read.looked.start()
    assert read.roles == set()


async def test_without_room_for_a_copy_it_is_taken_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read = Read(tmp_path)
    read.looked = CatalogueFile(read.hub, read.file, tmp_path / "gone" / "kept.yaml")
    read.file.write_text(GOOD)
    await read.looked.start()
    assert read.roles == {"a"}
    assert "no copy of the catalogue" in caplog.text
