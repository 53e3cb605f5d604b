"""Tables for people, JSON for scripts."""

import json
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Tone = Literal["", "good", "bad", "warn", "dim", "strong"]
_STYLES: dict[Tone, str] = {"good": "green", "bad": "red", "warn": "yellow", "dim": "dim", "strong": "bold"}


class Cell(NamedTuple):
    text: str
    tone: Tone = ""


def show_json(content: Any) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str | Cell]], title: str = "") -> None:
    """On a terminal a table that fits it; else plain columns, one row a line, so that other programs can read them."""
    cells = [[_clean(c if isinstance(c, Cell) else Cell(c)) for c in row] for row in rows]
    if sys.stdout.isatty() and _show_rich(columns, cells, title):
        return
    if title:
        print(title)
    texts = [list(columns), *([c.text or "-" for c in row] for row in cells)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(columns))]
    for row in texts:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _show_rich(columns: Sequence[str], rows: Sequence[Sequence[Cell]], title: str) -> bool:
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        # Installed without the extra: plain columns do.
        return False
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(c.text or "-", style=_STYLES.get(c.tone, "")) for c in row))
    Console().print(table)
    return True


def _clean(cell: Cell) -> Cell:
    return cell._replace(text=clean(cell.text))


def clean(text: str) -> str:
    """`text` on one line, without characters that steer a terminal: some of it comes from other machines."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def show_lines(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one pair a line."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        print(f"{name.ljust(width)}  {clean(value)}")


def warn(text: str) -> None:
    print(f"geniehive: {clean(text)}", file=sys.stderr, flush=True)
