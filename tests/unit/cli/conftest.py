"""What the tests of the command line share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_control import FakeControl, fake_control
from tests.support.up import Up


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    made = Up(tmp_path)
    yield made
    made.close()


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeControl]:
    """A control that commands find by the environment."""
    with fake_control() as made:
        monkeypatch.setenv("GENIEHIVE_CONTROL", made.address)
        yield made
