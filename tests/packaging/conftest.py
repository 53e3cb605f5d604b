"""The wheel, and clean environments to install it in. Each is made once per run."""

import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from geniehive.kit.lock import FileLock, Locked
from tests.support.up import until

ROOT = Path(__file__).resolve().parents[2]


class Environment:
    """A virtual environment that has the wheel and nothing of the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / ("Scripts" if sys.platform == "win32" else "bin")
        self.python = self.bin / "python"

    def make(self, wheel: Path, extras: str) -> None:
        venv.create(self.folder, symlinks=sys.platform != "win32")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet"),
                *("--disable-pip-version-check", f"{wheel}{extras}"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def environment(self, **more: str) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")} | more

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            list(map(str, arguments)),
            cwd=cwd or self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def geniehive(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.run(self.bin / "geniehive", *arguments)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of one run have in common."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "packaging"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def _once(folder: Path, name: str) -> Iterator[bool]:
    """Whether it is for us to make `name`; others wait until it is made."""
    done = folder / f"{name}.done"

    def enter() -> bool:
        try:
            lock.__enter__()
        except Locked:
            return False
        return True

    lock = FileLock(folder / f"{name}.lock")
    until(enter, within=170)
    try:
        yield not done.exists()
        done.touch()
    finally:
        lock.__exit__(None, None, None)


@pytest.fixture(scope="session")
def wheel(shared: Path) -> Path:
    with _once(shared, "wheel") as ours:
        if ours:
            subprocess.run(
                [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(shared)],
                cwd=ROOT,
                check=True,
                capture_output=True,
            )
    [made] = shared.glob("geniehive-*.whl")
    return made


@pytest.fixture(scope="session")
def base(shared: Path, wheel: Path) -> Environment:
    """`pip install geniehive`."""
    return _environment(shared, wheel, "base", "")


@pytest.fixture(scope="session")
def everything(shared: Path, wheel: Path) -> Environment:
    """`pip install 'geniehive[all]'`."""
    return _environment(shared, wheel, "everything", "[all]")


def _environment(shared: Path, wheel: Path, name: str, extras: str) -> Environment:
    made = Environment(shared / name)
    with _once(shared, name) as ours:
        if ours:
            made.make(wheel, extras)
    return made
