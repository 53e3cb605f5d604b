import os
import subprocess
import sys
from pathlib import Path

import pytest

from geniehive.kit import notices


def test_nothing_is_said_without_a_supervisor(capsys: pytest.CaptureFixture[str]) -> None:
    notices.send("ready", url="u")
    assert capsys.readouterr().out == ""


def test_a_notice_is_a_line_that_can_be_read_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENIEHIVE_NOTICES", "1")
    notices.send("first_look", engines=["a\nb", "ü"], chat_models=2)
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert notices.parse(line.encode()) == {"notice": "first_look", "engines": ["a\nb", "ü"], "chat_models": 2}


@pytest.mark.parametrize("line", [b"", b"hello\n", b"{", b"[1]", b"{}", b'{"notice": 1}', b"\xff\n", b'"notice"'])
def test_other_lines_are_no_notices(line: bytes) -> None:
    assert notices.parse(line) is None


def test_a_supervisor_that_is_gone_does_no_harm(root: Path) -> None:
    code = (
        "import sys; from geniehive.kit import notices; sys.stdin.readline();"
        "notices.send('one'); notices.send('two'); print('went on', file=sys.stderr)"
    )
    environment = {**os.environ, "GENIEHIVE_NOTICES": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=root,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.close()
    child.stdout = None
    _, err = child.communicate(b"go\n", timeout=20)
    assert (child.returncode, err) == (0, b"went on\n")
