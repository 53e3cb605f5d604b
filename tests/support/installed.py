"""Clients that are no part of the project's own environment, installed once into a folder outside the checkout.

The folder is $GENIEHIVE_CLIENTS, or one of the system's for temporary files. A test that can't have them is skipped,
and says why.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

# Read before any test: a test has no such variables.
FOLDER = Path(os.environ.get("GENIEHIVE_CLIENTS") or Path(tempfile.gettempdir()) / "geniehive-clients")


def npm(*packages: str) -> Path:
    """The folder with these packages below `node_modules`; the programs are below `node_modules/.bin`."""
    program, node = shutil.which("npm"), shutil.which("node")
    if program is None or node is None:
        pytest.skip("no node and npm here")
    install = [program, "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]
    return _once("npm", packages, lambda folder: [[*install, str(folder), *packages]])


def python(*packages: str) -> Path:
    """The interpreter of an environment with these packages."""
    folder = _once(
        "python",
        packages,
        lambda folder: [
            [sys.executable, "-m", "venv", "--clear", str(folder / "venv")],
            [str(_interpreter(folder)), "-m", "pip", "install", "--quiet", *packages],
        ],
    )
    return _interpreter(folder)


def _interpreter(folder: Path) -> Path:
    return folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _once(kind: str, packages: Sequence[str], commands: Callable[[Path], list[list[str]]]) -> Path:
    digest = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:10]
    folder = FOLDER / f"{kind}-{digest}"
    done = folder / ".installed"
    if done.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for command in commands(folder):
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
        except subprocess.TimeoutExpired:
            pytest.skip(f"not installed within 10 minutes: {', '.join(packages)}")
        if ran.returncode:
            pytest.skip(f"can't install {', '.join(packages)}: {ran.stderr.strip()[-300:]}")
    done.touch()
    return folder
