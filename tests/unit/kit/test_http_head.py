from geniehive.kit.http_head import AnswerHead, read_head, status_line


def test_status_lines() -> None:
    assert status_line(404) == b"HTTP/1.1 404 Not Found\r\n"
    assert status_line(529) == b"HTTP/1.1 529 Unknown\r\n"


def test_what_comes_back() -> None:
    given = [
        (b"Content-Type", b"a"), (b"Transfer-Encoding", b"chunked"), (b"Access-Control-Allow-Origin", b"*"),
        (b"Access-Control-Allow-Headers", b""), (b"X-Empty", b""), (b"X-GenieHive-Host", b"x"),
    ]  # fmt: skip
    lines = b"Content-Type: a\r\nX-Empty: \r\n"
    assert read_head(given) == AnswerHead(lines, None, events=False)


def test_what_a_connection_header_names_stops_here() -> None:
    given = [
        (b"X-One", b"1"),
        (b"Connection", b"x-one"),
        (b"X-Two", b"2"),
        (b"connection", b"close, X-TWO"),
        (b"A", b""),
    ]
    assert read_head(given).lines == b"A: \r\n"


def test_what_the_body_is() -> None:
    assert read_head([(b"CONTENT-LENGTH", b"12"), (b"content-type", b"text/plain")]) == AnswerHead(
        b"content-type: text/plain\r\n", 12, events=False
    )
    assert read_head([(b"content-type", b"Text/Event-Stream; charset=utf-8")]).events
    assert read_head([(b"content-length", b"-1")]).length is None
