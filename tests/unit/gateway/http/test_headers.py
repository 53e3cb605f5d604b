from gateway.core.balance import Choice
from gateway.http.headers import common, passed_on, served_by, status_line
from tests.unit.gateway.builders import candidate


def test_status_lines() -> None:
    assert status_line(404) == b"HTTP/1.1 404 Not Found\r\n"
    assert status_line(529) == b"HTTP/1.1 529 Unknown\r\n"


def test_values_can_not_break_out() -> None:
    a = candidate("a")
    lines = served_by(Choice(a, a.lanes[0], "x\r\nevil: 1"), 2)
    assert lines.count(b"\r\n") == 5
    assert b"x%0D%0Aevil: 1" in lines
    assert common("c\n") == b"server: GenieHive\r\nx-geniehive-cluster: c%0A\r\n"
    assert common("") == b"server: GenieHive\r\n"


def test_what_comes_back() -> None:
    given = [(b"Content-Type", b"a"), (b"Transfer-Encoding", b"chunked"), (b"Access-Control-Allow-Origin", b"*")]
    assert passed_on(given) == b"Content-Type: a\r\nAccess-Control-Allow-Origin: *\r\n"
