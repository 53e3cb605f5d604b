"""How another machine installs what runs here."""

import shlex
from typing import Any

import pytest

from geniehive.cli import install

GIT = "https://git.example/team/geniehive.git"
WHEEL = "geniehive-1.2-py3-none-any.whl"


@pytest.mark.parametrize(
    ("direct_url", "what"),
    [
        (None, "geniehive[all]==1.2"),
        ({"url": GIT, "vcs_info": {"vcs": "git", "commit_id": "abc"}}, f"geniehive[all] @ git+{GIT}@abc"),
        ({"url": GIT, "vcs_info": {"vcs": "git"}}, f"geniehive[all] @ git+{GIT}"),
        (
            {"url": "https://me:secret@git.example/g.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "geniehive[all] @ git+https://git.example/g.git@abc",
        ),
        (
            {"url": "ssh://git@git.example/g.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "geniehive[all] @ git+ssh://git@git.example/g.git@abc",
        ),
        (
            {"url": f"https://files.example/{WHEEL}", "archive_info": {}},
            f"geniehive[all] @ https://files.example/{WHEEL}",
        ),
        ({"url": f"file:///home/me/{WHEEL}", "archive_info": {}}, f"./{WHEEL}[all]"),
        ({"url": "file:///home/me/geniehive", "dir_info": {"editable": True}}, f"./{WHEEL}[all]"),
        ({"url": "file:///home/me/geniehive", "vcs_info": {"vcs": "git", "commit_id": "a"}}, f"./{WHEEL}[all]"),
        ({"url": "", "dir_info": {}}, "geniehive[all]==1.2"),
    ],
)
def test_how(direct_url: dict[str, Any] | None, what: str) -> None:
    assert shlex.split(install.how(direct_url, "1.2").line) == ["pipx", "install", what]


def test_what_to_do_before() -> None:
    from_file = install.how({"url": f"file:///x/{WHEEL}", "archive_info": {}}, "1.2")
    assert from_file.before == f"Copy {WHEEL} there, from which it was installed here."
    checkout = install.how({"url": "file:///x", "dir_info": {}}, "1.2")
    assert "make wheel" in checkout.before
    assert f"dist/{WHEEL}" in checkout.before
    assert install.how(None, "1.2").before == ""


def test_here() -> None:
    assert install.here().line.startswith("pipx install ")
