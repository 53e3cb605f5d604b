import os
import sys
from pathlib import Path

import pytest

from geniehive.kit.rotated import RotatedFile


def test_appended_and_rotated(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "a.log"
    file = RotatedFile(path, max_bytes=10, keep=2)
    for number in range(8):
        file.append(b"line%d\n" % number)  # two fill a file
    file.append(b"last\n")
    file.close()
    held = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    assert held == {"a.log": b"last\n", "a.log.1": b"line6\nline7\n", "a.log.2": b"line4\nline5\n"}


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"old\n")
    file = RotatedFile(path, max_bytes=1000, keep=1)
    file.append(b"new\n")
    file.close()
    assert path.read_bytes() == b"old\nnew\n"


def test_nothing_older_is_kept(tmp_path: Path) -> None:
    file = RotatedFile(tmp_path / "a.log", max_bytes=3, keep=0)
    file.append(b"one\n")
    file.append(b"2\n")
    file.close()
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.log", b"2\n")]


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be moved there")
def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    file = RotatedFile(path, max_bytes=1000, keep=1)
    file.append(b"one\n")
    os.replace(path, tmp_path / "moved")
    file.append(b"two\n")
    file.close()
    assert (tmp_path / "moved").read_bytes() == b"one\n"
    assert path.read_bytes() == b"two\n"


@pytest.mark.skipif(sys.platform == "win32", reason="modes are for POSIX")
def test_for_the_owner_alone(tmp_path: Path) -> None:
    file = RotatedFile(tmp_path / "a.log", max_bytes=1000, keep=1)
    file.append(b"x")
    file.close()
    assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o600


def test_a_failure_is_told_and_the_next_time_tried_again(tmp_path: Path) -> None:
    blocked = tmp_path / "logs"
    blocked.write_bytes(b"")
    file = RotatedFile(blocked / "a.log", max_bytes=1000, keep=1)
    with pytest.raises(OSError):
        file.append(b"one\n")
    blocked.unlink()
    file.append(b"two\n")
    file.close()
    assert (blocked / "a.log").read_bytes() == b"two\n"
