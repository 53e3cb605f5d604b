"""The whole simulation: 24 fleets, five utilisations, twenty seeds of 800 requests."""

import os

import pytest

from bench.routing.results import measure_all, promises


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_all_that_is_promised_holds() -> None:
    results = measure_all(os.cpu_count() or 1, {}, lambda found, wanted: None)
    assert [
        f"{p.text}: {p.found:.3f}, at most {max(p.wanted, p.limit):.2f}" for p in promises(results) if not p.holds
    ] == []
