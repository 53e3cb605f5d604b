import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geniehive.rules import names

IDS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@pytest.mark.parametrize("text", ["a", "0", "gpu-1", "my-pc.local", "a_b", "a" * 63])
def test_ids(text: str) -> None:
    assert names.is_id(text)
    assert names.to_id(text) == text


@pytest.mark.parametrize("text", ["", "-a", ".a", "_a", "A", "a b", "a/b", "a:b", "ä", "a" * 64, "a\n"])
def test_no_ids(text: str) -> None:
    assert not names.is_id(text)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("My PC.local", "my-pc.local"),
        ("  Büro  ", "b-ro"),
        ("--x--", "x"),
        ("LLAMA.CPP @ 8080", "llama.cpp-8080"),
        ("日本", "host"),
        ("", "host"),
    ],
)
def test_the_nearest_id(text: str, made: str) -> None:
    assert names.to_id(text) == made


def test_the_nearest_id_to_nothing_is_the_callers() -> None:
    assert names.to_id("", "engine") == "engine"


@settings(deadline=None)
@given(st.text(max_size=200))
def test_whatever_is_made_is_an_id(text: str) -> None:
    assert names.is_id(names.to_id(text))


@settings(deadline=None)
@given(IDS, IDS)
def test_services_there_and_back(host: str, service: str) -> None:
    assert names.split_service(names.join_service(host, service)) == (host, service)


@pytest.mark.parametrize("text", ["", "gpu-1", "/ollama", "gpu-1/", "a/b/c", "A/b", "gpu-1/ollama\n"])
def test_what_names_no_service(text: str) -> None:
    with pytest.raises(ValueError, match="host/service"):
        names.split_service(text)


@pytest.mark.parametrize("text", ["qwen3:8b", "org/model-7B", "Модель", "with space", "x" * 512])
def test_model_names(text: str) -> None:
    assert names.is_model_name(text)


@pytest.mark.parametrize("text", ["", "x" * 513, "a\nb", "a\x00", "\x7f"])
def test_no_model_names(text: str) -> None:
    assert not names.is_model_name(text)


def test_resources_of_different_kinds_never_share_a_name() -> None:
    made = [
        names.route_resource("a/b"),
        names.endpoint_resource("a/b", "m"),
        names.upstream_resource("a/b"),
        names.relay_resource("a"),
        names.key_resource("a"),
    ]
    assert made == ["route/a/b", "endpoint/a/b/m", "upstream/a/b", "relay/a", "key/a"]


def test_globs() -> None:
    pattern = names.glob_pattern("claude-*")
    assert pattern.match("claude-opus")
    assert pattern.match("claude-")
    assert not pattern.match("my-claude-opus")
    # Nothing but "*" is special.
    assert names.glob_pattern("m[1].?*").match("m[1].?x")
    assert not names.glob_pattern("m[1].?*").match("m1.?x")
    assert sorted(["*", "claude-*", "cl*"], key=names.longest_first) == ["claude-*", "cl*", "*"]
