from gateway.core.plan import Choice
from gateway.http.headers import common, served_by
from tests.unit.gateway.builders import candidate


def test_values_can_not_break_out() -> None:
    a = candidate("a")
    lines = served_by(Choice(a, a.lanes[0], "x\r\nevil: 1"), 2)
    assert lines.count(b"\r\n") == 5
    assert b"x%0D%0Aevil: 1" in lines
    assert common("c\n") == b"server: GenieHive\r\nx-geniehive-cluster: c%0A\r\n"
    assert common("") == b"server: GenieHive\r\n"
