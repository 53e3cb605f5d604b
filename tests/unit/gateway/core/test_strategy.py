"""Strategies through `Balance`, as gateways use them; and that what is explained is what is done."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.asking import Ask
from gateway.core.balance import Balance
from gateway.core.flight import Flight
from gateway.core.outcome import Tokens
from gateway.core.plan import Candidate, Choice, Plan, TierPlan
from geniehive.rules.model import ServiceLoad, Speed, Strategy
from tests.unit.gateway.builders import candidate, plan

ASK = Ask(route="m", prompt_tokens=400)


def host(
    name: str, decode: float | None = None, slots: int = 1, limit: int | None = None, **fields: object
) -> Candidate:
    speed = Speed(decode_tokens_per_second=decode) if decode is not None else None
    given = {"slots": slots, "slots_known": True, "speed": speed, "loaded": True, "load_key": f"{name}/e", **fields}
    return msgspec.structs.replace(candidate(name, limit=limit), **given)  # type: ignore[arg-type]


def tiers(strategy: Strategy, *members: tuple[Candidate, ...]) -> Plan:
    made = plan(*members)
    return msgspec.structs.replace(
        made, tiers=tuple(msgspec.structs.replace(tier, strategy=strategy) for tier in made.tiers)
    )


def send(balance: Balance, asked: Plan, now: float = 0.0, ask: Ask | None = ASK) -> Flight:
    choice = balance.choose(asked, set(), now, ask)
    assert isinstance(choice, Choice)
    return balance.started(choice, now, ask)


def to(flight: Flight) -> str:
    return flight.choice.candidate.host


def test_soonest_is_the_fastest_until_its_queue_is_longer() -> None:
    balance, asked = Balance(), tiers(Strategy.SOONEST, (host("slow", 20.0), host("fast", 100.0)))
    assert [to(send(balance, asked)) for _ in range(5)] == ["fast"] * 3 + ["slow", "fast"]


@pytest.mark.parametrize("strategy", list(Strategy))
def test_equal_ones_share_the_work(strategy: Strategy) -> None:
    balance, asked = Balance(), tiers(strategy, tuple(host(name, slots=4) for name in "abcd"))
    counts = Counter(to(send(balance, asked)) for _ in range(16))
    assert counts == {"a": 4, "b": 4, "c": 4, "d": 4}


@pytest.mark.parametrize("strategy", list(Strategy))
def test_equal_ones_come_in_turn_when_nothing_is_under_way(strategy: Strategy) -> None:
    balance, asked = Balance(), tiers(strategy, tuple(host(name) for name in "abcd"))
    counts: Counter[str] = Counter()
    for _ in range(20):
        flight = send(balance, asked)
        balance.ended(flight, 0.0)
        counts[to(flight)] += 1
    assert set(counts.values()) == {5}


def test_a_cold_model_is_asked_only_if_the_queue_elsewhere_is_longer() -> None:
    cold = host("cold", 40.0, loaded=False)
    balance, asked = Balance(), tiers(Strategy.SOONEST, (host("warm", 40.0), cold))
    went = [to(send(balance, asked)) for _ in range(6)]
    assert went[:3] == ["warm"] * 3
    assert "cold" in went


def test_a_conversation_goes_where_it_was_unless_too_much_is_done_there() -> None:
    members = tuple(host(name, 40.0, slots=4) for name in "abc")
    balance, asked = Balance(), tiers(Strategy.SOONEST, members)
    turn = Ask(route="m", prompt_tokens=8000, conversation=7)
    flight = send(balance, asked, 0.0, turn)
    balance.ended(flight, 10.5, 10.5, Tokens(8000, 100), True)
    home = to(flight)
    for n in range(3):
        flight = send(balance, asked, 11.0 + 3 * n, turn)
        balance.ended(flight, 13.5 + 3 * n, 2.5, Tokens(8000, 100), True)
        assert to(flight) == home
    crowd = [to(send(balance, asked, 30.0, turn)) for _ in range(30)]
    assert crowd[0] == home
    assert set(crowd) == {"a", "b", "c"}, "a hit is a gain, never a pin"


def test_samples_tell_of_others() -> None:
    members = (host("a", 40.0), host("b", 40.0))
    balance, asked = Balance(), tiers(Strategy.SOONEST, members)
    load = ServiceLoad(service="a/e", age_seconds=0.1, running=3, queued=0)
    balance.loads.take((load,), 10.0, balance.own_at, 0.0)
    assert [to(send(balance, asked, 0.0)) for _ in range(3)] == ["b", "b", "b"]
    # They are too old by then, and what is under way from here counts alone.
    assert to(send(balance, asked, 30.0)) == "a"


def test_scored_is_the_best_until_its_queue_costs_more() -> None:
    members = (host("good", weight=500), host("better", weight=560))
    balance, asked = Balance(), tiers(Strategy.SCORED, members)
    assert [to(send(balance, asked)) for _ in range(5)] == ["better", "better", "better", "good", "better"]


def test_loaded_first() -> None:
    members = (host("cold", loaded=False), host("warm"), host("silent", loaded=None))
    balance, asked = Balance(), tiers(Strategy.LOADED_FIRST, members)
    assert {to(send(balance, asked)) for _ in range(10)} == {"warm", "silent"}


def test_least_loaded_counts_slots() -> None:
    balance, asked = Balance(), tiers(Strategy.LEAST_LOADED, (host("small"), host("large", slots=3)))
    assert Counter(to(send(balance, asked)) for _ in range(8)) == {"small": 2, "large": 6}


def test_the_slow_are_found_out() -> None:
    balance, asked = Balance(), tiers(Strategy.SOONEST, (host("a"), host("b")))
    seconds = {"a": 20.0, "b": 2.0}
    now, went = 0.0, []
    for _ in range(12):
        flight = send(balance, asked, now)
        flight.first(now + 0.1)
        now += seconds[to(flight)]
        balance.ended(flight, now, seconds[to(flight)], Tokens(400, 200), True)
        went.append(to(flight))
    assert went[3:] == ["b"] * 9


def test_models_of_one_service_share_its_slots() -> None:
    one = host("a", 40.0)
    other = msgspec.structs.replace(one, endpoint="endpoint/a/e/other", asset_id="other")
    balance = Balance()
    for _ in range(3):
        send(balance, tiers(Strategy.SOONEST, (other, host("z", 40.0))))
    seen = balance.explain(tiers(Strategy.SOONEST, (one, host("b", 40.0))), ASK, 0.0)
    assert [(c.endpoint, c.in_flight) for c in seen] == [("endpoint/a/e/m", 2), ("endpoint/b/e/m", 0)]
    assert balance.in_flight == {"endpoint/a/e/other": 2, "endpoint/z/e/m": 1}


def test_answers_are_no_longer_than_was_asked_for() -> None:
    balance, asked = Balance(), tiers(Strategy.SOONEST, (host("a", 40.0), host("b", 40.0)))
    (short, _) = balance.explain(asked, Ask(route="m", max_tokens=10), 0.0)
    assert short.expected_tokens == 10.0
    assert short.wait is not None
    assert short.wait.decode == pytest.approx(10 / 40)


def test_what_control_knows_of_answers() -> None:
    made = tiers(Strategy.SOONEST, (host("a", 40.0), host("b", 40.0)))
    told = msgspec.structs.replace(made, tiers=(msgspec.structs.replace(made.tiers[0], expected=900),))
    balance = Balance()
    assert balance.explain(told, ASK, 0.0)[0].expected_tokens == 900.0
    flight = send(balance, told)
    balance.ended(flight, 1.0, 1.0, Tokens(400, 100), True)
    assert 850 < balance.explain(told, ASK, 0.0)[0].expected_tokens < 900


def test_what_is_known_survives_a_new_table() -> None:
    balance = Balance()
    first = tiers(Strategy.SOONEST, (host("a"), host("b")))
    flight = send(balance, first)
    flight.first(1.0)
    balance.ended(flight, 101.0, 101.0, Tokens(400, 100), True)
    slow = to(flight)
    second = tiers(Strategy.SOONEST, (host("a"), host("b"), host("c")))
    told = {c.endpoint: c.speed for c in balance.explain(second, ASK, 101.0)}
    assert told == {f"endpoint/{n}/e/m": "learned" if n == slow else "assumed" for n in "abc"}


def test_who_was_forgotten_is_known_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.core.balance._SEATS_KEPT", 4)
    balance = Balance()
    kept = send(balance, tiers(Strategy.SOONEST, (host("x", slots=2), host("y", slots=2))))
    for n in range(10):
        asked = tiers(Strategy.SOONEST, (host(f"a{n}"), host(f"b{n}")))
        balance.ended(send(balance, asked, float(n)), float(n), 1.0, Tokens(400, 100), True)
    assert len(balance._seats) <= 5
    assert balance.in_flight == {kept.choice.candidate.endpoint: 1}
    balance.ended(kept, 20.0)
    assert balance.in_flight == {}


def test_explained_is_who_cannot_be_asked_and_why() -> None:
    members = (host("full", 40.0, limit=1), host("out", 40.0), host("small", 40.0), host("ok", 40.0))
    balance, asked = Balance(), tiers(Strategy.SOONEST, members)
    balance.started(Choice(members[0], members[0].lanes[0], "m"), 0.0, ASK)
    balance.ejections.failed(members[1].lanes[0], 0.0)
    seen = {c.name: c for c in balance.explain(asked, ASK, 0.5, {"endpoint/small/e/m": "context 2048 < 400"})}
    assert {name: c.why_not for name, c in seen.items()} == {
        "full/e/m": "full/e is at its limit, 1 at once",
        "out/e/m": "left out after failures, for 0.5 s more",
        "small/e/m": "context 2048 < 400",
        "ok/e/m": "",
    }
    assert [name for name, c in seen.items() if c.chosen] == ["ok/e/m"]
    assert {name: c.lane for name, c in seen.items()} == {
        "full/e/m": "direct", "out/e/m": None, "small/e/m": "direct", "ok/e/m": "direct",
    }  # fmt: skip


HOSTS = st.lists(
    st.builds(
        host, st.uuids().map(str), st.sampled_from([None, 10.0, 40.0, 120.0]), st.sampled_from([1, 4, 64]),
        st.sampled_from([None, None, 1, 3]), loaded=st.sampled_from([True, False, None]), weight=st.integers(0, 1000),
    ),
    min_size=1, max_size=4,
)  # fmt: skip
STEPS = st.lists(
    st.tuples(st.sampled_from(["send", "send", "send", "first", "end", "fail", "sample"]), st.integers(0, 20)),
    max_size=30,
)


@settings(deadline=None)
@given(st.sampled_from(list(Strategy)), st.lists(HOSTS, min_size=1, max_size=2), STEPS)
def test_what_is_explained_is_what_is_done(
    strategy: Strategy, members: list[list[Candidate]], steps: list[tuple[str, int]]
) -> None:
    balance, asked = Balance(), tiers(strategy, *map(tuple, members))
    services = [c.service for tier in asked.tiers for c in tier.candidates]
    flying: list[Flight] = []
    now = 0.0
    for what, number in steps:
        now += 0.3
        ask = Ask(route="m", prompt_tokens=number * 100, conversation=number % 4)
        if what == "send":
            unfit = {asked.tiers[0].candidates[0].endpoint: "too small"} if number > 17 else {}
            explained = [c.endpoint for c in balance.explain(asked, ask, now, unfit) if c.chosen]
            again = [c.endpoint for c in balance.explain(asked, ask, now, unfit) if c.chosen]
            choice = balance.choose(asked, set(unfit), now, ask)
            done = [choice.candidate.endpoint] if isinstance(choice, Choice) else []
            assert explained == again == done
            if isinstance(choice, Choice):
                flying.append(balance.started(choice, now, ask))
        elif what == "sample":
            load = ServiceLoad(service=services[number % len(services)], age_seconds=0.2, running=number % 7)
            balance.loads.take((load,), 3.0, balance.own_at, now)
        elif flying:
            flight = flying[number % len(flying)]
            if what == "first":
                continue
            flying.remove(flight)
            if what == "fail":
                balance.ejections.failed(flight.choice.lane, now)
            balance.ended(flight, now, 1.0, Tokens(number * 100, 10 * number), what == "end")
    assert sum(balance.in_flight.values()) == len(flying)


def test_the_first_tier_as_long_as_it_can() -> None:
    balance, asked = Balance(), tiers(Strategy.SOONEST, (host("a", 1.0, limit=1),), (host("b", 100.0),))
    assert [to(send(balance, asked)) for _ in range(2)] == ["a", "b"]
    assert [c.tier for c in balance.explain(asked, ASK, 0.0)] == [0, 1]


def test_a_tier_of_a_strategy_from_the_future_is_as_by_default() -> None:
    """Its number is not known here; what the table makes of it is SOONEST."""
    made = plan((host("slow", 10.0), host("fast", 100.0)))
    unknown = TierPlan(made.tiers[0].key, "m", made.tiers[0].candidates, Strategy.UNSPECIFIED)
    balance = Balance()
    assert to(send(balance, msgspec.structs.replace(made, tiers=(unknown,)))) == "fast"
