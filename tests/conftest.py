"""What every test lives under: a state folder of its own, and no settings from outside."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No variable of the user's reaches a test, and no test reaches the user's state."""
    for name in list(os.environ):
        if name.startswith("GENIEHIVE_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GENIEHIVE_STATE_DIR", str(tmp_path_factory.mktemp("state")))
    yield


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent
