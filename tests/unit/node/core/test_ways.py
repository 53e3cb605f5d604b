import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.rules.operations import BY_PATH
from geniehive_node.core import ways
from geniehive_node.core.looks import Source

LOOPBACK = Source(key="a", url="http://127.0.0.1:11434", loopback=True)


def test_loopback_without_a_key_is_reached_directly_on_the_same_host_then_by_relay() -> None:
    direct, relayed = ways.of(LOOPBACK)
    assert direct.direct_url == "http://127.0.0.1:11434"
    assert direct.same_host_only
    assert relayed.direct_url is None


def test_an_open_engine_off_loopback_is_reached_by_everybody() -> None:
    direct, relayed = ways.of(Source(key="a", url="http://192.0.2.7:8000"))
    assert not direct.same_host_only
    assert relayed.direct_url is None


@pytest.mark.parametrize(
    "source",
    [
        Source(key="a", url="http://127.0.0.1:8080", loopback=True, has_key=True),
        Source(key="a", url="https://api.example.com", has_key=True, hosted=True),
        Source(key="a", url="http://192.0.2.7:8000", base_path="/api/v1"),
    ],
)
def test_a_key_or_another_path_leaves_the_relay_alone(source: Source) -> None:
    (way,) = ways.of(source)
    assert way.direct_url is None
    assert way.reason


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
