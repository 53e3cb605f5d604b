import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.cors import Cors

PAGE = "https://chat.example.com"


def test_nobody_by_default() -> None:
    assert not Cors(())
    assert Cors(()).lines(PAGE) == b""


def test_a_page_that_may_is_named_and_another_hears_nothing() -> None:
    cors = Cors([PAGE + "/", "http://localhost:3000"])
    lines = cors.lines(PAGE)
    assert b"access-control-allow-origin: https://chat.example.com\r\n" in lines
    assert b"vary: Origin\r\n" in lines
    assert b"credentials" not in lines
    assert cors.lines("http://localhost:3000")
    for other in ("https://chat.example.com.evil.org", "http://chat.example.com", "null", ""):
        assert cors.lines(other) == b""


def test_a_page_may_read_what_the_gateway_says_in_headers() -> None:
    line = next(line for line in Cors(["*"]).lines(PAGE).decode().split("\r\n") if "expose-headers" in line)
    exposed = set(line.partition(": ")[2].split(", "))
    ours = {"cluster", "host", "service", "model", "route", "attempts"}
    limits = {
        f"x-ratelimit-{said}-{what}" for said in ("limit", "remaining", "reset") for what in ("requests", "tokens")
    }
    assert exposed == {"x-request-id", "request-id", "retry-after"} | {f"x-geniehive-{name}" for name in ours} | limits


def test_all_pages() -> None:
    assert b"access-control-allow-origin: *\r\n" in Cors(["*"]).lines("https://any.where")


@pytest.mark.parametrize("wrong", ["chat.example.com", "https://a/b", "https://a b", "https://a\r\nx: y", "://x", ""])
def test_what_is_no_origin(wrong: str) -> None:
    with pytest.raises(ValueError, match="no origin"):
        Cors([wrong])


@given(st.text(max_size=60), st.text(max_size=60))
def test_nothing_that_a_browser_says_makes_a_header_of_its_own(origin: str, wanted: str) -> None:
    cors = Cors([PAGE])
    for lines in (cors.lines(origin), cors.preflight("POST", wanted)):
        assert all(line.startswith((b"access-control-", b"vary: ")) for line in lines.split(b"\r\n") if line)
        assert lines.count(b"\n") == lines.count(b"\r\n") == lines.count(b"\r")
