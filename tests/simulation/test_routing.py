"""What is promised of `soonest`, by few seeds; the whole is in test_routing_proof.py."""

import json
from pathlib import Path

import pytest

from bench.routing.report import PAGE, PLOT, write
from bench.routing.results import (
    MANY_MODELS,
    MIXED,
    UNIFORM,
    UTILISATIONS,
    Cell,
    Figures,
    cells,
    measure,
    promises,
    share,
)
from bench.routing.rivals import FORGETFUL, MEASURED, MIRRORED, RIVALS, SOONEST

SEEDS, REQUESTS = 3, 300


def found(scenario: str, strategy: str, utilisation: float = 0.8) -> Figures:
    return measure(Cell(scenario, utilisation, strategy), SEEDS, REQUESTS)


@pytest.mark.parametrize("scenario", ["3 speeds, 4 slots", "8 hosts, bursts", "4 engines", MANY_MODELS, "agents"])
def test_on_mixed_fleets_it_is_better(scenario: str) -> None:
    ours = found(scenario, SOONEST)
    for rival in RIVALS:
        other = found(scenario, rival)
        assert (ours.total < 0.97 * other.total, ours.total_p95 < other.total_p95) == (True, True), rival


@pytest.mark.parametrize("scenario", ["4 alike, 1 slot", "4 alike, 4 slots"])
def test_on_uniform_fleets_it_is_no_worse(scenario: str) -> None:
    ours = found(scenario, SOONEST)
    assert ours.total < 1.03 * min(found(scenario, rival).total for rival in RIVALS)


def test_a_burst_is_spread() -> None:
    assert share(SOONEST, 1, 5) <= 0.36
    assert share(MIRRORED, 3, 5) <= 0.40


def test_affinity_is_a_gain() -> None:
    assert found("hot prefix", SOONEST).total < 1.03 * found("hot prefix", FORGETFUL).total
    assert found("4 alike, agents", SOONEST).total < 0.8 * found("4 alike, agents", "least_loaded").total


def test_models_are_not_loaded_in_turn() -> None:
    assert found(MANY_MODELS, SOONEST).loads < 1.5


def test_the_report(tmp_path: Path) -> None:
    """Of made-up figures."""
    made = {
        cell: Figures(1.0 if cell.strategy in (SOONEST, MEASURED) else 2.0, 2.0, 0.5, 1.0, 0.2) for cell in cells(True)
    }
    told = promises(made)
    write(made, told, tmp_path)
    page = (tmp_path / PAGE).read_text()
    assert all(promise.text in page for promise in told)
    assert "0.50 / 0.50" in page
    assert "**missed**" in page, "p95 is no better"
    plot = (tmp_path / PLOT).read_text()
    assert plot.count("<circle") == len(UTILISATIONS) * (len(MIXED) + len(UNIFORM) + 1)
    assert json.loads(json.dumps([*made.items()]))[0][0] == list(next(iter(made)))
