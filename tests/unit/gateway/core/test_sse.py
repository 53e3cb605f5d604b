"""Streams come out as they went in, but for the event that the gateway asked for, however they are split."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.outcome import Tokens
from gateway.core.sse import End, Events

CHUNK = '{"id":"x","object":"chat.completion.chunk","choices":[%s],"model":"m"%s}'
USAGE = ',"usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":2}}'
CONTENT = CHUNK % ('{"index":0,"delta":{"content":"wörd \\"usage\\": {"},"finish_reason":null}', "")
FINISH = CHUNK % ('{"index":0,"delta":{},"finish_reason":"stop"}', "")
FINISH_WITH_USAGE = CHUNK % ('{"index":0,"delta":{},"finish_reason":"stop"}', USAGE)
NULL = CHUNK % ('{"index":0,"delta":{"content":"a"}}', ',"usage":null')
SPACED_NULL = CHUNK % ('{"index":0,"delta":{"content":"a"}}', ',"usage": null')
FILTERS = CHUNK % ("", ',"usage":null,"prompt_filter_results":[]')
FOR_USAGE = CHUNK % ("", USAGE)
TOKENS = Tokens(10, 5, 2)


def run(pieces: list[bytes], asked: bool, end: End = End.CHAT) -> tuple[bytes, Events]:
    events = Events(end, asked)
    out = b"".join(map(events.feed, pieces))
    return out + events.finish(), events


def split(stream: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(stream[:size])
        stream = stream[size:]
    return [p for p in (*pieces, stream) if p]


def data(text: str, end: str = "\n") -> bytes:
    return f"data: {text}{end}{end}".encode()


ENDS = st.sampled_from(["\n", "\r\n", "\r"])
OTHERS = st.sampled_from(
    [CONTENT, FINISH, FINISH_WITH_USAGE, NULL, SPACED_NULL, FILTERS, "[DONE]", "{}", "", "garbage", "[1", "é模"]
)
EVENTS = st.one_of(
    st.tuples(st.just("data: "), OTHERS),
    st.tuples(st.sampled_from(["data:", "event: x%sdata: ", "id: 7%sdata: ", ": ping%sdata: "]), OTHERS),
    st.tuples(st.sampled_from([":", ": OPENROUTER PROCESSING", "retry: 3", ""]), st.just("")),
)
WANTED = st.tuples(st.sampled_from(["data: ", "data:", "event: x%sdata: ", "id: 1%sdata:"]), st.just(FOR_USAGE))


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A stream, and what is left of it without the events for usage."""
    end = draw(ENDS)
    whole = left = b""
    for prefix, text in draw(st.lists(EVENTS | WANTED, max_size=8)):
        event = (prefix.replace("%s", end) + text + end + end).encode()
        whole += event
        if text != FOR_USAGE:
            left += event
    if draw(st.booleans()):  # broken off, but not within an event for usage
        rest = draw(st.sampled_from([b"data: {", b"data: [DONE]", b"data", b": ", b" ", "data: é".encode()[:-1]]))
        whole, left = whole + rest, left + rest
    return whole, left


SIZES = st.lists(st.integers(0, 60) | st.integers(0, 3), max_size=60)


@given(streams(), SIZES)
def test_untouched_when_the_gateway_did_not_ask(stream: tuple[bytes, bytes], sizes: list[int]) -> None:
    events = Events(End.CHAT)
    for piece in split(stream[0], sizes):
        assert events.feed(piece) == piece
    assert events.finish() == b""


@given(streams(), SIZES)
def test_only_the_events_for_usage_are_taken_out(stream: tuple[bytes, bytes], sizes: list[int]) -> None:
    whole, left = stream
    out, events = run(split(whole, sizes), asked=True)
    assert out == left
    assert events.tokens == (TOKENS if USAGE.encode() in whole else None)


@given(st.binary(max_size=200), SIZES)
def test_any_bytes(stream: bytes, sizes: list[int]) -> None:
    for asked in (False, True):
        assert run(split(stream, sizes), asked)[0] == stream


@given(streams(), SIZES)
def test_a_whole_event_is_never_held_back(stream: tuple[bytes, bytes], sizes: list[int]) -> None:
    whole = stream[0].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events = Events(End.CHAT, asked=True)
    fed = out = b""
    for piece in split(whole, sizes):
        fed += piece
        out += events.feed(piece)
        border = fed.rfind(b"\n\n") + 2
        if border > 1:
            expected = run([fed[:border]], asked=True)[0]
            assert len(out) >= len(expected)


@pytest.mark.parametrize(
    "part",
    [
        b": ping\n",
        b'data: {"choices":[{"delta":{"content":"a',
        b'data: {"choices" : [ {',
        b'data: {"choices":null',
        b'data: {"error":{"message":"' + b"x" * 20_000,
    ],
)
def test_what_can_not_be_for_usage_is_not_held_back(part: bytes) -> None:
    assert Events(End.CHAT, asked=True).feed(part) == part


@pytest.mark.parametrize("part", [b"d", b"data: {", b'data: {"choices":[', b'data: {"choices":[],"usage":{}}\n'])
def test_what_may_be_for_usage_is_held_back(part: bytes) -> None:
    events = Events(End.CHAT, asked=True)
    assert events.feed(part) == b""
    assert events.finish() + events.finish() == (b"" if b"usage" in part else part)


def test_comments_before_the_event_for_usage_pass() -> None:
    stream = b": a\n: b\n" + data(FOR_USAGE) + data("[DONE]")
    for size in range(1, len(stream)):
        assert run([stream[:size], stream[size:]], asked=True)[0] == b": a\n: b\n" + data("[DONE]")


def test_usage_that_the_client_asked_for_stays() -> None:
    stream = data(CONTENT) + data(FOR_USAGE) + data("[DONE]")
    assert run([stream], asked=False)[0] == stream


def test_usage_without_end_of_the_event() -> None:
    out, events = run([data(FINISH), f"data: {FOR_USAGE}\n".encode()], asked=True)
    assert out == data(FINISH)
    assert events.tokens == TOKENS


MESSAGES = [
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":1,"output_tokens":0,'
    b'"cache_read_input_tokens":32}}}\n\n',
    b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"\\"usage\\":{}"}}\n\n',
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":8}}\n\n',
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
]
RESPONSES = [
    b'event: response.created\ndata: {"type":"response.created","response":{"usage":null}}\n\n',
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a"}\n\n',
    b'event: response.completed\ndata: {"type":"response.completed","response":{"output":["%s"],"usage":'
    b'{"input_tokens":33,"output_tokens":8,"input_tokens_details":{"cached_tokens":32}}}}\n\n' % (b"x" * 3000),
]


@pytest.mark.parametrize("size", [1, 7, 100, 5000, 1 << 20])
@pytest.mark.parametrize(("end", "events"), [(End.MESSAGES, MESSAGES), (End.RESPONSES, RESPONSES)])
def test_other_apis(end: End, events: list[bytes], size: int) -> None:
    stream = b"".join(events)
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    out, watched = run(pieces, asked=False, end=end)
    assert out == stream
    assert watched.tokens == Tokens(33, 8, 32)
    assert watched.ended
    assert not watched.failed
    assert not run(events[:-1], asked=False, end=end)[1].ended


@pytest.mark.parametrize("size", [1000, 100_000, 10_000_000])
def test_an_event_larger_than_what_is_kept(size: int) -> None:
    stream = RESPONSES[-1].replace(b"x" * 3000, b"x" * 3_000_000)
    events = Events(End.RESPONSES)
    for at in range(0, len(stream), size):
        piece = stream[at : at + size]
        assert events.feed(piece) == piece
        assert len(events._kept) <= 256 * 1024
    assert events.tokens == Tokens(33, 8, 32)
    assert events.ended


@pytest.mark.parametrize(
    ("stream", "ended"),
    [
        (data(CONTENT) + data("[DONE]"), True),
        (data(FINISH), True),
        (data(FINISH) + data(FOR_USAGE), True),
        (data(FINISH.replace('":"stop"', '": "stop"')), True),
        (data(CONTENT) + b"data: [DONE]", True),
        (data(CONTENT) + b"data: [DONE]\n", True),
        (data(CONTENT) + b"data:[DONE]\n\n", True),
        (b"", False),
        (data(CONTENT), False),
        (data(CONTENT)[:-20], False),
        (data(CONTENT.replace("wörd", json.dumps('"finish_reason":"stop"')[1:-1])), False),
    ],
)
@pytest.mark.parametrize("size", [1, 10, 1 << 20])
def test_whether_a_chat_came_to_its_end(stream: bytes, ended: bool, size: int) -> None:
    for asked in (False, True):
        events = Events(End.CHAT, asked)
        for at in range(0, len(stream), size):
            events.feed(stream[at : at + size])
        assert events.ended is ended
        events.finish()
        assert events.ended is ended
        assert not events.failed


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":{"message":"x"}}\n\n',
        b'data: {"error":"x"}\n\n',
        b'event: error\ndata: {"type":"error","error":{}}\n\n',
        b'data: {"type":"error","message":"x"}\n\n',
        b'event: response.failed\ndata: {"type":"response.failed","response":{}}\n\n',
    ],
)
def test_errors_that_engines_tell(event: bytes) -> None:
    assert run([data(CONTENT), event], asked=True)[1].failed
    assert not run([data(CONTENT), data('{"error":null}')], asked=True)[1].failed


TIMINGS = ',"timings":{"cache_n":2,"prompt_n":8,"prompt_ms":1.5,"predicted_n":5,"predicted_ms":258.592}'
TIMED = CHUNK % ('{"index":0,"delta":{},"finish_reason":"stop"}', TIMINGS)


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("last", [[TIMED], [FINISH, CHUNK % ("", USAGE + TIMINGS)], [FINISH, FOR_USAGE]])
def test_engines_that_send_timings(last: list[str], size: int) -> None:
    stream = b"".join(map(data, [CONTENT, *last, "[DONE]"]))
    events = Events(End.CHAT, timed=True)
    for at in range(0, len(stream), size):
        assert events.feed(stream[at : at + size]) == stream[at : at + size]
    assert events.finish() == b""
    assert events.tokens == TOKENS


def test_timings_with_each_event() -> None:
    first = CHUNK % ('{"index":0,"delta":{"content":"a"}}', TIMINGS.replace("5,", "1,"))
    for pieces in ([data(first), data(TIMED)], [data(first) + data(TIMED)]):
        events = Events(End.CHAT, timed=True)
        for piece in pieces:
            events.feed(piece)
        assert events.tokens == TOKENS


def test_streams_that_do_not_say_how_they_end() -> None:
    assert Events(End.NONE).ended
