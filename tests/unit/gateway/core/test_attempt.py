"""One request, as a conversation: >> event, << effect."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.admission import Admission, Ticket
from gateway.core.asking import Ask
from gateway.core.attempt import Attempt
from gateway.core.balance import Balance
from gateway.core.budget import RetryBudget
from gateway.core.needs import Needs
from gateway.core.outcome import Ending, Tokens
from gateway.core.plan import Plan, TierPlan, Unusable
from gateway.core.trying import (
    ENDED,
    SERVED,
    START,
    WOKEN,
    Abort,
    Answered,
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
    Wait,
)
from geniehive.rules.model import Strategy
from geniehive.rules.operations import Operation
from tests.unit.gateway.builders import candidate, plan

A, B, C = candidate("a"), candidate("b"), candidate("c")
ONE, TWO = candidate("one", limit=1), candidate("two", limit=1)
LOADING = Answered(503, "Loading model", loading=True)


class Talk:
    def __init__(
        self,
        asked: Plan,
        balance: Balance | None = None,
        budget: RetryBudget | None = None,
        patience: float | None = 300.0,
    ) -> None:
        self.balance = balance or Balance()
        self.attempt = Attempt("m", Operation.CHAT, asked, self.balance, budget or RetryBudget(), patience)
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
        self.left()
        return effect.error.message

    def waits(self, event: Event, seconds: float) -> Ticket | None:
        effect = self.say(event)
        assert isinstance(effect, Wait), effect
        assert effect.seconds == pytest.approx(seconds)
        assert self.balance.routes() == [("m", Operation.CHAT, 0, 1)]
        return effect.ticket

    def waits_for_a_turn(self, event: Event) -> Ticket:
        effect = self.say(event)
        assert isinstance(effect, Wait), effect
        assert effect.ticket is not None
        return effect.ticket

    def left(self) -> None:
        """The shell's last word, whatever happened."""
        self.say(ENDED)
        assert self.balance.routes() == []

    @property
    def failed(self) -> list[tuple[str, str]]:
        return [(f.endpoint.split("/")[1], f.kind) for f in self.attempt.failed]


def test_the_usual_course() -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    assert talk.say(Answered(200)) == Forward()
    assert talk.attempt.state == "forwarding"
    assert talk.balance.routes() == [("m", Operation.CHAT, 1, 0)]
    talk.say(SERVED)
    assert talk.balance.in_flight == {}
    assert talk.attempt.ending is Ending.OK
    assert talk.attempt.failed == ()
    talk.left()  # saying it twice harms nothing
    assert talk.attempt.state == "done"
    assert talk.attempt.ending is Ending.OK


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


@pytest.mark.parametrize(
    ("status", "ending"),
    [(200, Ending.OK), (201, Ending.OK), *((s, Ending.REFUSED) for s in (400, 401, 404, 422)), (500, Ending.FAILED),
     (501, Ending.FAILED)],
)  # fmt: skip
def test_other_statuses_pass_unchanged_and_count_against_nobodys_health(status: int, ending: Ending) -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    assert talk.say(Answered(status)) == Forward()
    talk.say(SERVED)
    assert talk.attempt.ending is ending
    assert talk.failed == ([] if status < 400 else [("a", "refused")])
    assert talk.balance.ejections.ejected(1.0) == []


def test_each_endpoint_once_then_the_last_503_passes() -> None:
    talk = Talk(plan((A,), (B, C)))
    talk.tries(START, "a", 1)
    talk.tries(Answered(503, "no slot"), "b", 2)
    talk.tries(Answered(503), "c", 3)
    assert talk.say(Answered(503)) == Forward()
    assert talk.balance.in_flight == {}  # it has been read
    talk.say(SERVED)
    assert talk.attempt.ending is Ending.FAILED
    assert talk.failed == [("a", "upstream"), ("b", "upstream"), ("c", "upstream")]


def test_unreachable_everywhere_is_503_with_each_reason() -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    talk.tries(Answered(503, "no slot"), "b", 2)
    message = talk.fails(ConnectFailed("refused"), 503, "no_endpoint")
    assert "a/e/m: answered 503: no slot" in message
    assert "b/e/m: refused" in message
    assert talk.failed == [("a", "upstream"), ("b", "connect")]
    assert talk.attempt.ending is Ending.FAILED


def test_the_last_failure_decides_the_status() -> None:
    talk = Talk(plan((A,)))
    talk.tries(START, "a", 1)
    talk.fails(Lost("reset"), 502, "upstream_failed")
    talk = Talk(plan((A,)))
    talk.tries(START, "a", 1)
    talk.fails(TimedOut("nothing for 300 s"), 504, "upstream_timeout")
    assert talk.failed == [("a", "timeout")]


def test_nobody_to_ask() -> None:
    talk = Talk(Plan("m", (), (Unusable("a/e/m", "offline: gone"),)))
    assert "a/e/m: offline: gone" in talk.fails(START, 503, "no_endpoint")
    assert talk.attempt.ending is Ending.UNSERVED


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


@pytest.mark.parametrize(
    "failure",
    [Lost("reset"), TimedOut("late"), Answered(503), RelayRefused("timeout", ""), Answered(429),
     Answered(503, "Loading model", loading=True)],
)  # fmt: skip
def test_other_failures_do_not_eject(failure: Event) -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    talk.tries(failure, "b", 2)
    assert talk.balance.ejections.ejected(1.0) == []


@pytest.mark.parametrize(
    ("failure", "counts"),
    [(Lost("reset"), True), (TimedOut("late"), True), *((Answered(s), True) for s in (502, 503, 504)),
     (RelayRefused("timeout", ""), True), (RelayRefused("upstream-broke", ""), True), (RelayRefused("busy", ""), False),
     (RelayRefused("bad-request", ""), False), *((Answered(s), False) for s in (400, 404, 429, 500)),
     (Answered(503, "Loading model", loading=True), False)],
)  # fmt: skip
def test_three_failures_in_a_row_eject_the_endpoint_and_clients_errors_never(failure: Event, counts: bool) -> None:
    balance = Balance()
    for _ in range(3):
        talk = Talk(plan((A,), (B,)), balance)
        assert balance.ejections.is_open(A.endpoint, 0.0)
        talk.tries(START, "a", 1)
        talk.say(failure)
        talk.say(ENDED)
    assert balance.ejections.is_open(A.endpoint, 0.0) is not counts
    assert (A.endpoint in balance.ejected(0.0)) is counts
    talk = Talk(plan((A,), (B,)), balance)
    talk.tries(START, "b" if counts else "a", 1)


def test_an_answer_that_is_cut_counts_and_a_whole_one_forgives() -> None:
    balance = Balance()
    for cut in (True, True, False, True, True):
        talk = Talk(plan((A,)), balance)
        talk.tries(START, "a", 1)
        talk.say(Answered(200))
        if cut:
            talk.say(Broke("reset", True))
        talk.say(ENDED if cut else SERVED)
    assert balance.ejections.is_open(A.endpoint, 0.0)
    assert balance.ejections.struck == {A.endpoint: 2}


@pytest.mark.parametrize("word", ["connect-failed", "unauthorized", "unknown-service", "stopping"])
def test_a_relay_that_can_not_ask_the_engine_is_ejected(word: str) -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    talk.tries(RelayRefused(word, ""), "b", 2)
    assert talk.balance.ejections.ejected(1.0) == [A.lanes[0]]


def test_a_direct_way_gives_way_to_the_relay_of_the_same_endpoint() -> None:
    two, budget = candidate("ways", lanes=2), RetryBudget()
    while budget.retry(1.0):  # it is no retry
        pass
    talk = Talk(plan((two, B)), budget=budget)
    talk.tries(START, "ways", 1)
    talk.tries(ConnectFailed("refused"), "ways", 2)
    assert talk.attempt.choice is not None
    assert talk.attempt.choice.lane == two.lanes[1]
    assert talk.say(Answered(200)) == Forward()


def test_when_all_its_lanes_fail_another_endpoint_is_tried() -> None:
    talk = Talk(plan((candidate("ways", lanes=2), B)))
    talk.tries(START, "ways", 1)
    talk.tries(ConnectFailed("refused"), "ways", 2)
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
    talk.left()
    assert talk.attempt.ending is Ending.FAILED
    assert talk.failed == [("a", "cut")]


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


def test_a_body_that_can_not_be_sent_again_goes_nowhere_else() -> None:
    for failure, status, code in (
        (Lost("reset"), 502, "upstream_failed"),
        (TimedOut("late"), 504, "upstream_timeout"),
        (ConnectFailed("reset"), 503, "no_endpoint"),
        (RelayRefused("connect-failed", ""), 503, "no_endpoint"),
    ):
        talk = Talk(plan((candidate("ways", lanes=2), B)))
        talk.tries(START, "ways", 1)
        talk.attempt.replayable = False
        talk.fails(failure, status, code)
    for passed in (Answered(429), Answered(502), LOADING):
        talk = Talk(plan((A, B)))
        talk.tries(START, "a", 1)
        talk.attempt.replayable = False
        assert talk.say(passed) == Forward()


def test_a_client_that_leaves_is_cancelled_whatever_was_going_on() -> None:
    for events in ((), (START,), (START, Answered(200)), (START, LOADING)):
        talk = Talk(plan((A,)))
        for event in events:
            talk.say(event)
        talk.left()
        assert talk.attempt.ending is Ending.CANCELLED
        assert talk.balance.in_flight == {}


def test_who_came_after_the_request_is_tried_too() -> None:
    talk = Talk(plan((A,)))
    talk.tries(START, "a", 1)
    talk.attempt.renew(plan((A, B)))
    talk.tries(ConnectFailed("refused"), "b", 2)
    talk.attempt.renew(plan((C,)))
    talk.tries(Lost("reset"), "c", 3)


def test_who_came_while_a_model_loads_is_asked() -> None:
    talk = Talk(plan((A,)))
    talk.tries(START, "a", 1)
    talk.waits(LOADING, 0.5)
    talk.attempt.renew(plan((B,)))
    talk.tries(WOKEN, "b", 2)


def test_an_engine_that_says_that_it_loads_is_waited_for_before_it_is_asked() -> None:
    """Its node knows, and it takes no requests as yet."""
    loads = Plan("m", (), (Unusable("a/e/m", "unhealthy: is loading its model", loading=True),))
    talk = Talk(loads)
    talk.waits(START, 0.5)
    talk.now += 0.5
    talk.waits(WOKEN, 1.0)
    talk.attempt.renew(plan((A,)))
    talk.tries(WOKEN, "a", 1)
    talk.attempt.renew(loads)  # it was started anew
    talk.waits(ConnectFailed("refused"), 2.0)
    talk.now += 300.0
    message = talk.fails(WOKEN, 503, "model_loading")
    assert "is loading its model" in message
    assert "a/e/m: refused" in message


def test_an_engine_that_loads_is_not_waited_for_if_another_can_serve() -> None:
    loads = Unusable("a/e/m", "unhealthy: is loading its model", loading=True)
    talk = Talk(Plan("m", plan((B,)).tiers, (loads,)))
    talk.tries(START, "b", 1)
    talk.waits(Lost("reset"), 0.5)
    talk = Talk(Plan("m", plan((B,)).tiers, (loads,)))
    talk.tries(START, "b", 1)
    assert talk.say(Answered(429)) == Forward()  # it is an answer, and says when to come again


def test_the_model_is_gone_while_it_loads() -> None:
    talk = Talk(plan((A,)))
    talk.tries(START, "a", 1)
    talk.waits(LOADING, 0.5)
    talk.attempt.renew(Plan("m", (), (Unusable("a/e/m", "offline: gone"),)))
    assert "a/e/m: offline: gone" in talk.fails(WOKEN, 503, "no_endpoint")


# Busy: 429.


@pytest.mark.parametrize("status", [429, 529])
def test_a_429_goes_elsewhere(status: int) -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    talk.tries(Answered(status, "slow down"), "b", 2)
    assert talk.say(Answered(200)) == Forward()
    talk.say(SERVED)
    assert talk.failed == [("a", "refused")]
    assert talk.attempt.ending is Ending.OK


def test_a_429_passes_if_nobody_else_is_there() -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    talk.tries(Answered(429, "slow down", retry_after=7), "b", 2)
    assert talk.say(Answered(429, retry_after=9)) == Forward()
    talk.say(SERVED)
    assert talk.attempt.ending is Ending.REFUSED


def test_a_429_passes_if_the_budget_is_spent() -> None:
    budget = RetryBudget()
    while budget.retry(1.0):
        pass
    talk = Talk(plan((A, B)), budget=budget)
    talk.tries(START, "a", 1)
    assert talk.say(Answered(429)) == Forward()


def test_busy_here_and_dead_there_is_busy_with_what_the_busy_one_said() -> None:
    talk = Talk(plan((A, B)))
    talk.tries(START, "a", 1)
    talk.tries(Answered(429, "slow down", retry_after=7), "b", 2)
    effect = talk.say(ConnectFailed("refused"))
    assert isinstance(effect, Fail)
    assert (effect.error.status, effect.error.retry_after) == (429, 7)
    assert "a/e/m: answered 429: slow down; b/e/m: refused" in effect.error.message


# Loading.


def test_a_model_that_loads_is_waited_for() -> None:
    talk = Talk(plan((A,)))
    talk.tries(START, "a", 1)
    for number, pause in enumerate((0.5, 1.0, 2.0, 2.0), 2):
        talk.waits(LOADING, pause)
        assert talk.attempt.state == "pausing"
        assert talk.balance.in_flight == {}
        talk.now += pause
        talk.tries(WOKEN, "a", number)
    assert talk.say(Answered(200)) == Forward()
    talk.say(SERVED)
    assert talk.attempt.ending is Ending.OK
    assert {kind for _, kind in talk.failed} == {"loading"}
    talk.left()


def test_another_endpoint_comes_before_waiting() -> None:
    talk = Talk(plan((A,), (B,)))
    talk.tries(START, "a", 1)
    talk.tries(LOADING, "b", 2)
    talk.waits(ConnectFailed("refused"), 0.5)
    talk.now += 0.5
    talk.tries(WOKEN, "a", 3)  # the one that loads, and not the one that is dead
    assert talk.say(Answered(200)) == Forward()


def test_all_who_load_are_asked_again_each_round() -> None:
    talk = Talk(plan((A,), (B,)))
    talk.tries(START, "a", 1)
    talk.tries(LOADING, "b", 2)
    talk.waits(LOADING, 0.5)
    talk.tries(WOKEN, "a", 3)
    talk.tries(LOADING, "b", 4)
    assert talk.say(Answered(200)) == Forward()


def test_a_model_that_loads_for_too_long_is_503_with_retry_after() -> None:
    talk = Talk(plan((A,)), patience=2.0)
    talk.tries(START, "a", 1)
    talk.waits(LOADING, 0.5)
    talk.now += 0.5
    talk.tries(WOKEN, "a", 2)
    talk.waits(LOADING, 1.0)
    talk.now += 1.0
    talk.tries(WOKEN, "a", 3)
    talk.waits(LOADING, 0.5)  # what is left
    talk.now += 0.5
    talk.tries(WOKEN, "a", 4)
    effect = talk.say(LOADING)
    assert isinstance(effect, Fail)
    assert (effect.error.status, effect.error.code, effect.error.retry_after) == (503, "model_loading", 2)
    assert effect.error.message.count("Loading model") == 1
    talk.left()
    assert talk.attempt.ending is Ending.FAILED
    assert talk.failed == [("a", "loading")] * 3 + [("a", "timeout")]


def test_a_model_may_load_for_ever_without_a_limit() -> None:
    talk = Talk(plan((A,)), patience=None)
    talk.tries(START, "a", 1)
    talk.waits(LOADING, 0.5)
    talk.now += 1e6
    talk.tries(WOKEN, "a", 2)
    talk.waits(LOADING, 1.0)


def test_loading_burdens_nobody_and_needs_no_budget() -> None:
    budget = RetryBudget()
    while budget.retry(1.0):
        pass
    talk = Talk(plan((A, B, C)), budget=budget)
    talk.tries(START, "a", 1)
    talk.tries(LOADING, "b", 2)
    talk.waits(Answered(502), 0.5)  # which needs one
    talk.tries(WOKEN, "c", 3)


def test_a_client_that_leaves_while_a_model_loads() -> None:
    talk = Talk(plan((A,)))
    talk.tries(START, "a", 1)
    talk.waits(LOADING, 0.5)
    talk.left()
    assert talk.attempt.ending is Ending.CANCELLED


# Limits.


def test_a_full_endpoint_gives_way_to_another() -> None:
    balance = Balance()
    Talk(plan((ONE,)), balance).say(START)
    second = Talk(plan((ONE,), (B,)), balance)
    effect = second.say(START)
    assert isinstance(effect, Try)
    assert effect.choice.candidate.host == "b"


def test_where_all_are_full_the_first_who_waits_gets_the_turn() -> None:
    balance = Balance()
    talks = [Talk(plan((ONE,)), balance) for _ in range(4)]
    first, *waiting = talks
    first.say(START)
    first.say(Answered(200))
    tickets = [effect.ticket for t in waiting if isinstance(effect := t.say(START), Wait)]
    assert len(tickets) == 3
    assert balance.routes() == [("m", Operation.CHAT, 1, 3)]
    waiting[0].say(ENDED)  # gave up
    for talk in talks:
        talk.now = 3.0
    woken: list[int] = []
    for n, ticket in enumerate(tickets):
        assert ticket is not None
        ticket.wake = lambda n=n: woken.append(n)  # type: ignore[misc]
    first.say(SERVED)
    assert woken == [1]
    assert balance.in_flight == {ONE.endpoint: 1}  # it is taken before the woken one runs
    effect = waiting[1].say(WOKEN)
    assert isinstance(effect, Try)
    assert waiting[1].attempt.waited == 2.0
    assert balance.routes() == [("m", Operation.CHAT, 1, 1)]
    waiting[1].say(ConnectFailed("refused"))
    assert woken == [1, 2]
    waiting[2].say(WOKEN)
    waiting[2].say(ENDED)
    waiting[1].left()
    assert balance.in_flight == {}
    assert balance.admission.waiting == 0


def test_who_leaves_with_a_turn_that_just_came_hands_it_on() -> None:
    balance = Balance()
    first, second, third = (Talk(plan((ONE,)), balance) for _ in range(3))
    first.say(START)
    second.say(START)
    effect = third.say(START)
    assert isinstance(effect, Wait)
    assert effect.ticket is not None
    first.say(ENDED)
    second.say(ENDED)  # before it knew
    assert effect.ticket.flight is not None
    assert isinstance(third.say(WOKEN), Try)
    third.left()
    assert balance.in_flight == {}


def test_no_turn_in_time_is_429_with_an_honest_retry_after() -> None:
    balance = Balance(Admission(wait=5.0))
    before = Talk(plan((ONE,)), balance)
    before.say(START)
    before.say(Answered(200))
    before.now += 40.0
    before.say(SERVED)
    Talk(plan((ONE,)), balance).say(START)
    late, later = Talk(plan((ONE,)), balance), Talk(plan((ONE,)), balance)
    late.say(START)
    later.say(START)
    late.now += 5.0
    effect = late.say(WOKEN)
    assert isinstance(effect, Fail)
    assert (effect.error.status, effect.error.code) == (429, "saturated")
    assert effect.error.retry_after == 80  # one other waits, and each takes 40 s
    assert "one/e has 1 of 1, and none ended within 5 s (limits.wait)" in effect.error.message
    assert late.attempt.ending is Ending.UNSERVED
    assert late.attempt.waited == 5.0


@pytest.mark.parametrize(
    ("admission", "word"), [(Admission(wait=0.0), "1 of 1"), (Admission(most=0), "limits.waiting")]
)
def test_who_may_not_wait_is_refused_at_once(admission: Admission, word: str) -> None:
    balance = Balance(admission)
    Talk(plan((ONE,)), balance).say(START)
    effect = Talk(plan((ONE,)), balance).say(START)
    assert isinstance(effect, Fail)
    assert effect.error.code == "saturated"
    assert word in effect.error.message


def test_a_turn_is_given_back_before_the_next_is_sought() -> None:
    """Two models of one service share its limit: who fails at one must not wait for itself."""
    pool = ONE.pool
    other = msgspec.structs.replace(ONE, endpoint="endpoint/one/e/other", pool=pool)
    talk = Talk(plan((ONE, other)))
    talk.tries(START, "one", 1)
    talk.tries(Lost("reset"), "one", 2)


def test_a_full_endpoint_is_waited_for_after_a_failure() -> None:
    balance = Balance()
    first = Talk(plan((ONE,)), balance)
    first.say(START)
    talk = Talk(plan((A,), (ONE,)), balance)
    talk.say(START)
    effect = talk.say(Lost("reset"))
    assert isinstance(effect, Wait)
    first.say(ENDED)
    talk.tries(WOKEN, "one", 2)


def test_a_full_endpoint_that_nobody_may_wait_for_lets_the_answer_pass() -> None:
    balance = Balance(Admission(wait=0.0))
    Talk(plan((ONE,)), balance).say(START)
    talk = Talk(plan((A,), (ONE,)), balance)
    talk.say(START)
    assert talk.say(Answered(429)) == Forward()


def test_the_next_lane_keeps_the_turn() -> None:
    balance = Balance()
    ways = candidate("ways", lanes=2, limit=1)
    talk, other = Talk(plan((ways,)), balance), Talk(plan((ways,)), balance)
    talk.say(START)
    assert isinstance(other.say(START), Wait)
    effect = talk.say(ConnectFailed("refused"))
    assert isinstance(effect, Try)
    assert balance.in_flight == {ways.endpoint: 1}
    talk.say(Answered(200))
    talk.say(SERVED)
    assert isinstance(other.say(WOKEN), Try)


# Whatever happens.

ANSWERS = st.sampled_from([
    ConnectFailed("refused"), Lost("reset"), TimedOut("late"), LOADING, RelayRefused("stopping", ""),
    RelayRefused("upstream-broke", ""), *(Answered(s) for s in (200, 400, 429, 500, 502, 503, 504, 529)),
])  # fmt: skip
PLANS = st.lists(
    st.lists(st.sampled_from([A, B, C, ONE, TWO, candidate("ways", lanes=3)]), min_size=1, max_size=3, unique=True),
    max_size=3,
).map(lambda tiers: plan(*map(tuple, tiers)))


@given(PLANS, st.lists(ANSWERS, max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_every_course_ends_and_leaves_nothing_behind(
    asked: Plan, answers: list[Event], leaves_at: int, sent_at: int
) -> None:
    talk = Talk(asked, patience=20.0)
    effect = talk.say(START)
    left = list(answers)
    for step in range(1000):
        attempt = talk.attempt
        assert sum(talk.balance.in_flight.values()) <= 1
        assert len(attempt.failed) <= attempt.number
        if step == sent_at:
            attempt.replayable = False
            before = attempt.number
        if step > sent_at:
            assert attempt.number == before, "a body that can't be sent again was sent again"
        if step == leaves_at or isinstance(effect, Fail):
            break
        match effect:
            case Try():
                effect = talk.say(left.pop() if left else Answered(200))
            case Wait(seconds, None):
                assert 0 < seconds <= 2.0
                talk.now += seconds
                effect = talk.say(WOKEN)
            case Forward():
                talk.say(SERVED)
                break
            case _:
                raise AssertionError(effect)
    else:
        raise AssertionError("it goes on for ever")
    talk.left()
    assert talk.balance.in_flight == {}
    assert len(talk.attempt.failed) <= talk.attempt.number
    assert (talk.attempt.ending is Ending.UNSERVED) <= (talk.attempt.number == 0)


def needing(asked: Plan, needs: Needs, balance: Balance | None = None) -> Talk:
    talk = Talk(asked, balance)
    talk.attempt = Attempt("m", Operation.CHAT, asked, talk.balance, RetryBudget(), 300.0, needs)
    return talk


SMALL = msgspec.structs.replace(candidate("small"), context_tokens=100)
LONG = Needs(tokens=1000)


def test_who_can_not_serve_it_is_passed_over() -> None:
    talk = needing(plan((SMALL, A), (B,)), LONG)
    talk.tries(START, "a", 1)
    talk.tries(Lost("reset"), "b", 2)
    message = talk.fails(Lost("reset"), 502, "upstream_failed")
    assert "small/e/m: the prompt has about 1000 tokens, and its context is 100" in message


def test_a_newer_plan_is_held_against_the_same_needs() -> None:
    talk = needing(plan((SMALL, A)), LONG)
    talk.tries(START, "a", 1)
    talk.attempt.renew(plan((msgspec.structs.replace(SMALL, context_tokens=5000), A)), LONG)
    talk.tries(Lost("reset"), "small", 2)
    talk = Talk(plan((A,)))
    talk.tries(START, "a", 1)
    talk.attempt.renew(plan((A, SMALL, B)), LONG)
    talk.tries(Lost("reset"), "b", 2)


def test_who_waits_is_not_given_a_turn_where_it_can_not_be_served() -> None:
    small = msgspec.structs.replace(candidate("small", limit=1), context_tokens=100)
    balance = Balance(Admission(wait=10.0))
    first, second = needing(plan((ONE,)), LONG, balance), needing(plan((small,)), Needs(), balance)
    first.tries(START, "one", 1)
    assert isinstance(second.say(START), Try)
    waiting = needing(plan((small, ONE)), LONG, balance)
    ticket = waiting.waits_for_a_turn(START)
    second.say(ENDED)
    assert ticket.flight is None
    first.say(ENDED)
    assert ticket.flight is not None
    waiting.tries(WOKEN, "one", 1)


def test_what_an_answer_tells_is_learned() -> None:
    members = tuple(msgspec.structs.replace(candidate(host), loaded=True) for host in ("a", "b"))
    asked = Plan("m", (TierPlan(("m", 1, 0), "m", members, Strategy.SOONEST),))
    talk = needing(asked, Needs(ask=Ask("m", 1000)))
    assert isinstance(talk.say(START), Try)
    talk.say(Answered(200))
    talk.now += 2.0
    talk.attempt.began(talk.now)
    talk.now += 5.0
    talk.attempt.tokens = Tokens(1000, 50)
    talk.say(SERVED)
    flight = talk.attempt.flight
    assert flight is not None
    assert flight.prefill == (1000, 2.0)
    assert flight.decode == (50, pytest.approx(5.0))
    # Of one that failed nothing is.
    other = needing(asked, Needs(ask=Ask("m", 1000)), talk.balance)
    assert isinstance(other.say(START), Try)
    other.say(Answered(200))
    other.attempt.began(other.now)
    other.say(Broke("reset", True))
    assert other.attempt.flight is not None
    assert (other.attempt.flight.prefill, other.attempt.flight.decode) == (None, None)
    other.attempt.began(other.now)  # too late, and harmless
