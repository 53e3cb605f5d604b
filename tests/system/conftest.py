"""Real processes on loopback."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.daemons import Cluster


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path) as made:
        yield made
