import time

from geniehive.kit.clock import Clock, SystemClock


def test_the_systems_time() -> None:
    clock: Clock = SystemClock()
    assert clock.now() <= clock.now()
    assert abs(clock.wall() - time.time()) < 60
