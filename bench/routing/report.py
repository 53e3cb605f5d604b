"""Figures as a page in Markdown, with a plot."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from statistics import median

from bench.routing.results import (
    MIXED,
    REQUESTS,
    SEEDS,
    UNIFORM,
    UTILISATIONS,
    Cell,
    Figures,
    Promise,
    Results,
    worst,
)
from bench.routing.rivals import MEASURED, MIRRORED, RIVALS, SOONEST, STRONGER, UNTOLD

PAGE, PLOT = "routing-simulation.md", "routing-simulation.svg"

_INTRO = f"""# The strategies, simulated

Made by `python -m bench.routing --report docs`. The engines, fleets and clients are simulated; what chooses is the
gateway's own code, `gateway/core/balance` with plans and load samples as in a real gateway. {SEEDS} seeds of {REQUESTS}
requests each, and their mean.

Fleets are of Ollamas (one request at a time), llama.cpps (four) and vLLMs (64), of 2 to 16 hosts that write 5 to 120
tokens a second, with one gateway or up to three; chats, bursts of them, agents with growing conversations, prompts that
begin alike, four models of which one to three fit on a host. Utilisation is the part of what the whole fleet could do.

Limits: an engine's slots are known, its queue is in order, a cold load holds up those behind it, and nothing fails.
"""


def write(results: Results, told: Sequence[Promise], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text("\n".join(_page(results, told)))
    (folder / PLOT).write_text(_plot(results))


def _page(results: Results, told: Sequence[Promise]) -> Iterable[str]:
    yield _INTRO
    yield f"![Mean wait with soonest, relative to the best rival]({PLOT})\n"
    yield "## Soonest to the best rival\n"
    yield (
        f"The best, figure by figure, of {', '.join(RIVALS)}. Below 1 `soonest` is better. Both `soonest` and `scored` "
        "were told the same benchmark of each engine; nothing else is known at the start of a run.\n"
    )
    yield "Median fleet / worst fleet.\n"
    yield from _summary(results, RIVALS)
    yield "\n## What was wanted\n"
    yield "Where several utilisations are named, the worst of them.\n"
    yield from _table(
        ("", "at most", "found", ""),
        ((p.text, f"{p.wanted:.2f}", f"{p.found:.3f}", "reached" if p.reached else "**missed**") for p in told),
    )
    yield "\n## Fleet by fleet, at 0.8\n"
    yield "Seconds with `soonest`, mean and p95 of the whole wait; then its ratio to each rival, mean / p95.\n"
    yield from _fleets(results, 0.8, RIVALS)
    if all(Cell(name, u, other) in results for name in MIXED for u in UTILISATIONS for other in (*STRONGER, *UNTOLD)):
        yield "\n## Without benchmarks\n"
        yield "Nobody knows speeds at the start of a run. Median fleet / worst fleet.\n"
        yield from _summary(results, UNTOLD, SOONEST)
        yield "\n## Beside stronger rivals\n"
        yield (
            "GenieHive's own `loaded_first`, `scored` and `least_loaded` count requests for each slot that an engine "
            "has, and that `scored` goes by control's weights, of a benchmark too. Median fleet / worst fleet.\n"
        )
        yield from _summary(results, STRONGER)
    yield "\n## Variants\n"
    yield "Mean and p95 wait at 0.8, relative to `soonest` without benchmarks.\n"
    yield from _variants(results)
    yield ""


def _summary(results: Results, rivals: Sequence[str], own: str = MEASURED) -> Iterable[str]:
    rows = []
    for u in UTILISATIONS:
        mixed = [worst(results, u, name, rivals, own) for name in MIXED]
        alike = [worst(results, u, name, rivals, own) for name in UNIFORM]
        rows.append(
            (
                f"{u:g}",
                *(f"{median(f[n] for f in mixed):.2f} / {max(f[n] for f in mixed):.2f}" for n in range(4)),
                f"{max(f.total for f in alike):.2f}, {max(f.total_p95 for f in alike):.2f}",
            )
        )
    head = ("utilisation", "mixed: mean", "p95", "first token: mean", "p95", "uniform: worst mean, p95")
    return _table(head, rows)


def _fleets(results: Results, u: float, rivals: Sequence[str]) -> Iterable[str]:
    rows = []
    for name in (*UNIFORM, *MIXED):
        ours = results[Cell(name, u, MEASURED)]
        rows.append((name, f"{ours.total:.1f}", f"{ours.total_p95:.1f}", *_to(ours, results, name, u, rivals)))
    return _table(("fleet", "mean", "p95", *rivals), rows)


def _to(ours: Figures, results: Results, name: str, u: float, rivals: Iterable[str]) -> Iterable[str]:
    for rival in rivals:
        other = results[Cell(name, u, rival)]
        yield f"{ours.total / other.total:.2f} / {ours.total_p95 / other.total_p95:.2f}"


def _variants(results: Results) -> Iterable[str]:
    rows = []
    for name in (*UNIFORM, *MIXED):
        plain = results[Cell(name, 0.8, SOONEST)]
        row = [name]
        for variant in (MEASURED, MIRRORED):
            other = results.get(Cell(name, 0.8, variant))
            same = "" if other is None else f"{other.total / plain.total:.2f} / {other.total_p95 / plain.total_p95:.2f}"
            row.append(same)
        rows.append(tuple(row))
    return _table(("fleet", "benchmarked", "mirrored"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"


_ROW, _LEFT, _WIDE, _TOP = 18, 220, 460, 46
_SHADES = ("#9ecae1", "#6baed6", "#3182bd", "#08519c", "#08306b")


def _plot(results: Results) -> str:
    """A row for each fleet, a dot for each utilisation: the mean wait, relative to the best rival."""
    names = (*MIXED, *UNIFORM)
    high = _TOP + _ROW * len(names) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDE + 30} {high}" '
        f'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="14">mean wait with soonest, relative to the best rival (left is better)</text>',
    ]
    for number, (u, shade) in enumerate(zip(UTILISATIONS, _SHADES, strict=True)):
        x = _LEFT + 8 + number * 90
        parts.append(f'<circle cx="{x}" cy="28" r="4" fill="{shade}"/><text x="{x + 8}" y="32">{u:g}</text>')
    for tenth in range(0, 12, 2):
        line = _x(tenth / 10)
        shade = "#888" if tenth == 10 else "#ddd"
        parts.append(f'<line x1="{line}" x2="{line}" y1="{_TOP - 6}" y2="{high - 20}" stroke="{shade}"/>')
        parts.append(f'<text x="{line}" y="{high - 8}" text-anchor="middle">{tenth / 10:g}</text>')
    for row, name in enumerate(names):
        y = _TOP + row * _ROW + 6
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        for u, shade in zip(UTILISATIONS, _SHADES, strict=True):
            found = worst(results, u, name).total
            parts.append(f'<circle cx="{_x(found)}" cy="{y}" r="4" fill="{shade}"/>')
    return "\n".join([*parts, "</svg>", ""])


def _x(ratio: float) -> float:
    return round(_LEFT + _WIDE * min(ratio, 1.1) / 1.1, 1)
