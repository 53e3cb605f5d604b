"""Figures of runs, and whether what is promised of `soonest` holds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing import get_context
from statistics import fmean, median
from typing import NamedTuple

from bench.routing.engines import Request
from bench.routing.fleets import SCENARIOS
from bench.routing.rivals import FORGETFUL, MEASURED, MIRRORED, RIVALS, SOONEST, STRONGER, UNTOLD
from bench.routing.world import burst, run

UTILISATIONS = (0.2, 0.5, 0.8, 0.95, 1.1)
SEEDS = 20
REQUESTS = 800
UNIFORM = tuple(name for name, scenario in SCENARIOS.items() if scenario.uniform)
MIXED = tuple(name for name in SCENARIOS if name not in UNIFORM)
MANY_MODELS = "4 models"
HOT = "hot prefix"


class Figures(NamedTuple):
    """Seconds until the answer was there, and until its first token: mean, and what 95 of 100 stay below. loads: of
    models, for 100 requests.
    """

    total: float
    total_p95: float
    first: float
    first_p95: float
    loads: float


class Cell(NamedTuple):
    scenario: str
    utilisation: float
    strategy: str


Results = Mapping[Cell, Figures]


def figures(done: Sequence[Request], loads: int) -> Figures:
    totals = sorted(request.done - request.came for request in done)
    firsts = sorted(request.first - request.came for request in done)
    late = int(0.95 * len(done))
    return Figures(fmean(totals), totals[late], fmean(firsts), firsts[late], 100 * loads / len(done))


def measure(cell: Cell, seeds: int = SEEDS, count: int = REQUESTS) -> Figures:
    """The mean of the seeds."""
    found = []
    for seed in range(seeds):
        world = run(cell.scenario, cell.strategy, cell.utilisation, seed, count)
        found.append(figures(world.done, sum(engine.loads for engine in world.engines)))
    return Figures(*map(fmean, zip(*found, strict=True)))


def _measured(cell: Cell) -> tuple[Cell, Figures]:
    return cell, measure(cell)


def cells(more: bool) -> list[Cell]:
    """What is measured. more: what nothing is promised of, too."""
    made = []
    for utilisation in (0.5, 0.8, 0.2, 0.95, 1.1):
        for name, scenario in SCENARIOS.items():
            strategies = [MEASURED, SOONEST, *RIVALS]
            strategies += [*(s for s in UNTOLD if s not in RIVALS), *STRONGER] if more else []
            strategies += [MIRRORED] if more and scenario.gateways > 1 else []
            strategies += [FORGETFUL] if name == HOT else []
            made += [Cell(name, utilisation, strategy) for strategy in strategies]
    return made


def measure_all(
    processes: int, known: Results, tell: Callable[[dict[Cell, Figures], int], object], more: bool = False
) -> dict[Cell, Figures]:
    """known: need not be measured again. tell: what is known by now, and of how many."""
    wanted, found = [cell for cell in cells(more) if cell not in known], dict(known)
    with get_context("spawn").Pool(processes) as pool:
        for cell, figure in pool.imap_unordered(_measured, wanted):
            found[cell] = figure
            tell(found, len(known) + len(wanted))
    return found


def ratios(
    results: Results, utilisation: float, scenario: str, rivals: Iterable[str] = RIVALS, own: str = MEASURED
) -> list[Figures]:
    """`own` to each rival; below 1 it is better."""
    ours = results[Cell(scenario, utilisation, own)]
    theirs = [results[Cell(scenario, utilisation, rival)] for rival in rivals]
    return [Figures(*(a / b if b else 1.0 for a, b in zip(ours, other, strict=True))) for other in theirs]


def worst(
    results: Results, utilisation: float, scenario: str, rivals: Iterable[str] = RIVALS, own: str = MEASURED
) -> Figures:
    """To the best of the rivals, figure by figure."""
    return Figures(*map(max, zip(*ratios(results, utilisation, scenario, rivals, own), strict=True)))


class Promise(NamedTuple):
    """What is wanted at most, and what was found. limit: where that is more than is wanted, what it may not pass."""

    text: str
    wanted: float
    found: float
    limit: float = 0.0

    @property
    def reached(self) -> bool:
        return self.found <= self.wanted

    @property
    def holds(self) -> bool:
        return self.found <= max(self.wanted, self.limit)


_IDLE, _BUSY, _TOO_BUSY = (0.2,), (0.5, 0.8), (0.95, 1.1)


def promises(results: Results) -> list[Promise]:
    """Of what is measured with `measure_all`."""
    made = []

    def promise(
        text: str, wanted: float, utilisations: Iterable[float], fleets: Iterable[str], figure: str, limit: float = 0.0
    ) -> None:
        over = median if "median" in text else max
        names = tuple(fleets)
        found = [over([getattr(worst(results, u, name), figure) for name in names]) for u in utilisations]
        made.append(Promise(text, wanted, max(found), limit))

    promise("mixed, 0.5 and 0.8: mean wait, worst fleet", 0.95, _BUSY, MIXED, "total")
    promise("mixed, 0.5 and 0.8: mean wait, median fleet", 0.70, _BUSY, MIXED, "total")
    promise("mixed, 0.5 and 0.8: p95 wait, worst fleet", 0.95, _BUSY, MIXED, "total_p95")
    promise("mixed, 0.5 and 0.8: p95 wait, median fleet", 0.55, _BUSY, MIXED, "total_p95", 0.75)
    promise("mixed, 0.5 and 0.8: mean time to first token, worst fleet", 0.95, _BUSY, MIXED, "first")
    promise("mixed, 0.5 and 0.8: p95 time to first token, worst fleet", 0.97, _BUSY, MIXED, "first_p95")
    for figure, words in (("total", "mean wait"), ("total_p95", "p95 wait")):
        promise(f"mixed, 0.2: {words}, worst fleet", 1.0, _IDLE, MIXED, figure, 1.05)
        promise(f"mixed, 0.95 and 1.1: {words}, worst fleet", 1.05, _TOO_BUSY, MIXED, figure)
        promise(f"mixed, 0.95 and 1.1: {words}, median fleet", 0.80, _TOO_BUSY, MIXED, figure)
        promise(f"uniform, any: {words}, worst fleet", 1.02, UTILISATIONS, UNIFORM, figure)
    blind = [results[Cell(HOT, u, SOONEST)].total / results[Cell(HOT, u, FORGETFUL)].total for u in UTILISATIONS]
    made.append(Promise("hot prefix: mean wait, to that without affinity", 1.06, max(blind)))
    loads = results[Cell(MANY_MODELS, 0.8, SOONEST)].loads
    made.append(Promise("4 models, 0.8: loads for 100 requests", 1.0, loads))
    return made + burst_promises()


def burst_promises(seeds: int = SEEDS) -> list[Promise]:
    return [
        Promise("burst of 16 on 4 hosts of 4 slots: greatest share, one gateway", 0.36, share(SOONEST, 1, seeds)),
        Promise("the same, three gateways that know of one another", 0.40, share(MIRRORED, 3, seeds)),
    ]


def share(strategy: str, gateways: int, seeds: int) -> float:
    """Of a burst, what the host gets that gets most."""
    return fmean(burst(strategy, gateways, seed) for seed in range(seeds))
