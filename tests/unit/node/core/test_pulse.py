import pytest

from geniehive_node.core.looks import Source, Trouble
from geniehive_node.core.pulse import HOSTED_INTERVAL, Pulse

DISCOVERED = Source(key="a", url="http://127.0.0.1:8080", loopback=True)
CONFIGURED = Source(key="a", url="http://127.0.0.1:9999", loopback=True, configured=True)


def test_a_healthy_engine_is_looked_at_each_interval() -> None:
    pulse = Pulse(DISCOVERED, 1.0)
    assert [pulse.after(None) for _ in range(3)] == [1.0, 1.0, 1.0]


def test_a_dead_port_is_asked_less_and_less_but_often() -> None:
    pulse = Pulse(CONFIGURED, 1.0)
    assert [pulse.after(Trouble.UNREACHABLE) for _ in range(5)] == [0.25, 0.5, 1.0, 2.0, 2.0]
    pulse.after(None)
    assert pulse.after(Trouble.UNREACHABLE) == 0.25


def test_another_trouble_starts_anew() -> None:
    pulse = Pulse(CONFIGURED, 1.0)
    for _ in range(5):
        pulse.after(Trouble.UNREACHABLE)
    assert pulse.after(Trouble.LOADING) == 0.25


def test_strangers_on_well_known_ports_are_left_in_peace() -> None:
    pulse = Pulse(DISCOVERED, 1.0)
    assert [pulse.after(Trouble.STRANGE) for _ in range(6)][-1] == 30.0


@pytest.mark.parametrize("trouble", list(Trouble))
def test_whatever_is_configured_is_asked_within_seconds(trouble: Trouble) -> None:
    pulse = Pulse(CONFIGURED, 1.0)
    assert max(pulse.after(trouble) for _ in range(1000)) <= 5.0


def test_providers_are_asked_seldom() -> None:
    pulse = Pulse(Source(key="p", url="https://api.example.com", configured=True, hosted=True), 1.0)
    assert pulse.after(None) == HOSTED_INTERVAL
    assert pulse.after(Trouble.SLOW) == 2.0
    assert max(pulse.after(Trouble.SLOW) for _ in range(20)) == HOSTED_INTERVAL


def test_the_demonstration_engine_is_awaited_eagerly_but_not_for_ever() -> None:
    pulse = Pulse(Source(key="d", url="http://127.0.0.1:8802", configured=True, demo=True), 1.0)
    delays = [pulse.after(Trouble.UNREACHABLE) for _ in range(300)]
    assert set(delays[:240]) == {0.25}
    assert delays[-1] == 2.0
