"""How long what a command runs has to stop."""

from gateway import workers
from geniehive.cli import children
from geniehive.kit import supervise


def test_a_gateway_with_workers_is_not_killed_while_it_still_may_wait_for_them() -> None:
    # It waits for a worker, kills it, and gets the last of its words.
    worst = children.DRAIN_SECONDS + workers.GRACE + supervise.LAST_WORDS_SECONDS
    assert children.STOPS["gateway"] > worst


def test_what_is_left_of_a_killed_run_has_ended_when_its_ports_are_given_up() -> None:
    assert max(children.STOPS.values()) <= children.LEFTOVER_SECONDS
