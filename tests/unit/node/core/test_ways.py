import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from geniehive.rules.operations import BY_PATH
from geniehive_node.core import ways
from geniehive_node.core.looks import Choice, Source
from geniehive_node.core.ways import Reach

LOOPBACK = Source(key="a", url="http://127.0.0.1:11434", loopback=True)
ELSEWHERE = Source(key="a", url="http://192.0.2.7:8000")
KEYED = Source(key="a", url="http://127.0.0.1:8080", loopback=True, has_key=True)
HOSTED = Source(key="a", url="https://api.example.com", has_key=True, hosted=True)
OTHER_PATH = Source(key="a", url="http://192.0.2.7:8000", base_path="/api/v1")

ALONE = Reach()
LAN = Reach(far=True)
JOINED = Reach(near=False, far=True)
NO_RELAY = Reach(near=False, far=True, no_relay="the relay is on holiday")
OUTSIDE = "http://192.0.2.1:11434"

HERE = "same host: http://127.0.0.1:11434"
RELAY = "relay"


def short(found: ways.Ways) -> list[str]:
    assert all(way.reason for way in found.ways)
    assert bool(found.ways) != bool(found.trouble)
    return [
        RELAY if w.direct_url is None else f"{'same host: ' if w.same_host_only else ''}{w.direct_url}"
        for w in found.ways
    ]


@pytest.mark.parametrize(
    ("source", "way", "reach", "outside", "expected"),
    [
        (LOOPBACK, "auto", ALONE, None, [HERE, RELAY]),
        (LOOPBACK, "direct", ALONE, None, [HERE]),
        (LOOPBACK, "relay", ALONE, None, [RELAY]),
        (LOOPBACK, "auto", ALONE, OUTSIDE, [HERE, RELAY]),  # nobody else may come
        (LOOPBACK, "auto", LAN, None, [HERE, RELAY]),
        (LOOPBACK, "auto", LAN, OUTSIDE, [HERE, OUTSIDE, RELAY]),
        (LOOPBACK, "direct", LAN, OUTSIDE, [HERE, OUTSIDE]),
        (LOOPBACK, "relay", LAN, OUTSIDE, [RELAY]),
        (LOOPBACK, "auto", JOINED, None, [RELAY]),
        (LOOPBACK, "auto", JOINED, OUTSIDE, [OUTSIDE, RELAY]),
        (LOOPBACK, "direct", JOINED, OUTSIDE, [OUTSIDE]),
        (LOOPBACK, "direct", JOINED, None, []),
        (LOOPBACK, "auto", NO_RELAY, OUTSIDE, [OUTSIDE]),
        (LOOPBACK, "auto", NO_RELAY, None, []),
        (ELSEWHERE, "auto", ALONE, None, ["http://192.0.2.7:8000", RELAY]),
        (ELSEWHERE, "auto", NO_RELAY, None, ["http://192.0.2.7:8000"]),
        (ELSEWHERE, "relay", JOINED, None, [RELAY]),
        (KEYED, "auto", JOINED, OUTSIDE, [RELAY]),
        (KEYED, "direct", JOINED, OUTSIDE, []),
        (KEYED, "auto", NO_RELAY, OUTSIDE, []),
        (HOSTED, "auto", ALONE, None, [RELAY]),
        (OTHER_PATH, "auto", JOINED, None, [RELAY]),
        (OTHER_PATH, "direct", JOINED, None, []),
    ],
)
def test_table(source: Source, way: str, reach: Reach, outside: str | None, expected: list[str]) -> None:
    assert short(ways.of(replace(source, way=Choice(way)), reach, outside)) == expected


def test_paths_of_its_own_are_known_to_the_relay_alone() -> None:
    assert short(ways.of(LOOPBACK, LAN, OUTSIDE, own_paths=True)) == [RELAY]
    assert "other paths" in ways.of(replace(ELSEWHERE, way=Choice.DIRECT), LAN, None, own_paths=True).trouble
    assert "key" in ways.of(replace(KEYED, way=Choice.DIRECT), LAN, None, own_paths=True).trouble


def test_who_can_be_reached_by_neither_way_is_told_what_to_do() -> None:
    told = ways.of(replace(KEYED, way=Choice.DIRECT), JOINED).trouble
    assert "it needs a key" in told
    assert "way: auto" in told
    told = ways.of(KEYED, NO_RELAY).trouble
    assert "it needs a key" in told
    assert "the relay is on holiday" in told


def test_the_base_path_takes_the_place_of_v1() -> None:
    assert ways.upstream_path("/v1", "/v1/chat/completions") == "/v1/chat/completions"
    assert ways.upstream_path("/openai/v1", "/v1/chat/completions") == "/openai/v1/chat/completions"
    assert ways.upstream_path("/v1", "/rerank") == "/rerank"
    assert ways.upstream_path("/api", "/rerank") == "/api/rerank"


@given(st.sampled_from(sorted(BY_PATH)), st.text(max_size=6), st.integers(0, 40))
def test_only_the_exact_paths_of_the_api_pass(path: str, extra: str, at: int) -> None:
    altered = path[:at] + extra + path[at:]
    assert (ways.upstream_path("/v1", altered) is not None) == (altered in BY_PATH)


@pytest.mark.parametrize(
    "path",
    ["/v1/../v1/chat/completions", "//v1/chat/completions", "/v1/chat%2fcompletions", "/v1/models", "/v1/embeddings/"],
)
def test_nothing_is_normalised(path: str) -> None:
    assert ways.upstream_path("/v1", path) is None
