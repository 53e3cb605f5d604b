"""Sessions, leases, fencing, presumption, storing: by events and effects."""

import msgspec
import pytest

from geniehive.rules.model import Availability, Condition, Load, MachineLoad, Reason, ServiceLoad
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from geniehive_control.core import registry as registries
from geniehive_control.core.refusal import Why
from geniehive_control.core.registry import COMPILE_EVERY, SEEN_EVERY
from geniehive_control.core.sessions import _MOST_TOLD, FIRST_LEASE, SWEEP_EVERY
from geniehive_control.core.verdict import Life
from tests.support.cluster import inventory, service
from tests.support.control_core import WALL, Driver, Mirror, kinds, only, restarted

OLLAMA = service("gpu-1/ollama", "qwen3")


def test_a_host_registers_and_is_routable() -> None:
    driver = Driver()
    session, effects = driver.open("gpu-1")
    assert effects == [fx.Welcome(session_id=session, host_id="gpu-1")]
    assert list(driver.registry.hosts()) == []
    effects = driver.offer(session, inventory("gpu-1", [OLLAMA]))
    assert kinds(effects) == [fx.Note, fx.Changed, fx.StoreHost]
    assert driver.routable("gpu-1/ollama")
    assert driver.store() == [fx.AnswerInventory(session_id=session, revision=1)]


def test_an_inventory_that_changes_nothing_is_answered_at_once_and_not_stored() -> None:
    driver = Driver()
    session = driver.join("gpu-1", OLLAMA)
    effects = driver.offer(session, inventory("gpu-1", [OLLAMA], revision=2))
    assert only(effects, fx.StoreHost) == []
    assert only(effects, fx.AnswerInventory) == [fx.AnswerInventory(session_id=session, revision=2)]


def test_of_two_unanswered_inventories_the_later_is_answered() -> None:
    driver = Driver()
    session, _ = driver.open("gpu-1")
    driver.offer(session, inventory("gpu-1", [OLLAMA], revision=1))
    early = driver.registry.to_store("gpu-1")
    assert early is not None
    driver.offer(session, inventory("gpu-1", revision=2))
    # The database has the first one only: not yet.
    assert driver.feed(e.HostStored(host_id="gpu-1", change=early[1])) == []
    assert driver.store() == [fx.AnswerInventory(session_id=session, revision=2)]


def test_an_inventory_of_an_old_revision_ends_the_session() -> None:
    driver = Driver()
    session = driver.join("gpu-1", OLLAMA)
    effects = driver.offer(session, inventory("gpu-1", [OLLAMA], revision=1))
    (ending,) = only(effects, fx.EndSession)
    assert ending.refusal.why is Why.OUT_OF_ORDER
    assert not driver.routable("gpu-1/ollama")


def test_an_inventory_of_another_host_ends_the_session() -> None:
    driver = Driver()
    session, _ = driver.open("gpu-1")
    (ending,) = only(driver.offer(session, inventory("gpu-2")), fx.EndSession)
    assert ending.refusal.why is Why.NOT_YOURS
    assert driver.registry._hosts == {}


def test_the_lease_holds_while_anything_comes() -> None:
    driver = Driver()
    session = driver.join("gpu-1", OLLAMA)
    for _ in range(5):
        driver.wait(2.0)
        driver.beat(session)
        driver.wait(2.0)
        driver.feed(e.LoadSent(session_id=session))
    assert driver.routable("gpu-1/ollama")


def test_silence_ends_the_lease_and_the_session() -> None:
    driver = Driver()
    session = driver.join("gpu-1", OLLAMA)
    driver.wait(2.4)
    assert driver.routable("gpu-1/ollama")
    effects = driver.wait(0.1 + SWEEP_EVERY)
    (ending,) = only(effects, fx.EndSession)
    assert (ending.session_id, ending.refusal.why) == (session, Why.SESSION_LOST)
    upstream = driver.upstream("gpu-1/ollama")
    assert not upstream.routable
    assert upstream.condition.availability is Availability.OFFLINE
    assert upstream.condition.reason is Reason.LEASE_EXPIRED
    # What the silent node still sends counts for nothing.
    assert driver.offer(session, inventory("gpu-1", revision=2)) == []


def test_who_has_only_said_hello_is_given_longer() -> None:
    driver = Driver()
    session, _ = driver.open("gpu-1")
    assert not only(driver.wait(2.0), fx.EndSession)
    driver.beat(session)
    assert not only(driver.wait(FIRST_LEASE - 2.1), fx.EndSession)
    (ending,) = only(driver.wait(0.1 + SWEEP_EVERY), fx.EndSession)
    assert (ending.session_id, ending.refusal.why) == (session, Why.SESSION_LOST)
    assert driver.registry._hosts == {}


def test_what_control_had_no_time_to_read_is_not_taken_for_silence() -> None:
    driver = Driver()
    session, silent = driver.join("gpu-1", OLLAMA), driver.join("gpu-2", service("gpu-2/ollama", "m"))
    # It did nothing at all for longer than a lease; what nodes sent is read only after this.
    driver.time += 4.0
    assert not only(driver.feed(e.Tick()), fx.EndSession)
    driver.beat(session)
    (ending,) = only(driver.wait(2.4), fx.EndSession)
    assert (ending.session_id, ending.refusal.why) == (silent, Why.SESSION_LOST)


def test_a_closed_stream_takes_the_host_offline_at_once_and_is_stored() -> None:
    driver = Driver()
    session = driver.join("gpu-1", OLLAMA)
    effects = driver.close(session)
    assert fx.StoreHost(host_id="gpu-1") in effects
    assert driver.upstream("gpu-1/ollama").condition.reason is Reason.STREAM_CLOSED
    kept = driver.registry.to_store("gpu-1")
    assert kept is not None
    assert not kept[0].online


def test_a_planned_stop_is_told_from_a_loss() -> None:
    driver = Driver()
    session = driver.join("gpu-1", OLLAMA)
    stopping = Condition(availability=Availability.DRAINING, reason=Reason.STOPPING)
    driver.offer(session, inventory("gpu-1", [OLLAMA], revision=2, condition=stopping))
    assert driver.upstream("gpu-1/ollama").condition == stopping
    driver.close(session)
    assert driver.upstream("gpu-1/ollama").condition.reason is Reason.STOPPING


def test_a_newer_session_fences_the_older() -> None:
    driver = Driver()
    older = driver.join("gpu-1", OLLAMA, instance_id="a", machine_id="m")
    newer, effects = driver.open("gpu-1", instance_id="b", machine_id="m")
    (ending,) = only(effects, fx.EndSession)
    assert (ending.session_id, ending.refusal.why) == (older, Why.SESSION_SUPERSEDED)
    assert driver.routable("gpu-1/ollama"), "the host itself was never away"
    assert driver.close(older) == []
    assert driver.offer(older, inventory("gpu-1", revision=9)) == []
    driver.offer(newer, inventory("gpu-1", [OLLAMA]))
    assert driver.routable("gpu-1/ollama")
    driver.close(newer)
    assert not driver.routable("gpu-1/ollama")


def test_who_is_superseded_is_told_again_while_the_newer_is_there() -> None:
    driver = Driver()
    driver.join("gpu-1", OLLAMA, instance_id="a")
    newer = driver.join("gpu-1", OLLAMA, instance_id="b")
    session, effects = driver.open("gpu-1", instance_id="a")
    (ending,) = only(effects, fx.EndSession)
    assert (ending.session_id, ending.refusal.why) == (session, Why.SESSION_SUPERSEDED)
    assert kinds(effects) == [fx.EndSession], "the newer one is not touched"
    assert driver.close(session) == []
    assert driver.routable("gpu-1/ollama")
    # A reconnect of the newer one is none of this.
    again, effects = driver.open("gpu-1", instance_id="b")
    assert [end.session_id for end in only(effects, fx.EndSession)] == [newer]
    driver.close(again)
    _, effects = driver.open("gpu-1", instance_id="a")
    assert kinds(effects) == [fx.Welcome]
    # Who gives no instance cannot be told apart.
    driver.open("gpu-1")
    _, effects = driver.open("gpu-1")
    assert only(effects, fx.Welcome)


def test_who_was_forgotten_is_told_again_until_it_starts_anew() -> None:
    driver = Driver()
    driver.join("gpu-1", OLLAMA, instance_id="a")
    driver.feed(e.HostForgotten(host_id="gpu-1"))
    _, effects = driver.open("gpu-1", instance_id="a")
    assert [end.refusal.why for end in only(effects, fx.EndSession)] == [Why.CREDENTIAL_REVOKED]
    assert driver.registry._hosts == {}
    _, effects = driver.open("gpu-1", instance_id="b")
    assert kinds(effects) == [fx.Welcome]


def test_of_those_who_were_told_the_latest_are_remembered() -> None:
    driver = Driver()
    for number in range(_MOST_TOLD + 10):
        driver.open("gpu-1", instance_id=f"i{number}")
    assert len(driver.registry._sessions._told) == _MOST_TOLD
    _, effects = driver.open("gpu-1", instance_id=f"i{_MOST_TOLD}")
    assert kinds(effects) == [fx.EndSession]


def test_a_clone_is_welcomed_under_an_id_of_its_own_and_gets_it_again() -> None:
    driver = Driver()
    driver.join("gpu-1", OLLAMA, machine_id="m1")
    clone, effects = driver.open("gpu-1", machine_id="m2")
    assert only(effects, fx.EndSession) == []
    assert only(effects, fx.Welcome) == [fx.Welcome(session_id=clone, host_id="gpu-1-2")]
    driver.offer(clone, inventory("gpu-1-2", [service("gpu-1-2/ollama", "qwen3")]))
    _, effects = driver.open("gpu-1", machine_id="m3")
    assert only(effects, fx.Welcome)[0].host_id == "gpu-1-3"
    again, effects = driver.open("gpu-1", machine_id="m2")
    assert only(effects, fx.Welcome) == [fx.Welcome(session_id=again, host_id="gpu-1-2")]
    assert [end.session_id for end in only(effects, fx.EndSession)] == [clone]


def test_an_id_of_a_clone_stays_within_63_characters() -> None:
    driver = Driver()
    long = "a" * 63
    driver.join(long, machine_id="m1")
    _, effects = driver.open(long, machine_id="m2")
    assert only(effects, fx.Welcome)[0].host_id == "a" * 61 + "-2"


@pytest.mark.parametrize("hello", [{}, {"machine_id": "m1"}])
def test_without_two_machine_ids_it_counts_as_the_same_machine(hello: dict[str, str]) -> None:
    driver = Driver()
    driver.join("gpu-1")
    _, effects = driver.open("gpu-1", **hello)
    assert only(effects, fx.Welcome)[0].host_id == "gpu-1"


def test_another_machine_takes_over_the_id_of_a_host_that_is_offline() -> None:
    driver = Driver()
    driver.close(driver.join("gpu-1", OLLAMA, machine_id="m1"))
    session, effects = driver.open("gpu-1", machine_id="m2")
    assert only(effects, fx.Welcome)[0].host_id == "gpu-1"
    # Offline until it has registered.
    assert not driver.routable("gpu-1/ollama")
    driver.offer(session, inventory("gpu-1", [OLLAMA]))
    assert driver.routable("gpu-1/ollama")


def test_a_hello_without_inventory_leaves_nothing_behind() -> None:
    driver = Driver()
    session, _ = driver.open("gpu-1")
    driver.close(session)
    assert driver.registry._hosts == {}
    assert driver.registry.to_store("gpu-1") is None


def test_load_of_what_is_not_in_the_inventory_is_passed_over() -> None:
    driver = Driver()
    session = driver.join("gpu-1", OLLAMA)
    loads = (ServiceLoad(service="gpu-1/ollama", running=1, age_seconds=0.5), ServiceLoad(service="gpu-1/other"))
    sent = Load(machine=MachineLoad(host_id="?", load_average=1.0), services=loads)
    driver.feed(e.LoadSent(session_id=session, read=lambda: sent))
    driver.time += 2.0
    host = driver.registry.host("gpu-1")
    assert host is not None
    assert host.machine_load == MachineLoad(host_id="gpu-1", load_average=1.0)
    assert host.load_of("gpu-1/ollama", driver.now) == msgspec.structs.replace(loads[0], age_seconds=2.5)
    assert host.load_of("gpu-1/other", driver.now) is None
    driver.feed(e.LoadSent(session_id=session))
    assert host.load_of("gpu-1/ollama", driver.now) is None


def test_heartbeats_store_nothing_but_when_a_host_was_seen_once_a_minute() -> None:
    driver = Driver()
    session = driver.join("gpu-1", OLLAMA)
    before = len(driver.effects)
    for _ in range(70):
        driver.wait(1.0)
        driver.beat(session)
    stored = driver.effects[before:]
    assert kinds(stored).count(fx.StoreSeen) == 1
    assert only(stored, fx.StoreHost) == []
    assert only(stored, fx.StoreSeen)[0].seen == {"gpu-1": pytest.approx(WALL + 100 + SEEN_EVERY, abs=1.0)}


def test_the_nodes_clock_is_compared() -> None:
    driver = Driver()
    session = driver.join("gpu-1")
    driver.feed(e.Heartbeat(session_id=session, sent=driver.now.wall + 7))
    host = driver.registry.host("gpu-1")
    assert host is not None
    assert host.clock_skew == pytest.approx(7)


def test_an_operator_forgets_a_host() -> None:
    driver = Driver()
    session = driver.join("gpu-1", OLLAMA)
    mirror = Mirror(driver)
    mirror.catch_up()
    effects = driver.feed(e.HostForgotten(host_id="gpu-1"))
    (ending,) = only(effects, fx.EndSession)
    assert (ending.session_id, ending.refusal.why) == (session, Why.CREDENTIAL_REVOKED)
    mirror.catch_up()
    assert mirror.table == {}
    assert driver.feed(e.HostForgotten(host_id="gpu-1")) == []
    # With a shared key it may come back.
    driver.join("gpu-1", OLLAMA)
    assert driver.routable("gpu-1/ollama")


class TestRestart:
    """NodeService.Session step 10, RoutingService.WatchRoutes step 6."""

    def cluster(self) -> tuple[Driver, Mirror]:
        """Two hosts that are online, one that is offline, and a gateway that knows them."""
        driver = Driver()
        driver.join("gpu-1", OLLAMA, service("gpu-1/old", "old"))
        driver.join("gpu-2", service("gpu-2/ollama", "qwen3"))
        driver.close(driver.join("gpu-3", service("gpu-3/ollama", "llama")))
        mirror = Mirror(driver)
        mirror.catch_up()
        return driver, mirror

    def test_hosts_that_were_online_are_presumed_and_versions_rest(self) -> None:
        driver, mirror = self.cluster()
        again = restarted(driver)
        assert {h.host_id: h.life for h in again.registry.hosts()} == {
            "gpu-1": Life.PRESUMED,
            "gpu-2": Life.PRESUMED,
            "gpu-3": Life.OFFLINE,
        }
        host = again.registry.host("gpu-1")
        assert host is not None
        assert host.condition.reason is Reason.PRESUMED
        resumed = Mirror(again, mirror.table)
        # Relays are secrets and not stored.
        assert (resumed.updates[0].changed, resumed.updates[0].removed) == ((), ())

    def test_why_a_host_is_offline_outlives_control(self) -> None:
        driver = Driver()
        driver.join("gpu-1", OLLAMA)
        driver.wait(10.0)
        again = restarted(driver)
        again.time += 5.0
        for registry in (driver.registry, again.registry):
            host = registry.host("gpu-1")
            assert host is not None
            assert host.condition.reason is Reason.LEASE_EXPIRED
            assert host.condition.since == pytest.approx(WALL + 102.5, abs=SWEEP_EVERY)

    def test_a_host_that_comes_back_is_online_without_a_gap(self) -> None:
        driver, mirror = self.cluster()
        again = restarted(driver)
        resumed = Mirror(again, mirror.table)
        resumed.catch_up()
        again.time += 1
        again.join("gpu-1", OLLAMA)
        resumed.catch_up()
        # It registered without its second service, which is therefore really gone.
        assert "upstream/gpu-1/old" not in resumed.table
        assert "route/old" not in resumed.table
        assert "relay/gpu-2" in resumed.table
        assert again.routable("gpu-2/ollama")

    def test_who_did_not_come_back_is_offline_when_the_grace_ends(self) -> None:
        driver, mirror = self.cluster()
        again = restarted(driver, restart_grace=5.0)
        session = again.join("gpu-1", OLLAMA)
        resumed = Mirror(again, mirror.table)
        resumed.catch_up()
        for _ in range(4):
            again.wait(1.0)
            again.beat(session)
        resumed.catch_up()
        assert again.routable("gpu-2/ollama")
        assert "relay/gpu-2" in resumed.table
        again.wait(1.0)
        resumed.catch_up()
        assert again.routable("gpu-1/ollama")
        assert not again.routable("gpu-2/ollama")
        assert "relay/gpu-2" not in resumed.table
        assert resumed.table.keys() == set(again.registry.table)

    def test_a_lost_database_empties_no_table_before_the_grace_ends(self) -> None:
        _, mirror = self.cluster()
        again = Driver(restart_grace=5.0)
        resumed = Mirror(again, mirror.table)
        assert resumed.updates[0].removed == ()
        resumed.catch_up()
        session = again.join("gpu-1", OLLAMA)
        resumed.catch_up()
        assert "route/qwen3" in resumed.table
        assert "upstream/gpu-1/old" not in resumed.table, "its host registered without it"
        assert "upstream/gpu-2/ollama" in resumed.table
        for _ in range(5):
            again.wait(1.0)
            again.beat(session)
        resumed.catch_up()
        assert resumed.table.keys() == set(again.registry.table)

    def test_routable_is_not_taken_from_an_upstream_before_its_host_registered(self) -> None:
        driver, mirror = self.cluster()
        # The gateway was away when gpu-1 went.
        for host in list(driver.registry.hosts()):
            if host.session is not None and host.host_id == "gpu-1":
                driver.close(host.session.session_id)
        again = restarted(driver, restart_grace=5.0)
        resumed = Mirror(again, mirror.table)
        resumed.catch_up()
        held = resumed.table["upstream/gpu-1/ollama"].content
        assert held is not None
        assert held.routable  # type: ignore[union-attr]
        again.wait(5.0)
        resumed.catch_up()
        assert not resumed.table["upstream/gpu-1/ollama"].content.routable  # type: ignore[union-attr]

    def test_an_operators_doing_counts_during_the_grace(self) -> None:
        driver, mirror = self.cluster()
        again = restarted(driver)
        resumed = Mirror(again, mirror.table)
        resumed.catch_up()
        again.feed(e.HostForgotten(host_id="gpu-2"))
        resumed.catch_up()
        assert not any("gpu-2" in name for name in resumed.table)
        assert "upstream/gpu-1/ollama" in resumed.table

    def test_a_presumed_host_stays_so_if_its_node_leaves_before_it_registered(self) -> None:
        driver, _ = self.cluster()
        again = restarted(driver)
        session, _ = again.open("gpu-1")
        again.close(session)
        assert again.routable("gpu-1/ollama")

    def test_a_clone_cannot_take_a_presumed_hosts_place(self) -> None:
        driver = Driver()
        driver.join("gpu-1", OLLAMA, machine_id="m1")
        again = restarted(driver)
        _, effects = again.open("gpu-1", machine_id="m2")
        assert only(effects, fx.Welcome)[0].host_id == "gpu-1-2"


def test_of_a_burst_the_first_change_is_told_at_once_and_the_others_together() -> None:
    driver = Driver()
    driver.wait(1.0)
    mirror = Mirror(driver)
    mirror.ack()
    driver.join("h0", service("h0/a", "m"))
    mirror.ack()
    assert "route/m" in mirror.table
    sent = len(mirror.updates)
    for number in range(1, 10):
        driver.join(f"h{number}", service(f"h{number}/a", "m"))
        assert driver.registry._table.stale
    mirror.catch_up()
    routes = [r.name for update in mirror.updates[sent:] for r in update.changed if r.name == "route/m"]
    assert routes == ["route/m"]


def test_a_gateway_that_resumes_in_a_burst_is_not_told_that_a_name_is_gone() -> None:
    driver = Driver(restart_grace=0.0)
    driver.wait(1.0)
    driver.join("h0", service("h0/a", "m"))
    mirror = Mirror(driver)
    mirror.catch_up()
    driver.registry._table.drop_service("h0/a")
    driver.registry._table.compile()
    driver.registry._table.put_service(service("h0/a", "m"))
    assert driver.registry._table.stale
    event = e.Subscribed(subscriber_id="x", gateway_id="g", held={n: r.version for n, r in mirror.table.items()})
    (update,) = only(driver.registry.handle(event, driver.now), fx.Update)
    assert "route/m" not in update.removed


def test_a_failing_database_is_told_once_and_shown_until_it_recovers() -> None:
    driver = Driver()
    effects = driver.feed(e.StoreFailed(message="disk full"))
    assert kinds(effects) == [fx.Changed, fx.Note]
    assert driver.feed(e.StoreFailed(message="disk full")) == []
    assert driver.registry.store_failure == "disk full"
    assert kinds(driver.feed(e.StoreFailed(message=None))) == [fx.Changed, fx.Note]
    assert driver.registry.store_failure is None


def test_watchers_hear_of_what_changed_alone() -> None:
    driver = Driver()
    session = driver.join("gpu-1", OLLAMA, service("gpu-1/b", "x"))
    offered = inventory("gpu-1", [OLLAMA, service("gpu-1/b", "y")], revision=2)
    (changed,) = only(driver.offer(session, offered), fx.Changed)
    assert (changed.hosts, changed.services) == (frozenset(), frozenset({"gpu-1/b"}))
    (changed,) = only(driver.close(session), fx.Changed)
    assert (changed.hosts, changed.services) == (frozenset({"gpu-1"}), frozenset({"gpu-1/ollama", "gpu-1/b"}))


def test_names_that_many_have_are_compiled_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registries, "COMPILE_SPARE", COMPILE_EVERY / 2)
    driver = Driver()
    Mirror(driver)
    for number in range(9):
        driver.join(f"h{number}", service(f"h{number}/a", "m"))
    driver.wait(1.0)
    # Told at once, and ten offers were gone through.
    driver.join("one", service("one/a", "m"))
    driver.join("two", service("two/a", "m"))
    driver.wait(4 * COMPILE_EVERY)
    assert driver.registry._table.stale
    driver.wait(1.1 * COMPILE_EVERY)
    assert not driver.registry._table.stale


def test_nothing_is_compiled_for_nobody() -> None:
    driver = Driver()
    driver.join("one", service("one/a", "m"))
    driver.wait(1.0)
    assert driver.registry._table.stale
    # Whoever asks, and a gateway that comes, has all of it.
    assert "route/m" in driver.registry.table
    driver.join("two", service("two/a", "other"))
    gateway = Mirror(driver)
    gateway.catch_up()
    assert {"route/m", "route/other"} <= gateway.table.keys()
