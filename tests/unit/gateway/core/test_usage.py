"""Tokens found in answers of all kinds, and nothing found where there is nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.outcome import Tokens
from gateway.core.usage import Count, Tail, tokens_of


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        # llama.cpp
        (
            b'{"choices":[],"usage":{"completion_tokens":8,"prompt_tokens":42,"total_tokens":50,'
            b'"prompt_tokens_details":{"cached_tokens":24}},"id":"x","timings":{"cache_n":0}}',
            Tokens(42, 8, 24),
        ),
        (b'{"usage":{"cache_read_input_tokens":32,"input_tokens":1,"output_tokens":12}}', Tokens(33, 12, 32)),
        # Anthropic
        (
            b'{"usage":{"input_tokens":5,"cache_creation_input_tokens":100,"cache_read_input_tokens":20,'
            b'"cache_creation":{"ephemeral_5m_input_tokens":100},"output_tokens":7,"server_tool_use":{"n":{"m":1}}}}',
            Tokens(125, 7, 20),
        ),
        # vLLM, responses
        (
            b'{"usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":3,"input_tokens_per_turn":[]},'
            b'"output_tokens":8,"output_tokens_details":{"reasoning_tokens":0}},"user":null}',
            Tokens(10, 8, 3),
        ),
        (b'{"data": [], "usage": {"prompt_tokens": 20, "total_tokens": 20}}', Tokens(20, 0)),
        (b'{"results":[],"usage":{"total_tokens":9}}', Tokens(9, 0)),
        (b'{"usage" :\n {"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":null}}', Tokens(1, 2)),
        (b'{"usage":{"prompt_tokens":1,"cached":9,"prompt_tokens_details":{"cached_tokens":5}}}', Tokens(1, 0, 1)),
        # The word as a value, and in a text.
        (b'{"usage":{"prompt_tokens":1},"x":"usage","y":{"a":2}}', Tokens(1, 0)),
        (rb'{"usage":{"prompt_tokens":1},"text":"{\"usage\":{\"prompt_tokens\":5}}"}', Tokens(1, 0)),
        (b"", None),
        (b"{}", None),
        (b'{"usage":null}', None),
        (b'{"usage":{}}', None),
        (b'{"usage":', None),
        (b'{"usage":{"prompt_tokens":1', None),
        (b'{"usage":{"prompt_tokens":1,"x":{"y":2}', None),
        (b'{"usage":{"prompt_tokens":"1"}}', None),
        (b'{"usage":{"prompt_tokens":-1}}', None),
        (b'{"usage":{"prompt_tokens":1e300}}', None),
        (b'{"usage":{"prompt_tokens":99999999999999999999999}}', None),
        (b'{"usage":[{"prompt_tokens":1}]}', None),
        (b'{"input_tokens":403}', None),
    ],
)
def test_found(body: bytes, tokens: Tokens | None) -> None:
    assert tokens_of(body) == tokens


@pytest.mark.parametrize("first", [True, False])
def test_of_a_large_answer_beginning_and_end_are_looked_at(first: bool) -> None:
    usage = b'"usage":{"prompt_tokens":3}'
    data = b'"data":[' + b"0.123456," * 40_000 + b"1]"
    assert tokens_of(b"{" + (usage + b"," + data if first else data + b"," + usage) + b"}") == Tokens(3, 0)


def test_parts_add_to_one_another() -> None:
    count = Count()
    count.look(b'{"message":{"usage":{"input_tokens":1,"cache_read_input_tokens":32,"output_tokens":0}}}')
    assert count.tokens == Tokens(33, 0, 32)
    count.look(b'{"usage":{"output_tokens":8}}')
    assert count.tokens == Tokens(33, 8, 32)


@given(st.binary(max_size=30), st.binary(max_size=60), st.integers(1, 50))
def test_pieces_of_an_answer_that_is_not_held(before: bytes, text: bytes, size: int) -> None:
    noise = json.dumps({"t": text.decode("latin-1")}).encode()
    body = before + noise * 20 + b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}'
    tail = Tail()
    for start in range(0, len(body), size):
        tail.pass_by(body[start : start + size])
    assert tail.tokens == Tokens(3, 4)


def test_of_such_an_answer_little_is_kept() -> None:
    tail = Tail()
    for _ in range(100):
        tail.pass_by(b'{"usage":{"prompt_tokens":3}}' + b" " * 65536)
    assert len(tail._kept) <= 16384
    assert tail.tokens is None


@given(st.binary() | st.lists(st.sampled_from([b'"usage"', b":", b"{", b"}", b" ", b"1", b'"', b"null"])).map(b"".join))
def test_no_bytes_do_harm(data: bytes) -> None:
    tokens_of(data)
