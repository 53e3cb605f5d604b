import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.kit.http1.head import CHUNKED, encode_head, encode_lines, join_lines, length_framing, line_start
from geniehive.kit.http1.origin import Origin

BOX = Origin("http", "box", 8000)


def test_head() -> None:
    head = encode_head(BOX, "POST", "/v1/x?a=b", [("accept", b"*/*"), (b"X-Name", "é")], length_framing(3))
    assert head == (
        b"POST /v1/x?a=b HTTP/1.1\r\nHost: box:8000\r\naccept: */*\r\nX-Name: \xc3\xa9\r\nContent-Length: 3\r\n\r\n"
    )


def test_bytes_that_are_not_utf8_survive_as_surrogates() -> None:
    value = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert b"a: \xff\xfe\r\n" in encode_head(BOX, "GET", "/", [("a", value)], b"\r\n")


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\r\nx: y", "\r\n\r\nGET / HTTP/1.1"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_injection(bad: str, as_bytes: bool) -> None:
    text = f"a{bad}b"
    raw: str | bytes = text.encode() if as_bytes else text
    with pytest.raises(ValueError, match="header"):
        encode_head(BOX, "GET", "/", [("x", raw)], b"\r\n")
    with pytest.raises(ValueError, match="header name"):
        encode_head(BOX, "GET", "/", [(raw, "x")], b"\r\n")
    with pytest.raises(ValueError, match="target"):
        encode_head(BOX, "GET", "/" + text, [], b"\r\n")
    with pytest.raises(ValueError, match="method"):
        encode_head(BOX, text, "/", [], b"\r\n")
    with pytest.raises(ValueError, match="origin"):
        encode_head(Origin("http", text, 1), "GET", "/", [], b"\r\n")


def test_the_message_does_not_show_the_value() -> None:
    with pytest.raises(ValueError, match="authorization") as refused:
        encode_head(BOX, "GET", "/", [("authorization", "Bearer secret\n")], b"\r\n")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["Host", "content-length", b"TRANSFER-ENCODING", "a b", "a:", "", "é"])
def test_names_refused(name: str | bytes) -> None:
    with pytest.raises(ValueError, match="header"):
        encode_head(BOX, "GET", "/", [(name, "x")], b"\r\n")


@pytest.mark.parametrize("target", ["", "/a b", "/a\tb", "/ HTTP/1.1"])
def test_targets_refused(target: str) -> None:
    with pytest.raises(ValueError, match="target"):
        encode_head(BOX, "GET", target, [], b"\r\n")


@given(st.text(), st.text(), st.lists(st.tuples(st.text() | st.binary(), st.text() | st.binary())))
def test_nothing_breaks_out(method: str, target: str, headers: list[tuple[str | bytes, str | bytes]]) -> None:
    try:
        head = encode_head(BOX, method, target, headers, CHUNKED)
    except ValueError:
        return
    lines = head.split(b"\r\n")
    assert len(lines) == 2 + len(headers) + 3
    assert lines[-2:] == [b"", b""]
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines)
    assert lines[0].count(b" ") == 2


def test_lines_encoded_once_serve_many_heads() -> None:
    lines = encode_lines([("a", "1"), (b"B", b"")])
    for path in ("/x", "/y"):
        expected = encode_head(BOX, "GET", path, [("a", "1"), (b"B", b"")], b"\r\n\r\n")
        assert encode_head(BOX, "GET", path, lines, b"\r\n\r\n") == expected


def test_joined_parts_are_checked_too() -> None:
    assert join_lines([line_start(b"a"), b"1"]) == b"\r\na: 1"
    assert join_lines([]) == b""
    with pytest.raises(ValueError, match="'b'") as raised:
        join_lines([line_start(b"a"), b"1", line_start(b"b"), b"secret\r\nc: 2"])
    assert "secret" not in str(raised.value)
    with pytest.raises(ValueError, match="set by the client"):
        line_start(b"Content-Length")
