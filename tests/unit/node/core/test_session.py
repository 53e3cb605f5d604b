import pytest

from geniehive.rules.model import Host, Inventory
from geniehive.v1 import failure_pb2
from geniehive_node.core import session as s

OFFER = Inventory(revision=0, host=Host(host_id="h"))
WELCOME = s.Welcome(session_id="s1", cluster_id="c", host_id="h", heartbeat_interval=0.8, load_interval=1.0)


class Play:
    """A session with the clock in hand: `play(event) -> effects`."""

    def __init__(self) -> None:
        self.session = s.Session("h")
        self.now = 100.0

    def __call__(self, *events: s.Event) -> list[s.Effect]:
        effects: list[s.Effect] = []
        for event in events:
            effects += self.session.handle(event, self.now)
        return effects

    def sleep(self) -> list[s.Effect]:
        """Until the session wants to wake."""
        assert self.session.wake_at is not None
        self.now = self.session.wake_at
        return self(s.Tick())

    def registered(self) -> "Play":
        self(s.Offered(inventory=OFFER), s.Retry(), WELCOME, s.Stored(revision=1))
        return self


def kinds(effects: list[s.Effect]) -> list[type]:
    return [type(e) for e in effects]


def test_the_reasons_are_those_of_the_contract() -> None:
    for reason in s.Reason:
        if reason is not s.Reason.OTHER:
            assert int(failure_pb2.FailureReason.Value(f"FAILURE_REASON_{reason.name}")) == reason.value


def test_hello_welcome_offer_registered() -> None:
    play = Play()
    assert play(s.Offered(inventory=OFFER)) == []
    assert play(s.Retry()) == [s.Open(host_id="h")]
    met, sent = play(WELCOME)
    assert met == s.Met(cluster_id="c", host_id="h", renamed=False)
    assert isinstance(sent, s.SendOffer)
    assert sent.inventory.revision == 1
    assert play(s.Stored(revision=1)) == [s.Registered(host_id="h")]
    assert play(s.Stored(revision=1)) == []


def test_nothing_is_offered_before_there_is_something() -> None:
    play = Play()
    assert kinds(play(s.Retry(), WELCOME)) == [s.Open, s.Met]
    assert kinds(play(s.Offered(inventory=OFFER))) == [s.SendOffer]


def test_each_change_goes_out_at_once_and_revisions_count_within_a_session() -> None:
    play = Play().registered()
    (sent,) = play(s.Offered(inventory=OFFER))
    assert isinstance(sent, s.SendOffer)
    assert sent.inventory.revision == 2
    play(s.Ended(), s.Retry())
    sent = play(WELCOME)[1]
    assert isinstance(sent, s.SendOffer)
    assert sent.inventory.revision == 1


def test_load_at_its_pace_and_heartbeats_only_in_silence() -> None:
    play = Play().registered()
    seen = []
    start = play.now
    for _ in range(6):
        (effect,) = play.sleep()
        seen.append((round(play.now - start, 1), type(effect)))
    # The heartbeat interval is shorter than that of load, so one falls between two loads.
    beat, load = s.SendHeartbeat, s.SendLoad
    assert seen == [(0.8, beat), (1.0, load), (1.8, beat), (2.0, load), (2.8, beat), (3.0, load)]
    play(s.Offered(inventory=OFFER))
    assert kinds(play.sleep()) == [s.SendHeartbeat]
    assert round(play.now - start, 1) == 3.8


def test_after_a_long_sleep_one_load_is_sent_not_all_that_were_missed() -> None:
    play = Play().registered()
    play.now += 3600
    assert kinds(play(s.Tick())) == [s.SendLoad]
    assert play.session.wake_at is not None
    assert play.session.wake_at > play.now
    assert play(s.Tick()) == []


def test_no_welcome_in_time_is_a_lost_stream() -> None:
    play = Play()
    play(s.Retry())
    assert kinds(play.sleep()) == [s.HangUp, s.Say, s.Wait]
    assert play.session.phase is s.Phase.WAITING
    assert play(s.Retry()) == [s.Open(host_id="h")]


def test_control_gives_another_name_which_is_kept() -> None:
    play = Play()
    play(s.Offered(inventory=OFFER), s.Retry())
    renamed = s.Welcome(session_id="s", cluster_id="c", host_id="h-2", heartbeat_interval=1, load_interval=1)
    assert play(renamed) == [s.Met(cluster_id="c", host_id="h-2", renamed=True)]
    (sent,) = play(s.Offered(inventory=Inventory(revision=0, host=Host(host_id="h-2"))))
    assert isinstance(sent, s.SendOffer)
    assert play(s.Ended(), s.Retry())[-1] == s.Open(host_id="h-2")


@pytest.mark.parametrize(
    ("reason", "exit_"),
    [
        (s.Reason.SESSION_SUPERSEDED, s.Exit.SUPERSEDED),
        (s.Reason.CREDENTIAL_REVOKED, s.Exit.REFUSED),
        (s.Reason.SCOPE_MISSING, s.Exit.REFUSED),
        (s.Reason.NOT_YOURS, s.Exit.REFUSED),
        (s.Reason.NOT_SERVED, s.Exit.USELESS),
    ],
)
def test_ends_for_good(reason: s.Reason, exit_: s.Exit) -> None:
    play = Play().registered()
    (quit_,) = play(s.Ended(reason=reason, transient=False, message="because"))
    assert isinstance(quit_, s.Quit)
    assert quit_.exit is exit_
    assert quit_.text.startswith("because; ")
    assert play.session.phase is s.Phase.ENDED
    assert play(s.Retry()) == []


@pytest.mark.parametrize(
    ("reason", "transient", "pace"),
    [
        (s.Reason.CREDENTIAL_REFUSED, False, s.Pace.LONGEST),
        (s.Reason.SESSION_LOST, False, s.Pace.AT_ONCE),
        (s.Reason.OUT_OF_ORDER, False, s.Pace.LONGEST),
        (s.Reason.CONTROL_UNAVAILABLE, True, s.Pace.BACKOFF),
        (s.Reason.STORE_UNAVAILABLE, True, s.Pace.BACKOFF),
        (s.Reason.OTHER, True, s.Pace.BACKOFF),
        (s.Reason.OTHER, False, s.Pace.LONGEST),
    ],
)
def test_comes_back(reason: s.Reason, transient: bool, pace: s.Pace) -> None:
    play = Play().registered()
    effects = play(s.Ended(reason=reason, transient=transient, message="x"))
    assert effects[-1] == s.Wait(pace=pace)
    assert play(s.Retry()) == [s.Open(host_id="h")]


def test_lost_before_it_was_registered_does_not_come_back_without_a_pause() -> None:
    play = Play()
    play(s.Retry(), WELCOME)
    assert play(s.Ended(reason=s.Reason.SESSION_LOST))[-1] == s.Wait(pace=s.Pace.BACKOFF)


def test_too_much_is_followed_by_less_after_the_time_that_was_asked_for() -> None:
    play = Play().registered()
    effects = play(s.Ended(reason=s.Reason.TOO_MUCH, message="x", retry_after=2.5))
    assert s.SendLess() in effects
    assert effects[-1] == s.Wait(pace=s.Pace.BACKOFF, at_least=2.5)


def test_goodbye_says_when_to_come_back() -> None:
    play = Play().registered()
    assert play(s.Goodbye(reconnect_after=1.5)) == []
    assert play(s.Ended())[-1] == s.Wait(pace=s.Pace.BACKOFF, at_least=1.5)


def test_the_same_trouble_is_told_once() -> None:
    play = Play()
    told = [s.Say in kinds(play(s.Retry(), s.Ended(message="connection refused"))) for _ in range(5)]
    assert told == [True, False, False, False, False]
    play(s.Retry(), WELCOME, s.Offered(inventory=OFFER), s.Stored(revision=1))
    assert s.Say in kinds(play(s.Ended(message="connection refused")))


def test_what_control_left_out_is_told_once() -> None:
    play = Play().registered()
    complaint = s.Stored(revision=2, refused=("h/ollama: too long",))
    assert kinds(play(complaint)) == [s.Say]
    assert play(complaint) == []
    play(s.Stored(revision=3))
    assert kinds(play(complaint)) == [s.Say]


def test_stopping_waits_until_the_last_offer_is_answered() -> None:
    play = Play().registered()
    assert kinds(play(s.Offered(inventory=OFFER), s.Stop())) == [s.SendOffer]
    assert play(s.Stored(revision=1)) == []
    assert play(s.Stored(revision=2)) == [s.CloseSide()]
    assert play(s.Ended()) == [s.Quit()]


def test_stopping_does_not_wait_for_a_silent_control() -> None:
    play = Play().registered()
    play(s.Offered(inventory=OFFER), s.Stop())
    assert play.sleep() == [s.HangUp(), s.Quit()]
    assert play.now == 100.0 + s.FAREWELL_WITHIN


@pytest.mark.parametrize("events", [[], [s.Retry()]])
def test_stopping_without_a_session_is_quick(events: list[s.Event]) -> None:
    play = Play()
    play(*events)
    assert play(s.Stop()) == [s.HangUp(), s.Quit()]
