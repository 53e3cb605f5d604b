"""Which ways are asked, and which are broken."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from geniehive.rules.model import Relay, Service, Way
from geniehive_control.core import probes
from geniehive_control.core.probes import Check, Failure, Finding, Kind, Probes
from tests.support.cluster import service

NEAR = Way(direct_url="http://127.0.0.1:11434", same_host_only=True)
FAR = Way(direct_url="http://192.0.2.7:11434")
RELAYED = Way()
RELAY = Relay(host_id="b", base_urls=("http://127.0.0.1:8803",), token="secret")
TLS_RELAY = Relay(host_id="b", base_urls=("https://192.0.2.7:8803",))
UNWELL = Failure(Kind.UNWELL, "it answers 503")
SILENT = Failure(Kind.SILENT, "no answer within 2 s")
CLOSED = Failure(Kind.CLOSED, "nothing listens there")


def offered(*ways: Way, **more: object) -> Service:
    return service("b/ollama", "qwen3", ways=ways, **more)


class Asked:
    """Probes in which time passes."""

    def __init__(self, *ways: Way, relay: Relay | None = RELAY, here: bool = True, tls: bool = False) -> None:
        self.probes = Probes(10.0, tls=tls)
        self.service = offered(*ways)
        self.now = 100.0
        self.probes.want(self.service, relay, here, self.now)

    def take(self) -> list[Check]:
        due = self.probes.next_due()
        assert due is not None
        self.now = max(self.now, due)
        return self.probes.take_due(self.now, 99)

    def tell(self, way: Way, failure: Failure | None) -> bool:
        """The next answer of this way; others answer as they should."""
        while True:
            changed = False
            for check in self.take():
                told = self.probes.tell(check, failure if check.way == way else None, self.now)
                changed = changed or (told and check.way == way)
                if check.way == way:
                    return changed

    @property
    def finding(self) -> Finding:
        return self.probes.finding(self.service, self.service.ways)


def ways(asked: Iterable[Check]) -> set[Way]:
    return {check.way for check in asked}


def due_in_all(probes_: Probes, now: float) -> set[Way]:
    return ways(probes_.take_due(now + probes.FIRST_WITHIN, 99))


def test_on_its_own_machine_control_asks_by_every_way() -> None:
    asked = Asked(NEAR, FAR, RELAYED)
    assert due_in_all(asked.probes, asked.now) == {NEAR, FAR, RELAYED}


def test_of_other_machines_loopback_nothing_is_asked() -> None:
    asked = Asked(NEAR, FAR, RELAYED, here=False)
    assert due_in_all(asked.probes, asked.now) == {FAR}


def test_a_relay_with_tls_is_asked_by_who_has_a_certificate() -> None:
    assert Asked(RELAYED, relay=TLS_RELAY, here=False).probes.next_due() is None
    with_tls = Asked(NEAR, RELAYED, relay=TLS_RELAY, here=False, tls=True)
    assert due_in_all(with_tls.probes, with_tls.now) == {RELAYED}


def test_providers_and_services_without_a_way_are_not_asked() -> None:
    asked = Probes(10.0)
    asked.want(replace(offered(FAR), hosted=True), None, True, 0.0)
    asked.want(offered(RELAYED), None, True, 0.0)
    assert asked.next_due() is None


def test_two_failures_break_a_way_and_two_answers_mend_it() -> None:
    asked = Asked(NEAR)
    assert not asked.tell(NEAR, UNWELL)
    assert asked.finding.ways == (NEAR,)
    began = asked.now
    assert asked.tell(NEAR, UNWELL)
    assert asked.now - began <= 1.1 * probes.DOUBTFUL
    assert asked.finding == Finding((), "at http://127.0.0.1:11434: it answers 503")
    assert not asked.tell(NEAR, None)
    assert not asked.probes.finding(asked.service, (NEAR,)).ways
    began = asked.now
    assert asked.tell(NEAR, None)
    assert asked.now - began <= 1.1 * probes.DOUBTFUL
    assert asked.finding == Finding((NEAR,))
    assert asked.probes.answering("b/ollama")


def test_silence_takes_three() -> None:
    asked = Asked(NEAR)
    assert not asked.tell(NEAR, SILENT)
    assert not asked.tell(NEAR, SILENT)
    assert asked.tell(NEAR, SILENT)
    mixed = Asked(NEAR)
    assert not mixed.tell(NEAR, SILENT)
    assert mixed.tell(NEAR, UNWELL)


def test_an_answer_between_failures_forgives_them() -> None:
    asked = Asked(NEAR)
    for _ in range(5):
        assert not asked.tell(NEAR, UNWELL)
        assert not asked.tell(NEAR, None)
    assert asked.finding.ways == (NEAR,)


def test_a_broken_way_is_asked_soon_and_then_less_often() -> None:
    asked = Asked(NEAR)
    asked.tell(NEAR, UNWELL)
    asked.tell(NEAR, UNWELL)
    pauses = []
    for _ in range(5):
        before = asked.now
        asked.tell(NEAR, UNWELL)
        pauses.append(asked.now - before)
    assert pauses[0] < 1.2
    assert max(pauses) <= 1.1 * probes.LONGEST_BROKEN


def test_only_what_is_broken_is_left_out() -> None:
    asked = Asked(NEAR, RELAYED)
    asked.tell(RELAYED, UNWELL)
    assert asked.tell(RELAYED, UNWELL)
    assert asked.finding == Finding((NEAR,))


def test_an_engine_that_fails_its_relay_is_broken_by_ways_that_control_cannot_take_too() -> None:
    asked = Asked(NEAR, RELAYED, relay=TLS_RELAY, here=False, tls=True)
    asked.tell(RELAYED, UNWELL._replace(engine=True))
    asked.tell(RELAYED, UNWELL._replace(engine=True))
    assert asked.finding == Finding((), "by its relay: it answers 503")
    other = Asked(NEAR, RELAYED, relay=TLS_RELAY, here=False, tls=True)
    other.tell(RELAYED, UNWELL)
    other.tell(RELAYED, UNWELL)
    assert other.finding == Finding((NEAR,)), "gateways of that machine need no relay"


def test_closed_ports_of_other_machines_are_for_reach_to_find() -> None:
    asked = Asked(FAR, here=False)
    for _ in range(5):
        assert not asked.tell(FAR, CLOSED)
    assert asked.finding.ways == (FAR,)
    near = Asked(NEAR)
    near.tell(NEAR, CLOSED)
    assert near.tell(NEAR, CLOSED)


def test_a_new_offer_keeps_what_is_known_and_drops_ways_that_are_gone() -> None:
    asked = Asked(NEAR, RELAYED)
    asked.tell(NEAR, UNWELL)
    asked.tell(NEAR, UNWELL)
    asked.probes.want(asked.service, RELAY, True, asked.now)
    assert asked.finding == Finding((RELAYED,))
    asked.probes.want(offered(RELAYED), RELAY, True, asked.now)
    assert asked.probes.finding(offered(RELAYED), (RELAYED,)) == Finding((RELAYED,))


def test_a_relay_at_another_address_is_asked_at_once() -> None:
    asked = Asked(RELAYED)
    asked.tell(RELAYED, UNWELL)
    asked.tell(RELAYED, UNWELL)
    moved = replace(RELAY, base_urls=("http://127.0.0.1:9903",))
    asked.probes.want(asked.service, moved, True, asked.now)
    assert asked.probes.take_due(asked.now, 9) != []
    assert asked.probes.service("b/ollama") == (asked.service, moved)


def test_what_comes_late_is_about_nobody() -> None:
    asked = Asked(NEAR)
    (check,) = asked.take()
    asked.probes.drop("b/ollama")
    assert not asked.probes.tell(check, UNWELL, asked.now)
    asked.probes.want(asked.service, RELAY, True, asked.now)
    assert not asked.probes.tell(check, UNWELL, asked.now)
    assert asked.probes.service("other/x") is None


def test_a_thousand_services_are_asked_spread_over_the_interval() -> None:
    many = Probes(10.0)
    for number in range(1000):
        many.want(service(f"h-{number}/e", "m", ways=(FAR,)), None, True, 0.0)
    asked: list[tuple[float, Check]] = []
    for step in range(400):
        now = step * 0.1
        for check in many.take_due(now, 50):
            asked.append((now, check))
            many.tell(check, None, now)
    in_window = [sum(10 <= at < 40 and int(at) == second for at, _ in asked) for second in range(10, 40)]
    assert sum(in_window) in range(2700, 3350)
    # The first round was spread by how many may be under way; the rounds drift apart from then on.
    assert max(in_window) < 600


@given(st.lists(st.sampled_from([None, UNWELL, SILENT, CLOSED]), max_size=30))
def test_hysteresis_holds_whatever_comes(answers: list[Failure | None]) -> None:
    asked = Asked(NEAR)
    broken = False
    for number, answer in enumerate(answers, 1):
        changed = asked.tell(NEAR, answer)
        now_broken = not asked.finding.ways
        if now_broken != broken:
            assert changed
            last = answers[max(0, number - 2) : number]
            assert all((item is None) != now_broken for item in last)
            assert len(last) == 2
        broken = now_broken
