"""What `join` was told, kept for its next start."""

import argparse
import json
from pathlib import Path

import pytest

from geniehive.cli import kept
from geniehive.cli.__main__ import parser
from geniehive.kit.errors import UserError


def parse(*arguments: str) -> argparse.Namespace:
    return parser().parse_args(["join", *arguments])


def test_options_are_kept_and_replaced_one_by_one(tmp_path: Path) -> None:
    assert kept.load(tmp_path) == kept.Options()
    first = kept.Options().with_given(
        parse("h:1", "--gateway", "--engine", "http://e", "--relay", "--listen", "0.0.0.0:1")
    )
    first.save(tmp_path)
    assert kept.load(tmp_path) == first
    assert first.servers == ({"url": "http://e"},)
    assert (first.gateway, first.way, first.listen, first.embedded) == (True, "relay", "0.0.0.0:1", False)
    assert kept.load(tmp_path).with_given(parse()) == first
    then = kept.load(tmp_path).with_given(parse("--direct", "--engine", "http://f"))
    assert (then.way, then.servers, then.listen) == ("direct", ({"url": "http://f"},), "0.0.0.0:1")


def test_a_newer_file_is_read_and_a_damaged_one_named(tmp_path: Path) -> None:
    (tmp_path / "join.json").write_text(json.dumps({"gateway": True, "of_tomorrow": 1}))
    assert kept.load(tmp_path).gateway is True
    (tmp_path / "join.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*join\.json.*give the options of `join` again"):
        kept.load(tmp_path)


def test_the_path_of_a_certificate_holds_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert kept.Options().with_given(parse("--cert", "c.pem")).cert == str(tmp_path / "c.pem")
