"""What `geniehive up` prints."""

import json
import shlex
from typing import Any

import pytest

from geniehive.cli import banner
from geniehive.cli.banner import Model

CHAT, EMBED = Model("chat", operations=("chat",)), Model("embed", operations=("embeddings",))
DEMO, SERVICE = Model("demo", demo=True, operations=("chat",)), Model("h/s", operations=("chat",), kind="service")


def test_entries_with_and_without_our_extension() -> None:
    content = {
        "data": [
            {"id": "plain"},
            {"id": "ours", "geniehive": {"demo": True, "operations": ["chat"], "kind": "asset"}},
            {"id": "away", "geniehive": {"available": False}},
        ]
    }
    assert banner.read_models(content) == [
        Model("plain"),
        Model("ours", True, ("chat",), "asset"),
        Model("away", available=False),
    ]


@pytest.mark.parametrize("content", [None, [], {}, {"data": 3}, {"data": [3, {}, {"id": 3}]}])
def test_what_is_no_list_of_models(content: Any) -> None:
    assert banner.read_models(content) == []


@pytest.mark.parametrize("geniehive", [3, {"operations": 3, "demo": None}])
def test_an_extension_of_another_shape(geniehive: Any) -> None:
    assert banner.read_models({"data": [{"id": "m", "geniehive": geniehive}]})[0].name == "m"


def test_which_model_is_shown() -> None:
    assert banner.to_show([EMBED, DEMO, SERVICE, CHAT]) == CHAT
    assert banner.to_show([EMBED, DEMO, SERVICE]) == SERVICE
    assert banner.to_show([EMBED, DEMO]) == DEMO
    assert banner.to_show([EMBED]) is None
    assert banner.to_show([Model("away", operations=("chat",), available=False)]) is None
    assert banner.to_show([Model("unknown")]) == Model("unknown")


@pytest.mark.parametrize("name", ["m", "a/b:c", "it's $HOME", 'quo"te', "größe"])
def test_the_line_to_paste_survives_a_shell(name: str) -> None:
    words = shlex.split(banner.curl("http://127.0.0.1:8800", "ghc-k", Model(name)))
    assert words[:4] == ["curl", "http://127.0.0.1:8800/v1/chat/completions", "-H", "Authorization: Bearer ghc-k"]
    assert json.loads(words[-1])["model"] == name
    assert "\n" not in banner.curl("u", "k", Model(name))


def test_the_demo_model_is_not_asked_without_a_limit() -> None:
    body = json.loads(shlex.split(banner.curl("u", "k", Model("m", demo=True)))[-1])
    assert body["max_tokens"] == 64
    assert "max_tokens" not in json.loads(shlex.split(banner.curl("u", "k", Model("m")))[-1])


def test_demo_models_are_labelled_and_long_lists_cut() -> None:
    printed = banner.text("http://g", "k", "/state", [DEMO], [])
    assert "models      demo (demo model)\n" in printed
    many = [Model(f"m{n}") for n in range(6)]
    assert "m0, m1, m2, m3 and 2 more" in banner.text("http://g", "k", "/state", [*many, SERVICE], ["Mind this."])
    assert "none yet" in banner.text("http://g", "k", "/state", [], [])
