"""The hub: timers, writing behind, changes that outlive their caller."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from geniehive.kit.backoff import Backoff
from geniehive.kit.clock import SystemClock
from geniehive.rules.model import ClientKey, Scope
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from geniehive_control.core.events import Now
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.registry import Pace, Registry
from geniehive_control.core.verdict import Life
from geniehive_control.hub import BATCH, Hub
from geniehive_control.mailbox import Mailbox
from geniehive_control.ports import StoreUnavailable
from tests.support.cluster import inventory, service
from tests.support.control_server import until
from tests.support.fake_store import FakeStore


@asynccontextmanager
async def running(lease_ttl: float = 5.0, restart_grace: float = 30.0) -> AsyncIterator[tuple[Hub, FakeStore]]:
    store = FakeStore()
    clock = SystemClock()
    pace = Pace(lease_ttl=lease_ttl, restart_grace=restart_grace)
    registry = Registry(await store.load(), Now(clock.now(), clock.wall()), pace)
    hub = Hub(registry, store, clock, Backoff(0.01, 0.02))
    hub.start()
    store.steps.clear()
    try:
        yield hub, store
        assert not hub.tasks.failed.done()
    finally:
        await hub.close(1.0)


def join(hub: Hub, host_id: str, session_id: str = "") -> Mailbox[fx.Effect]:
    session_id = session_id or f"s-{host_id}"
    box = hub.open_session(e.SessionOpened(session_id=session_id, host_id=host_id))
    hub.feed(e.InventorySent(session_id=session_id, inventory=inventory(host_id, [service(f"{host_id}/a", "m")])))
    return box


async def test_heartbeats_and_load_cause_no_step_of_the_store() -> None:
    async with running() as (hub, store):
        join(hub, "a")
        await until(lambda: "a" in store.hosts)
        store.steps.clear()
        for _ in range(500):
            hub.feed(e.Heartbeat(session_id="s-a"))
            hub.feed(e.LoadSent(session_id="s-a"))
        await asyncio.sleep(0.05)
        assert store.steps == []


async def test_a_lease_ends_by_the_hubs_own_timer() -> None:
    async with running(lease_ttl=0.1) as (hub, _):
        box = join(hub, "a")
        async with asyncio.timeout(1):
            while not box.ended:
                await box.take()
        assert box.refusal is not None
        assert box.refusal.why is Why.SESSION_LOST


async def test_the_grace_ends_by_the_hubs_own_timer() -> None:
    async with running(restart_grace=0.05) as (hub, _):
        await until(lambda: hub.registry.grace_ends is None)


async def test_many_hosts_are_written_in_few_steps() -> None:
    async with running() as (hub, store):
        for number in range(2 * BATCH):
            join(hub, f"h{number}")
        await until(lambda: len(store.hosts) == 2 * BATCH)
        assert len(store.steps) <= 4


async def test_writes_are_tried_again_until_the_database_recovers() -> None:
    async with running() as (hub, store):
        store.failing = "locked"
        box = join(hub, "a")
        await until(lambda: hub.registry.store_failure == "locked")
        assert [type(item) for item in await box.take()] == [fx.Welcome]
        store.failing = None
        assert [type(item) for item in await box.take()] == [fx.AnswerInventory]
        assert hub.registry.store_failure is None
        assert "a" in store.hosts


async def test_a_database_that_recovers_is_noticed_without_anything_to_write() -> None:
    async with running() as (hub, store):
        store.failing = "gone"
        with pytest.raises(StoreUnavailable):
            await hub.create_key(ClientKey(key_id="k", scopes=(Scope.READ,)), "test")
        assert hub.registry.store_failure == "gone"
        store.failing = None
        await until(lambda: hub.registry.store_failure is None)
        assert store.steps == ["ping"]


async def test_a_change_whose_caller_left_is_in_force_all_the_same() -> None:
    async with running() as (hub, store):
        store.gate.clear()
        call = asyncio.create_task(hub.create_key(ClientKey(key_id="k", scopes=(Scope.READ,)), "test"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        store.gate.set()
        await until(lambda: hub.registry.keys.get("k") is not None)
        assert "k" in store.keys


async def test_a_host_that_is_being_forgotten_is_not_written_back() -> None:
    async with running() as (hub, store):
        store.gate.clear()
        join(hub, "a")
        await asyncio.sleep(0.01)
        forgetting = asyncio.create_task(hub.forget_host("a", "test"))
        await asyncio.sleep(0.01)
        store.gate.set()
        await forgetting
        await asyncio.sleep(0.02)
        assert store.hosts == {}
        assert hub.registry.host("a") is None
        assert store.steps == ["put_hosts", "forget_host"]


async def test_a_host_that_changes_while_it_is_written_is_written_again() -> None:
    async with running() as (hub, store):
        store.gate.clear()
        join(hub, "a")
        await asyncio.sleep(0.01)
        newer = inventory("a", [service("a/b", "m")], revision=2)
        hub.feed(e.InventorySent(session_id="s-a", inventory=newer))
        store.gate.set()
        await until(lambda: "a" in store.hosts and store.hosts["a"].services == newer.services)
        assert store.steps == ["put_hosts", "put_hosts"]


async def test_a_stop_says_nothing_about_hosts() -> None:
    async with running() as (hub, store):
        box = join(hub, "a")
        watch = hub.open_watch(None)
        hub.end_streams()
        hub.close_session("s-a")
        assert box.ended
        assert box.refusal is None
        assert watch.refusal is not None
        assert watch.refusal.why is Why.CONTROL_UNAVAILABLE
        host = hub.registry.host("a")
        assert host is not None
        assert host.life is Life.ONLINE
        with pytest.raises(Refusal):
            join(hub, "b")
        hub.close_watch(watch)
        await hub.until_idle(1.0)
    assert store.hosts["a"].online
    assert store.hosts["a"].last_seen > 0


async def test_a_stop_waits_only_so_long_for_a_database_that_stalls() -> None:
    async with running() as (hub, store):
        store.gate.clear()
        join(hub, "a")
        await hub.close(0.05)
        store.gate.set()


async def test_until_idle_gives_up() -> None:
    async with running() as (hub, _):
        join(hub, "a")
        await hub.until_idle(0.02)


async def test_a_watch_waits_for_changes_or_its_end() -> None:
    async with running() as (hub, _):
        watch, quiet = hub.open_watch("k"), hub.open_watch("k", changes=False)
        assert not await watch.wait(0.01)
        join(hub, "a")
        assert await watch.wait(1)
        taken = watch.take()
        assert taken == fx.Changed(hosts=frozenset({"a"}), services=frozenset({"a/a"}), cluster=True)
        assert watch.take().hosts == set()
        assert not await quiet.wait(0.01)
        key = ClientKey(key_id="k", scopes=(Scope.READ,))
        await hub.create_key(key, "test")
        await hub.revoke_key("k", "test")
        for one in (watch, quiet):
            assert await one.wait(1)
            assert one.refusal is not None
            assert one.refusal.why is Why.CREDENTIAL_REVOKED
        hub.close_watch(watch)
        hub.close_watch(quiet)
