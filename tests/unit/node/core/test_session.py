import pytest

from geniehive.rules.model import Host, Inventory
from geniehive.rules.renewal import Held
from geniehive.v1 import failure_pb2
from geniehive_node.core import session as s
from geniehive_node.core import talk as t

OFFER = Inventory(revision=0, host=Host(host_id="h"))
WELCOME = t.Welcome(session_id="s1", cluster_id="c", host_id="h", heartbeat_interval=0.8, load_interval=1.0)


class Play:
    """A session with the clock in hand: `play(event) -> effects`."""

    def __init__(self) -> None:
        self.session = s.Session("h")
        self.now = 100.0

    def __call__(self, *events: t.Event) -> list[t.Effect]:
        effects: list[t.Effect] = []
        for event in events:
            effects += self.session.handle(event, self.now)
        return effects

    def sleep(self) -> list[t.Effect]:
        """Until the session wants to wake."""
        assert self.session.wake_at is not None
        self.now = self.session.wake_at
        return self(t.Tick())

    def registered(self) -> "Play":
        self(t.Offered(inventory=OFFER), t.Retry(), WELCOME, t.Stored(revision=1))
        return self


def kinds(effects: list[t.Effect]) -> list[type]:
    return [type(e) for e in effects]


def test_the_reasons_are_those_of_the_contract() -> None:
    for reason in t.Reason:
        if reason > 0:
            assert int(failure_pb2.FailureReason.Value(f"FAILURE_REASON_{reason.name}")) == reason.value


def test_hello_welcome_offer_registered() -> None:
    play = Play()
    assert play(t.Offered(inventory=OFFER)) == []
    assert play(t.Retry()) == [t.Open(host_id="h")]
    met, sent = play(WELCOME)
    assert met == t.Met(cluster_id="c", host_id="h", renamed=False)
    assert isinstance(sent, t.SendOffer)
    assert sent.inventory.revision == 1
    assert play(t.Stored(revision=1)) == [t.Registered(host_id="h")]
    assert play(t.Stored(revision=1)) == []


def test_nothing_is_offered_before_there_is_something() -> None:
    play = Play()
    assert kinds(play(t.Retry(), WELCOME)) == [t.Open, t.Met]
    assert kinds(play(t.Offered(inventory=OFFER))) == [t.SendOffer]


def test_each_change_goes_out_at_once_and_revisions_count_within_a_session() -> None:
    play = Play().registered()
    (sent,) = play(t.Offered(inventory=OFFER))
    assert isinstance(sent, t.SendOffer)
    assert sent.inventory.revision == 2
    play(t.Ended(), t.Retry())
    sent = play(WELCOME)[1]
    assert isinstance(sent, t.SendOffer)
    assert sent.inventory.revision == 1


def test_load_at_its_pace_and_heartbeats_only_in_silence() -> None:
    play = Play().registered()
    seen = []
    start = play.now
    for _ in range(6):
        (effect,) = play.sleep()
        seen.append((round(play.now - start, 1), type(effect)))
    # The heartbeat interval is shorter than that of load, so one falls between two loads.
    beat, load = t.SendHeartbeat, t.SendLoad
    assert seen == [(0.8, beat), (1.0, load), (1.8, beat), (2.0, load), (2.8, beat), (3.0, load)]
    play(t.Offered(inventory=OFFER))
    assert kinds(play.sleep()) == [t.SendHeartbeat]
    assert round(play.now - start, 1) == 3.8


def test_after_a_long_sleep_one_load_is_sent_not_all_that_were_missed() -> None:
    play = Play().registered()
    play.now += 3600
    assert kinds(play(t.Tick())) == [t.SendLoad]
    assert play.session.wake_at is not None
    assert play.session.wake_at > play.now
    assert play(t.Tick()) == []


def test_no_welcome_in_time_is_a_lost_stream() -> None:
    play = Play()
    play(t.Retry())
    assert kinds(play.sleep()) == [t.HangUp, t.Say, t.Wait]
    assert play.session.phase is s.Phase.WAITING
    assert play(t.Retry()) == [t.Open(host_id="h")]


def test_control_gives_another_name_which_is_kept() -> None:
    play = Play()
    play(t.Offered(inventory=OFFER), t.Retry())
    renamed = t.Welcome(session_id="s", cluster_id="c", host_id="h-2", heartbeat_interval=1, load_interval=1)
    assert play(renamed) == [t.Met(cluster_id="c", host_id="h-2", renamed=True)]
    (sent,) = play(t.Offered(inventory=Inventory(revision=0, host=Host(host_id="h-2"))))
    assert isinstance(sent, t.SendOffer)
    assert play(t.Ended(), t.Retry())[-1] == t.Open(host_id="h-2")


@pytest.mark.parametrize(
    ("reason", "exit_"),
    [
        (t.Reason.SESSION_SUPERSEDED, t.Exit.SUPERSEDED),
        (t.Reason.CREDENTIAL_REVOKED, t.Exit.REFUSED),
        (t.Reason.SCOPE_MISSING, t.Exit.REFUSED),
        (t.Reason.NOT_YOURS, t.Exit.REFUSED),
        (t.Reason.NOT_SERVED, t.Exit.USELESS),
    ],
)
def test_ends_for_good(reason: t.Reason, exit_: t.Exit) -> None:
    play = Play().registered()
    (quit_,) = play(t.Ended(reason=reason, transient=False, message="because"))
    assert isinstance(quit_, t.Quit)
    assert quit_.exit is exit_
    assert quit_.text.startswith("because; ")
    assert play.session.phase is s.Phase.ENDED
    assert play(t.Retry()) == []


@pytest.mark.parametrize(
    ("reason", "transient", "pace"),
    [
        (t.Reason.CREDENTIAL_REFUSED, False, t.Pace.LONGEST),
        (t.Reason.SESSION_LOST, False, t.Pace.AT_ONCE),
        (t.Reason.OUT_OF_ORDER, False, t.Pace.LONGEST),
        (t.Reason.CONTROL_UNAVAILABLE, True, t.Pace.BACKOFF),
        (t.Reason.STORE_UNAVAILABLE, True, t.Pace.BACKOFF),
        (t.Reason.OTHER, True, t.Pace.BACKOFF),
        (t.Reason.OTHER, False, t.Pace.LONGEST),
    ],
)
def test_comes_back(reason: t.Reason, transient: bool, pace: t.Pace) -> None:
    play = Play().registered()
    effects = play(t.Ended(reason=reason, transient=transient, message="x"))
    assert effects[-1] == t.Wait(pace=pace)
    assert play(t.Retry()) == [t.Open(host_id="h")]


def test_lost_before_it_was_registered_does_not_come_back_without_a_pause() -> None:
    play = Play()
    play(t.Retry(), WELCOME)
    assert play(t.Ended(reason=t.Reason.SESSION_LOST))[-1] == t.Wait(pace=t.Pace.BACKOFF)


def test_too_much_is_followed_by_less_after_the_time_that_was_asked_for() -> None:
    play = Play().registered()
    effects = play(t.Ended(reason=t.Reason.TOO_MUCH, message="x", retry_after=2.5))
    assert t.SendLess() in effects
    assert effects[-1] == t.Wait(pace=t.Pace.BACKOFF, at_least=2.5)


def test_goodbye_says_when_to_come_back() -> None:
    play = Play().registered()
    assert play(t.Goodbye(reconnect_after=1.5)) == []
    assert play(t.Ended())[-1] == t.Wait(pace=t.Pace.BACKOFF, at_least=1.5)


def test_the_same_trouble_is_told_once() -> None:
    play = Play()
    told = [t.Say in kinds(play(t.Retry(), t.Ended(message="connection refused"))) for _ in range(5)]
    assert told == [True, False, False, False, False]
    play(t.Retry(), WELCOME, t.Offered(inventory=OFFER), t.Stored(revision=1))
    assert t.Say in kinds(play(t.Ended(message="connection refused")))


def test_what_control_left_out_is_told_once() -> None:
    play = Play().registered()
    complaint = t.Stored(revision=2, refused=("h/ollama: too long",))
    assert kinds(play(complaint)) == [t.Say]
    assert play(complaint) == []
    play(t.Stored(revision=3))
    assert kinds(play(complaint)) == [t.Say]


def test_stopping_waits_until_the_last_offer_is_answered() -> None:
    play = Play().registered()
    assert kinds(play(t.Offered(inventory=OFFER), t.Stop())) == [t.SendOffer]
    assert play(t.Stored(revision=1)) == []
    assert play(t.Stored(revision=2)) == [t.CloseSide()]
    assert play(t.Ended()) == [t.Quit()]


def test_stopping_does_not_wait_for_a_silent_control() -> None:
    play = Play().registered()
    play(t.Offered(inventory=OFFER), t.Stop())
    assert play.sleep() == [t.HangUp(), t.Quit()]
    assert play.now == 100.0 + s.FAREWELL_WITHIN


@pytest.mark.parametrize("events", [[], [t.Retry()]])
def test_stopping_without_a_session_is_quick(events: list[t.Event]) -> None:
    play = Play()
    play(*events)
    assert play(t.Stop()) == [t.HangUp(), t.Quit()]


# Certificates.

TRUST = t.Trust(ca_bundle=b"CA", revoked=frozenset({"1"}))
HELD = Held(cluster_id="c", peer_id="h", serial="7", renew_in=3600.0)


class Certified(Play):
    def __init__(self, held: Held | None = None, far: bool = False) -> None:
        super().__init__()
        self.session = s.Session("h", far=far, certify=True)
        self(t.Holding(held=held))


def test_a_certificate_is_asked_for_once_control_said_whom_to_believe() -> None:
    play = Certified()
    assert t.RequestCertificate not in kinds(play.registered()(t.Tick()))
    assert play(TRUST) == [t.Believe(ca_bundle=b"CA", revoked=frozenset({"1"}))]
    assert play(t.Holding(held=None)) == [t.RequestCertificate(host_id="h")]
    assert play(t.Certificate(chain=b"PEM", renew_after=3600.0)) == [t.Accept(chain=b"PEM", renew_after=3600.0)]
    assert play(t.Holding(held=HELD)) == []


def until_asked(play: Play, within: float) -> float:
    """Seconds until the next request."""
    start = play.now
    while play.now < start + within:
        if t.RequestCertificate in kinds(play.sleep()):
            return play.now - start
    raise AssertionError("not asked")


def test_it_is_renewed_after_the_time_that_control_said() -> None:
    play = Certified(HELD)
    play.registered()
    play(TRUST, t.Holding(held=HELD))
    assert until_asked(play, 4000) == pytest.approx(3600)


def test_unanswered_it_is_asked_for_again() -> None:
    play = Certified()
    play.registered()
    play(TRUST, t.Holding(held=None))
    assert until_asked(play, 100) == pytest.approx(10)
    assert until_asked(play, 100) == pytest.approx(20)


def test_an_unfit_one_is_told_once_and_asked_for_again() -> None:
    play = Certified()
    play.registered()
    play(TRUST, t.Holding(held=None))
    assert kinds(play(t.Unfit())) == [t.Say]
    assert play(t.Unfit()) == []
    assert until_asked(play, 100) == pytest.approx(10)


def test_renamed_it_asks_at_once_for_one_of_the_new_name() -> None:
    play = Certified(HELD, far=True)
    play(t.Offered(inventory=OFFER), t.Retry())
    play(t.Welcome(session_id="s", cluster_id="c", host_id="h-2", heartbeat_interval=1, load_interval=1))
    assert play(TRUST, t.Holding(held=HELD))[-1] == t.RequestCertificate(host_id="h-2")
    # Until it has that, it can only come back under the name of the one it has.
    assert play(t.Ended(), t.Retry())[-1] == t.Open(host_id="h")
    play(WELCOME, t.Ended())
    play(t.Holding(held=Held(cluster_id="c", peer_id="h-2", serial="8", renew_in=9.0)))
    assert play(t.Retry()) == [t.Open(host_id="h-2")]


def test_with_a_node_key_the_name_does_not_hang_on_the_certificate() -> None:
    play = Certified(Held(cluster_id="c", peer_id="old", serial="7", renew_in=3600.0))
    assert play(t.Retry()) == [t.Open(host_id="h")]
    play(WELCOME)
    assert play(TRUST, t.Holding(held=None))[-1] == t.RequestCertificate(host_id="h")


def test_while_stopping_no_certificate_is_asked_for() -> None:
    play = Certified()
    play.registered()
    play(t.Offered(inventory=OFFER), t.Stop())
    assert t.RequestCertificate not in kinds(play(TRUST, t.Holding(held=None)))


def test_moved_a_stream_to_another_machine_is_opened_anew_at_once() -> None:
    play = Certified(HELD, far=True).registered()
    assert play(t.Moved()) == [t.HangUp(), t.Wait(pace=t.Pace.AT_ONCE)]
    assert play(t.Moved()) == [t.Open(host_id="h")]  # it does not wait when there is a way again
    assert play(t.Retry()) == []


def test_moved_a_stream_on_this_machine_stays() -> None:
    assert Certified(HELD).registered()(t.Moved()) == []


def test_expired_is_the_end() -> None:
    play = Certified(HELD, far=True)
    play(t.Retry())
    (quit_,) = play(t.Ended(reason=t.Reason.CERTIFICATE_EXPIRED, transient=False, message="expired"))
    assert isinstance(quit_, t.Quit)
    assert quit_.exit is t.Exit.REFUSED
    assert "geniehive join" in quit_.text
