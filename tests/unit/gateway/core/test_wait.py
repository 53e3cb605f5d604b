import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.asking import Ask
from gateway.core.loads import Sample
from gateway.core.plan import Candidate
from gateway.core.wait import WEIGHTS, Place, Seat, Wait, waits
from geniehive.rules.model import Speed
from tests.unit.gateway.builders import candidate


def told(slots: int = 1, **fields: object) -> Candidate:
    """One that writes 10 tokens a second, reads 100, and loads in 4."""
    speed = Speed(decode_tokens_per_second=10.0, prefill_tokens_per_second=100.0, load_seconds=4.0)
    given = {"slots": slots, "slots_known": True, "speed": speed, **fields}
    return msgspec.structs.replace(candidate("a"), **given)  # type: ignore[arg-type]


def seat(slots: int = 1, gateways: int = 1, **fields: object) -> Seat:
    known = told(slots, **fields)
    made = Seat(known, Place(known, gateways))
    made.follow(known, 0.0)
    return made


def wait(one: Seat, ask: Ask, expected: float, now: float) -> Wait:
    return Wait(*waits((one,), ask, expected, now)[0])


ASK = Ask(prompt_tokens=200)


def test_alone_there_is_reading_and_writing() -> None:
    found = wait(seat(), ASK, 50.0, 0.0)
    assert found == (pytest.approx(1.5 * 2 + 5), 0.0, 0.0, 2.0, 5.0, 0.0)


def test_the_score_is_the_weighted_sum() -> None:
    one = seat(4, loaded=False)
    one.place.sent(0.0)
    one.place.unread = 50.0
    found = wait(one, ASK, 50.0, 0.0)
    assert all(getattr(found, term) > 0 for term in WEIGHTS)
    assert found.score == pytest.approx(sum(weight * getattr(found, term) for term, weight in WEIGHTS.items()))


def test_a_free_slot_costs_the_others_and_slows_all() -> None:
    one = seat(4)
    one.place.sent(0.0)
    one.place.unread = 100.0
    found = wait(one, ASK, 50.0, 0.0)
    # A token takes 0.1 s, and 0.03 more for the other answer.
    assert (found.queue, found.decode) == (1.0, pytest.approx(50 * 0.13))
    assert found.crowd == pytest.approx(0.25 * 50 * 0.03 + 0.5 * 2.0)


def test_without_a_free_slot_there_is_a_queue() -> None:
    one = seat(1)
    one.place.sent(0.0)
    one.place.expected, one.place.prompts = 80.0, 300.0
    found = wait(one, ASK, 50.0, 0.0)
    assert (found.queue, found.decode, found.crowd) == (pytest.approx(8.0 + 3.0), 5.0, 0.0)


def test_others_are_like_this_one() -> None:
    one = seat(1)
    one.place.sampled(Sample(0.0, 1, 1, 0), 0.0)
    assert wait(one, ASK, 50.0, 0.0).queue == pytest.approx(2 * 5.0 + 2 * 2.0)


def test_own_work_in_a_sample_is_not_counted_twice() -> None:
    place = seat(1).place
    place.sent(1.0)
    place.sampled(Sample(1.5, 3, 1, 1), 1.6)
    assert (place.own, place.others, place.busy) == (1, 3, 4)
    place.left(2.0)
    assert place.busy == 3
    place.sampled(None, 20.0)
    assert place.busy == 0


def test_own_work_some_seconds_ago() -> None:
    place = seat(1).place
    place.sent(1.0)
    place.sent(2.0)
    place.left(3.0)
    assert [place.own_at(when) for when in (0.5, 1.0, 2.5, 3.0, 9.0)] == [0, 1, 2, 1, 1]


def test_the_past_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.core.wait._HISTORY_KEPT", 3)
    place = seat(1).place
    for n in range(10):
        place.sent(float(n))
    assert len(place._history) == 3
    assert place.own_at(8.0) == 9
    assert place.own_at(0.0) > 0, "as far back as is known"


def test_a_cold_model_is_loaded_and_that_costs_more_than_its_time() -> None:
    one = seat(loaded=False)
    assert wait(one, ASK, 50.0, 0.0).load == 6.0
    one.loading = 10.0
    assert wait(one, ASK, 50.0, 11.0).load == 3.0
    assert wait(one, ASK, 50.0, 20.0).load == 4.0, "late; nobody knows for how long"
    one.follow(told(loaded=True), 20.0)
    assert wait(one, ASK, 50.0, 20.0).load == 0.0
    assert one.loading is None


def test_who_does_not_say_is_taken_for_loaded() -> None:
    assert wait(seat(loaded=None), ASK, 50.0, 0.0).load == 0.0


def test_controls_price_of_loading() -> None:
    speed = Speed(load_seconds=4.0, cold_cost_seconds=7.0)
    assert wait(seat(loaded=False, speed=speed), ASK, 50.0, 0.0).load == 13.0


def test_what_is_cached_need_not_be_read() -> None:
    one = seat(4)
    ask = Ask(prompt_tokens=200, conversation=1)
    one.place.memory.sent("m", Ask(prompt_tokens=150, conversation=1))
    assert wait(one, ask, 50.0, 0.0).prefill == 0.5


def test_other_gateways_do_as_this_one_does() -> None:
    place = seat(4, gateways=3).place
    place.sampled(Sample(0.0, 0, 0, 0), 0.0)
    place.sent(1.0)
    place.sent(2.0)
    assert place.busy == 2 + 0.5 * 2 * 2
    place.sampled(Sample(1.5, 2, 0, 1), 2.5)
    assert place.busy == 2 + 1 + 0.5 * 2 * 1
    place.sampled(None, 9.0)
    assert place.busy == 2, "long ago"


def test_slots_are_learned_where_nobody_says_them() -> None:
    guessed = msgspec.structs.replace(candidate("a"), slots=4)
    place = Place(guessed, 1)
    place.sampled(Sample(0.0, 3, 0, 0), 0.0)
    assert place.slots == 4
    place.sampled(Sample(0.0, 2, 1, 0), 0.0)
    assert place.slots == 2, "one waits while two run"
    place.sampled(Sample(0.0, 9, 0, 0), 0.0)
    assert place.slots == 9
    place.follow(guessed)
    assert place.slots == 9
    place.follow(msgspec.structs.replace(guessed, slots=8, slots_known=True))
    assert place.slots == 8
    place.sampled(Sample(0.0, 2, 1, 0), 0.0)
    assert place.slots == 8


@given(
    st.integers(1, 64), st.integers(0, 100), st.integers(0, 100), st.integers(0, 10**6), st.floats(0, 10**5),
    st.booleans(),
)  # fmt: skip
def test_no_term_is_below_zero(slots: int, own: int, others: int, prompt: int, expected: float, cold: bool) -> None:
    one = seat(slots, loaded=not cold)
    for _ in range(own):
        one.place.sent(0.0)
    one.place.sampled(Sample(0.0, others + own, 0, own), 0.0)
    found = wait(one, Ask(prompt_tokens=prompt), expected, 0.0)
    assert all(value >= 0 for value in found)


@given(st.integers(1, 8), st.integers(0, 20))
def test_more_work_is_never_a_shorter_wait(slots: int, own: int) -> None:
    one = seat(slots)
    scores = []
    for _ in range(own + 2):
        scores.append(wait(one, ASK, 50.0, 0.0).queue)
        one.place.sent(0.0)
        one.place.expected += 50.0
        one.place.prompts += 200.0
    assert scores == sorted(scores)
