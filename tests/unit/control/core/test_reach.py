from geniehive.rules.model import Relay, Service, Way
from geniehive_control.core import reach
from geniehive_control.core.reach import Place, Reach

RELAY = Relay(host_id="b", base_urls=("https://192.0.2.7:8803",))
RELAY_PLACE = Place("192.0.2.7", 8803)
ENGINE_PLACE = Place("192.0.2.7", 11434)
SAME_HOST = Way(direct_url="http://127.0.0.1:11434", same_host_only=True)
DIRECT = Way(direct_url="http://192.0.2.7:11434")
RELAYED = Way()


def service(*ways: Way, hosted: bool = False) -> Service:
    return Service(service="b/ollama", ways=ways, hosted=hosted)


def test_loopback_and_what_is_no_url_are_not_tried() -> None:
    for url in (
        "http://127.0.0.1:8803",
        "http://localhost:1",
        "https://[::1]:8803",
        "ftp://x",
        "nonsense",
        "http://x:99999",
    ):
        assert reach.place(url) is None, url
    assert reach.place("https://[fd00::2]:8803") == Place("fd00::2", 8803)
    assert reach.place("https://box") == Place("box", 443)


def test_everything_that_others_may_be_sent_to_is_tried() -> None:
    assert reach.places([service(SAME_HOST, DIRECT, RELAYED)], RELAY) == {RELAY_PLACE, ENGINE_PLACE}
    assert reach.places([service(DIRECT, hosted=True)], None) == frozenset()


def test_two_failures_break_an_address_and_one_success_mends_it() -> None:
    known = Reach()
    known.want("b", frozenset({RELAY_PLACE}), 10.0)
    assert known.take_due(10.0, 9) == [RELAY_PLACE]
    assert known.take_due(10.0, 9) == []  # under way
    assert known.tell(RELAY_PLACE, "refused", 10.1) == set()
    assert known.broken("b") == {}
    assert known.next_due() == 10.1 + reach.DOUBTFUL
    assert known.take_due(11.2, 9) == [RELAY_PLACE]
    assert known.tell(RELAY_PLACE, "refused", 11.3) == {"b"}
    assert known.broken("b") == {RELAY_PLACE: "refused"}
    known.take_due(20.0, 9)
    assert known.tell(RELAY_PLACE, "refused", 20.0) == set()  # nothing new
    known.take_due(30.0, 9)
    assert known.tell(RELAY_PLACE, None, 30.0) == {"b"}
    assert known.broken("b") == {}
    assert known.next_due() == 30.0 + reach.GOOD


def test_an_address_that_nobody_has_any_more_is_forgotten() -> None:
    known = Reach()
    known.want("b", frozenset({RELAY_PLACE}), 0.0)
    known.want("c", frozenset({RELAY_PLACE, ENGINE_PLACE}), 0.0)
    known.want("b", frozenset(), 1.0)
    assert set(known.take_due(1.0, 9)) == {RELAY_PLACE, ENGINE_PLACE}
    known.want("c", frozenset(), 1.0)
    assert known.next_due() is None
    assert known.tell(RELAY_PLACE, "refused", 2.0) == set()


def test_no_more_are_tried_at_once_than_asked_for() -> None:
    known = Reach()
    known.want("b", frozenset({RELAY_PLACE, ENGINE_PLACE}), 0.0)
    assert len(known.take_due(0.0, 1)) == 1
    assert len(known.take_due(0.0, 1)) == 1
    assert known.take_due(0.0, 1) == []


def test_broken_ways_are_left_out_and_the_others_kept_in_order() -> None:
    offered = service(SAME_HOST, DIRECT, RELAYED)
    assert reach.open_ways(offered, RELAY, {}) == (offered.ways, "")
    assert reach.open_ways(offered, RELAY, {ENGINE_PLACE: "refused"}) == ((SAME_HOST, RELAYED), "")
    assert reach.open_ways(offered, RELAY, {RELAY_PLACE: "refused"}) == ((SAME_HOST, DIRECT), "")


def test_a_service_without_a_way_left_says_what_to_do() -> None:
    ways, why = reach.open_ways(service(RELAYED), RELAY, {RELAY_PLACE: "it does not answer"})
    assert ways == ()
    assert "192.0.2.7:8803: it does not answer" in why
    assert "8803" in why
    assert "--advertise" in why
    # One that had no way from the start is its node's to explain.
    assert reach.open_ways(service(), RELAY, {RELAY_PLACE: "x"}) == ((), "")


def test_a_relay_with_a_second_address_is_kept() -> None:
    two = Relay(host_id="b", base_urls=("https://192.0.2.7:8803", "https://[fd00::7]:8803"))
    assert reach.open_ways(service(RELAYED), two, {RELAY_PLACE: "refused"}) == ((RELAYED,), "")


def test_a_host_with_many_addresses_takes_nobodys_turn() -> None:
    known = Reach()
    many = frozenset(Place("198.51.100.1", port) for port in range(1, 1000))
    known.want("bad", many, 0.0)
    tried = set(known.take_due(0.0, 9999))
    assert len(tried) == reach.MOST_OF_A_HOST
    known.want("bad", many | {Place("198.51.100.0", 1)}, 1.0)
    assert known.take_due(1.0, 9999) == [], "the same are tried, however many there are"
    known.want("b", frozenset({RELAY_PLACE}), 2.0)
    for where in tried:
        known.tell(where, "refused", 2.5)
    assert known.take_due(60.0, 1) == [RELAY_PLACE], "it waits longest"
