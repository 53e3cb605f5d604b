import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.asking import Ask
from gateway.core.flight import Flight
from gateway.core.outcome import Tokens
from gateway.core.plan import Choice
from gateway.core.speeds import Lengths
from gateway.core.wait import Place, Seat
from tests.unit.gateway.builders import candidate

LENGTHS = 100.0


class Bench:
    """One endpoint, and requests there."""

    def __init__(self, slots: int = 1, loaded: bool = True) -> None:
        known = msgspec.structs.replace(candidate("a"), slots=slots, slots_known=True, loaded=loaded)
        self.choice = Choice(known, known.lanes[0], "m")
        self.seat = Seat(known, Place(known, 1))
        self.seat.follow(known, 0.0)
        self.lengths = Lengths()

    def start(self, now: float, ask: Ask | None = Ask(route="m", prompt_tokens=1000)) -> Flight:  # noqa: B008
        return Flight(self.choice, self.seat, ask, LENGTHS, now)

    def end(self, flight: Flight, now: float, tokens: Tokens | None = None, ok: bool = True) -> None:
        flight.end(now, tokens, ok, self.lengths)


def test_speeds_are_learned_from_a_stream() -> None:
    bench = Bench()
    flight = bench.start(0.0)
    assert (bench.seat.place.unread, bench.seat.place.prompts, bench.seat.place.expected) == (1000.0, 1000.0, LENGTHS)
    flight.first(2.0)
    assert bench.seat.place.unread == 0.0
    bench.end(flight, 12.0, Tokens(1000, 200))
    assert (flight.prefill, flight.decode, flight.cold) == ((1000, 2.0), (200, pytest.approx(10.0)), None)
    assert (bench.seat.pace.token, bench.seat.pace.prefill) == (pytest.approx(0.05), 500.0)
    assert bench.lengths.expected("m") == 200.0
    assert (bench.seat.place.prompts, bench.seat.place.expected, bench.seat.own) == (0.0, 0.0, 0)


def test_a_speed_is_that_of_an_answer_alone() -> None:
    bench = Bench(4)
    others = [bench.start(0.0) for _ in range(2)]
    flight = bench.start(0.0)
    flight.first(1.0)
    bench.end(flight, 17.0, Tokens(1000, 100))
    # Three at a time, each token takes 1.6 times as long.
    assert flight.decode == (100, pytest.approx(10.0))
    assert flight.prefill is None, "others' prompts were read, too"
    for other in others:
        bench.end(other, 20.0, ok=False)


def test_an_answer_in_one_piece_tells_its_speed_as_well() -> None:
    bench = Bench()
    bench.seat.pace.learn(0.0, None, 1000.0, None)
    flight = bench.start(0.0, Ask(prompt_tokens=1000, stream=False))
    assert bench.seat.place.unread == 0.0, "nobody would tell when it has been read"
    bench.end(flight, 11.0, Tokens(1000, 200))
    assert flight.decode == (200, pytest.approx(10.0))
    assert flight.prefill is None


def test_what_only_reads_tells_how_fast() -> None:
    bench = Bench()
    flight = bench.start(0.0, Ask(prompt_tokens=500, stream=False))
    bench.end(flight, 0.5, Tokens(500, 0))
    assert (flight.prefill, flight.decode) == ((500, 0.5), None)


def test_what_is_cached_was_not_read() -> None:
    bench = Bench()
    flight = bench.start(0.0)
    flight.first(1.0)
    bench.end(flight, 2.0, Tokens(1000, 20, 600))
    assert flight.prefill == (400, 1.0)


def test_what_is_probably_cached_was_not_read_either() -> None:
    bench = Bench(4)
    ask = Ask(prompt_tokens=1000, conversation=1)
    bench.end(bench.start(0.0, ask), 1.0, Tokens(1000, 500))
    longer = msgspec.structs.replace(ask, prompt_tokens=2000)
    flight = bench.start(2.0, longer)
    assert bench.seat.place.unread == 500.0
    flight.first(3.0)
    bench.end(flight, 4.0, Tokens(1600, 20))
    assert flight.prefill == (400, 1.0)


def test_a_cold_start_tells_the_load() -> None:
    bench = Bench(loaded=False)
    bench.seat.pace.learn(0.0, None, 1000.0, None)
    first, second = bench.start(0.0), bench.start(0.1)
    first.first(9.0)
    second.first(9.5)
    bench.end(first, 10.0, Tokens(1000, 20))
    bench.end(second, 11.0, Tokens(1000, 20))
    assert (first.cold, second.cold) == (8.0, None)
    assert bench.seat.pace.load == 8.0
    assert first.prefill is None
    assert bench.seat.loading is None


def test_without_tokens_a_request_is_the_measure() -> None:
    bench = Bench()
    flight = bench.start(0.0, Ask(stream=False))
    bench.end(flight, 20.0)
    assert bench.seat.pace.token == pytest.approx(20.0 / LENGTHS)
    assert (flight.decode, flight.prefill) == (None, None), "control is told figures, not guesses"


def test_failures_tell_nothing() -> None:
    bench = Bench()
    flight = bench.start(0.0)
    flight.first(1.0)
    bench.end(flight, 12.0, Tokens(1000, 200), ok=False)
    assert bench.seat.pace.basis == "assumed"
    assert flight.decode is None


def test_an_answer_that_was_held_back_tells_no_speed() -> None:
    bench = Bench()
    flight = bench.start(0.0)
    flight.first(10.0)
    bench.end(flight, 10.001, Tokens(1000, 200))
    assert flight.decode is None


def test_where_nothing_is_asked_of_the_request_its_speed_is_learned_all_the_same() -> None:
    bench = Bench()
    flight = bench.start(0.0, None)
    flight.first(1.0)
    bench.end(flight, 11.0, Tokens(1000, 100))
    assert flight.decode is None, "this has time"
    flight.settle()
    assert flight.decode == (100, pytest.approx(10.0))
    assert flight.prefill is None, "nobody knows what was cached"


STEPS = st.lists(
    st.tuples(st.sampled_from(["start", "first", "end", "fail"]), st.integers(0, 9), st.booleans(), st.booleans()),
    max_size=60,
)


@given(STEPS, st.integers(1, 4), st.booleans())
def test_what_was_added_is_taken_back(steps: list[tuple[str, int, bool, bool]], slots: int, loaded: bool) -> None:
    bench, now = Bench(slots, loaded), 0.0
    flying: list[list[object]] = []
    for what, number, stream, asked in steps:
        now += 0.5
        if what == "start":
            ask = Ask(prompt_tokens=number * 300, conversation=number % 3, stream=stream) if asked else None
            flying.append([bench.start(now, ask), False])
        elif flying:
            one = flying[number % len(flying)]
            flight = one[0]
            assert isinstance(flight, Flight)
            if what == "first":
                if not one[1]:
                    flight.first(now)
                    one[1] = True
                continue
            flying.remove(one)
            bench.end(flight, now, Tokens(number * 300, number * 30), what == "end")
        place = bench.seat.place
        assert place.own == bench.seat.own == len(flying)
        assert min(place.unread, place.prompts, place.expected) >= 0
    for flight, _ in flying:
        assert isinstance(flight, Flight)
        bench.end(flight, now + 1, ok=False)
    place = bench.seat.place
    assert (place.own, place.unread, place.prompts, place.expected) == (0, 0.0, 0.0, 0.0)


def test_of_many_for_which_nobody_chooses_some_are_learned_of() -> None:
    bench = Bench()
    told = []
    for n in range(100):
        flight = bench.start(n / 100, None)
        flight.first(n / 100 + 0.001)
        bench.end(flight, n / 100 + 0.005, Tokens(10, 10))
        flight.settle()
        told.append(flight.decode is not None)
    assert told[0]
    assert 15 <= sum(told) <= 21
