"""One process at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geniehive.kit.lock import FileLock, Locked

HOLD = """
import sys
from pathlib import Path
from geniehive.kit.lock import FileLock, Locked
try:
    with FileLock(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except Locked:
    print("locked", flush=True)
"""


def holder(file: Path, root: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


def test_one_holder_at_a_time(tmp_path: Path, root: Path) -> None:
    file = tmp_path / "lock"
    with FileLock(file):
        with pytest.raises(Locked), FileLock(file):
            pass
        with holder(file, root) as other:
            assert other.communicate()[0] == "locked\n"
    with FileLock(file):
        pass


def test_a_killed_holder_holds_nothing(tmp_path: Path, root: Path) -> None:
    file = tmp_path / "lock"
    with holder(file, root) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Locked), FileLock(file):
            pass
        other.kill()
        other.wait()
        with FileLock(file):
            pass


def test_where_there_can_be_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError), FileLock(tmp_path / "none" / "lock"):
        pass
