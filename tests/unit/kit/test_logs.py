import json
import logging
import re
from collections.abc import Iterator

import pytest

from geniehive.kit import logs


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    root = logging.getLogger()
    held, level = list(root.handlers), root.level
    noisy = {name: logging.getLogger(name).level for name in ("aiohttp.access", "sqlalchemy.engine", "alembic", "grpc")}
    for handler in held:  # or `setup` would close pytest's
        root.removeHandler(handler)
    yield
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in held:
        root.addHandler(handler)
    root.setLevel(level)
    for name, before in noisy.items():
        logging.getLogger(name).setLevel(before)


def test_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("info")
    logging.getLogger("geniehive.x").info("hello %s", "you")
    logging.getLogger("geniehive.x").debug("not said")
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO    geniehive\.x: hello you\n", err)


def test_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("debug", "json")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("geniehive.x").exception("went wrong: ü")
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said.pop("time"))
    assert "ValueError: two\nlines" in said.pop("exception")
    assert said == {"level": "error", "logger": "geniehive.x", "message": "went wrong: ü"}


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_libraries_that_tell_everything_are_kept_quiet(level: str) -> None:
    logs.setup(level)
    assert logging.getLogger("aiohttp.access").level == max(logging.WARNING, logging.getLevelName(level.upper()))
