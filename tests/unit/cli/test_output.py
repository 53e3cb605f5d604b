"""Tables for people and other programs."""

import sys

import pytest

from geniehive.cli import output
from geniehive.cli.output import Cell

Capture = pytest.CaptureFixture[str]


def test_plain_columns_where_nobody_looks(capsys: Capture) -> None:
    output.show_table(("A", "LONG"), [("x", Cell("", "dim")), ("longer", Cell("y", "good"))], "title")
    assert capsys.readouterr().out == "title\nA       LONG\nx       -\nlonger  y\n"


def test_a_table_on_a_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    output.show_table(("A",), [("[bold]x",)])
    printed = capsys.readouterr().out
    # Names are shown as they are, whatever they look like.
    assert "[bold]x" in printed
    assert "─" in printed


def test_without_rich_a_terminal_gets_plain_columns(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "rich", None)
    output.show_table(("A",), [("x",)])
    assert capsys.readouterr().out == "A\nx\n"


def test_what_would_steer_a_terminal_is_left_out(capsys: Capture) -> None:
    output.show_table(("A",), [("x\x1b[2Jy\nz",)])
    output.show_lines([("a", "b\x07c")])
    output.warn("d\re")
    printed = capsys.readouterr()
    assert printed.out == "A\nx [2Jy z\na  b c\n"
    assert printed.err == "geniehive: d e\n"


def test_json_is_readable(capsys: Capture) -> None:
    output.show_json({"a": "größe"})
    assert capsys.readouterr().out == '{\n  "a": "größe"\n}\n'
