"""`geniehive usage`: what was asked, by whom, of what."""

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from geniehive.cli import common, output
from geniehive.cli.output import Cell
from geniehive.kit.errors import EXIT_OK, EXIT_USAGE, UserError

if TYPE_CHECKING:
    from geniehive.cli.common import Commands

# As geniehive.usage has them; that is too slow to import for a parser. A test compares them.
BY = ("key", "model", "host", "service", "endpoint", "operation", "hour", "day")
_PAGE_SIZE = 1000


def add(commands: "Commands") -> None:
    made = common.add_command(
        commands,
        "usage",
        "how much was asked: by key, model, host, hour",
        run,
        "Sum up requests, tokens and times. Whole hours only, and what gateways counted in the last seconds is\n"
        "missing. FAILED: also what an engine refused; LEFT: the client did not wait for the end; UNSERVED:\n"
        "nobody could take it. FIRST: until the first byte of the answer; P50, P95: so many percent took no longer.",
    )
    made.add_argument(
        "--by",
        action="append",
        choices=BY,
        metavar="WHAT",
        help=f"one row for each: {', '.join(BY)}; may be given several times (default: model)",
    )
    made.add_argument(
        "--since", metavar="TIME", default="24h", help="24h, 7d, 2026-11-01, 2026-11-01T08:00:00Z (default: 24h)"
    )
    made.add_argument("--until", metavar="TIME", help="likewise (default: now)")
    made.add_argument("--total", action="store_true", help="one row of everything")
    common.add_control_options(made)


def run(given: argparse.Namespace) -> int:
    from geniehive import usage
    from geniehive.client.sync import pages

    now = datetime.now(UTC)
    by = [] if given.total else list(dict.fromkeys(given.by or ["model"]))
    try:
        since = usage.moment(given.since, now)
        until = usage.moment(given.until, now) if given.until else now
        asked = usage.request(by, since, until, _PAGE_SIZE)
    except ValueError as error:
        raise UserError(str(error), EXIT_USAGE) from error
    with common.connected(given) as hive:
        rows = [usage.view(by, row) for row in pages(hive.registry.QueryUsage, asked, "rows")]
    if given.json:
        output.show_json({"by": by, "since": usage.iso(since), "until": usage.iso(until), "usage": rows})
    elif any(row["requests"] or row["attempts"] for row in rows):
        show(by, rows)
    else:
        print(f"nothing was asked since {usage.iso(since)}")
    return EXIT_OK


def show(by: list[str], rows: list[dict[str, Any]]) -> None:
    output.show_table(
        (*(word.upper() for word in by), "REQUESTS", "OK", "FAILED", "LEFT", "UNSERVED", "TOKENS IN",
         "OUT", "FIRST P50", "P95", "TIME P50", "P95"),
        [
            (
                *(Cell(row[word] or "-", "strong") for word in by),
                str(row["requests"]),
                str(row["requests_succeeded"]),
                Cell(str(row["requests_failed"]), "bad" if row["requests_failed"] else "dim"),
                Cell(str(row["requests_cancelled"]), "" if row["requests_cancelled"] else "dim"),
                Cell(str(row["requests_unserved"]), "warn" if row["requests_unserved"] else "dim"),
                _tokens(row, "prompt_tokens"),
                _tokens(row, "completion_tokens"),
                *(
                    _seconds(row[f"{name}_p{share}_seconds"])
                    for name in ("first_token", "duration")
                    for share in (50, 95)
                ),
            )
            for row in rows
        ],
    )  # fmt: skip


def _tokens(row: dict[str, Any], name: str) -> str:
    """Nothing where no engine told."""
    return str(row[name]) if row["requests_with_tokens"] else ""


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
