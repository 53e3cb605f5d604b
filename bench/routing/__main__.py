"""`python -m bench.routing`: runs the whole simulation, and says whether what is promised holds.

--report DIR      write routing-simulation.md and .svg there, too
--results FILE    keep the figures in this file as they come; what is in it already is not run anew
--more            also what nothing is promised of: rivals that know slots, or nothing; mirroring
--processes N     at once; else one for each core
"""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

from bench.routing.report import write
from bench.routing.results import Cell, Figures, measure_all, promises

# Figures after which the file is written.
_KEPT_EVERY = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description="GenieHive's strategies, simulated")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write a page and a plot of the figures there")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep figures there, and use those that are there")
    parser.add_argument("--more", action="store_true", help="measure what nothing is promised of, too")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="at once")
    options = parser.parse_args()
    known = {}
    if options.results and options.results.exists():
        known = {Cell(*cell): Figures(*figures) for cell, figures in json.loads(options.results.read_text())}
    found = measure_all(options.processes, known, partial(_tell, options.results), options.more)
    told = promises(found)
    if options.report:
        write(found, told, options.report)
    for promise in told:
        word = "reached" if promise.reached else "missed, as known" if promise.holds else "FAILS"
        print(f"{promise.found:.3f}, at most {promise.wanted:.3f} is wanted: {word}  {promise.text}")
    return 0 if all(promise.holds for promise in told) else 1


def _tell(kept: Path | None, found: dict[Cell, Figures], wanted: int) -> None:
    last = len(found) >= wanted
    if kept and (last or len(found) % _KEPT_EVERY == 0):
        kept.write_text(json.dumps([*found.items()]))
    if last or sys.stderr.isatty():
        print(f"\r{len(found)} of {wanted}", end="\n" if last else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
