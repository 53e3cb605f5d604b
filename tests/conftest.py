"""What every test lives under: a state folder of its own, and no settings from outside."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

# Machines differ in speed, and a slow one is no failure.
hypothesis.settings.register_profile("geniehive", deadline=None)
hypothesis.settings.load_profile("geniehive")


# In the background, or under nohup, these are ignored, and every program that a test starts would ignore them too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No variable of the user's reaches a test, and no test reaches the user's state."""
    for name in list(os.environ):
        if name.startswith("GENIEHIVE_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GENIEHIVE_STATE_DIR", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent
