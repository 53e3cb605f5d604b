"""One request, as a conversation: >> event, << effect."""

import pytest

from gateway.core.attempt import (
    ENDED,
    START,
    Abort,
    Answered,
    Attempt,
    Broke,
    ConnectFailed,
    Effect,
    Event,
    Fail,
    FailInStream,
    Forward,
    Lost,
    RelayRefused,
    TimedOut,
    Try,
)
from gateway.core.balance import Balance
from gateway.core.budget import RetryBudget
from gateway.core.plan import Plan, Unusable
from tests.unit.gateway.builders import candidate, plan

A, B, C = candidate("a"), candidate("b"), candidate("c")


class Talk:
    def __init__(self, asked: Plan, balance: Balance | None = None, budget: RetryBudget | None = None) -> None:
        self.balance = balance or Balance()
        self.attempt = Attempt("m", asked, self.balance, budget or RetryBudget())
        self.now = 1.0

    def say(self, event: Event) -> Effect:
        return self.attempt.handle(event, self.now)

    def tries(self, event: Event, host: str, number: int) -> None:
        effect = self.say(event)
        assert isinstance(effect, Try), effect
        assert (effect.choice.candidate.host, effect.number) == (host, number)
        assert sum(self.balance.in_flight.values()) == 1

    def fails(self, event: Event, status: int, code: str) -> str:
        effect = self.say(event)
        assert isinstance(effect, Fail), effect
        assert (effect.error.status, effect.error.code) == (status, code)
        assert self.balance.in_flight == {}
        return effect.error.message


def test_the_usual_course() -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    assert talk.say(Answered(200)) == Forward()
    assert talk.attempt.state == "forwarding"
    talk.say(ENDED)
    assert talk.balance.in_flight == {}
    talk.say(ENDED)  # saying it twice harms nothing
    assert talk.attempt.state == "done"


@pytest.mark.parametrize(
    "failure",
    [ConnectFailed("refused"), Lost("reset"), TimedOut("late"), *(Answered(s) for s in (502, 503, 504)),
     *(RelayRefused(w, "") for w in ("unauthorized", "unknown-service", "connect-failed", "timeout", "stopping",
                                     "upstream-broke", "path-not-allowed"))],
)  # fmt: skip
def test_failures_before_the_first_byte_go_to_another_endpoint(failure: Event) -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    talk.tries(failure, "b", 2)
    assert talk.say(Answered(200)) == Forward()


@pytest.mark.parametrize("status", [200, 201, 400, 401, 404, 422, 429, 500, 501])
def test_other_statuses_pass_unchanged(status: int) -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    assert talk.say(Answered(status)) == Forward()


def test_each_endpoint_once_then_the_last_503_passes() -> None:
    talk = Talk(plan((A,), (B, C)))
    talk.tries(START, "a", 1)
    talk.tries(Answered(503, "Loading model"), "b", 2)
    talk.tries(Answered(503), "c", 3)
    assert talk.say(Answered(503)) == Forward()


def test_unreachable_everywhere_is_503_with_each_reason() -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    talk.tries(Answered(503, "Loading model"), "b", 2)
    message = talk.fails(ConnectFailed("refused"), 503, "no_endpoint")
    assert "a/e/m: answered 503: Loading model" in message
    assert "b/e/m: refused" in message


def test_the_last_failure_decides_the_status() -> None:
    talk = Talk(plan((A,)))
    talk.tries(START, "a", 1)
    talk.fails(Lost("reset"), 502, "upstream_failed")
    talk = Talk(plan((A,)))
    talk.tries(START, "a", 1)
    talk.fails(TimedOut("nothing for 300 s"), 504, "upstream_timeout")


def test_nobody_to_ask() -> None:
    talk = Talk(Plan("m", (), (Unusable("a/e/m", "offline: gone"),)))
    assert "a/e/m: offline: gone" in talk.fails(START, 503, "no_endpoint")


def test_a_failed_connection_ejects_and_an_answer_clears() -> None:
    balance = Balance()
    talk = Talk(plan((A, B)), balance)
    talk.tries(START, "a", 1)
    talk.tries(ConnectFailed("refused"), "b", 2)
    talk.say(ENDED)
    assert balance.ejections.ejected(1.0) == [A.lanes[0]]
    later = Talk(plan((A, B)), balance)
    later.now = 2.5
    later.tries(START, "a", 1)
    later.say(Answered(200))
    assert balance.ejections.ejected(2.5) == []


@pytest.mark.parametrize("failure", [Lost("reset"), TimedOut("late"), Answered(503), RelayRefused("timeout", "")])
def test_other_failures_do_not_eject(failure: Event) -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    talk.tries(failure, "b", 2)
    assert talk.balance.ejections.ejected(1.0) == []


@pytest.mark.parametrize("word", ["connect-failed", "unauthorized", "unknown-service", "stopping"])
def test_a_relay_that_can_not_ask_the_engine_is_ejected(word: str) -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    talk.tries(RelayRefused(word, ""), "b", 2)
    assert talk.balance.ejections.ejected(1.0) == [A.lanes[0]]


def test_a_direct_way_gives_way_to_the_relay_of_the_same_endpoint() -> None:
    two, budget = candidate("two", lanes=2), RetryBudget()
    while budget.retry(1.0):  # it is no retry
        pass
    talk = Talk(plan((two, B)), budget=budget)
    talk.tries(START, "two", 1)
    talk.tries(ConnectFailed("refused"), "two", 2)
    assert talk.attempt.choice is not None
    assert talk.attempt.choice.lane == two.lanes[1]
    assert talk.say(Answered(200)) == Forward()


def test_when_all_its_lanes_fail_another_endpoint_is_tried() -> None:
    talk = Talk(plan((candidate("two", lanes=2), B)))
    talk.tries(START, "two", 1)
    talk.tries(ConnectFailed("refused"), "two", 2)
    talk.tries(RelayRefused("connect-failed", ""), "b", 3)


def test_no_retry_beyond_the_budget() -> None:
    budget = RetryBudget()
    while budget.retry(1.0):
        pass
    talk = Talk(plan((A, B)), budget=budget)
    talk.tries(START, "a", 1)
    talk.fails(Lost("reset"), 502, "upstream_failed")


def test_an_answer_that_is_collected_whole_may_be_retried() -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    assert talk.say(Answered(200)) == Forward()
    talk.tries(Lost("cut in the middle"), "b", 2)


def test_after_the_first_byte_a_stream_of_events_is_told() -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    talk.say(Answered(200))
    effect = talk.say(Broke("reset", events=True))
    assert isinstance(effect, FailInStream)
    assert effect.error.message == "The answer of a/e/m broke off: reset"
    assert talk.balance.in_flight == {}
    talk.say(ENDED)


def test_after_the_first_byte_anything_else_is_broken_off() -> None:
    talk = Talk(plan((A,)))
    talk.tries(START, "a", 1)
    talk.say(Answered(200))
    assert talk.say(Broke("reset", events=False)) == Abort()


def test_a_client_that_leaves_gives_the_probe_back() -> None:
    balance = Balance()
    balance.ejections.failed(A.lanes[0], 0.0)
    talk = Talk(plan((A,)), balance)
    talk.tries(START, "a", 1)
    assert not balance.ejections.is_open(A.lanes[0], 1.0)
    talk.say(ENDED)
    assert balance.ejections.is_open(A.lanes[0], 1.0)


def test_an_event_out_of_place_is_a_bug() -> None:
    talk = Talk(plan((A,)))
    with pytest.raises(KeyError):
        talk.say(Answered(200))
