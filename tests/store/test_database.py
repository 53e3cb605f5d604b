"""The Store on SQLite and on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sized
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from geniehive.kit.backoff import Backoff
from geniehive.kit.clock import SystemClock
from geniehive.rules.identity import PeerKind
from geniehive.rules.model import (
    Availability,
    ClientKey,
    Condition,
    Gpu,
    Host,
    LoadState,
    Machine,
    Reason,
    Scope,
    Service,
)
from geniehive.rules.operations import Ability
from geniehive_control.core import events as e
from geniehive_control.core import tokens, trust
from geniehive_control.core.events import Now
from geniehive_control.core.records import Origin, StoredCertificate, StoredHost, StoredToken
from geniehive_control.core.registry import Pace, Registry
from geniehive_control.hub import Hub
from geniehive_control.ports import Audit, StoreUnavailable
from geniehive_control.store.database import Database, open_database
from geniehive_control.store.tables import audit, hosts, services
from tests.support.cluster import EMBEDDINGS, asset, inventory, service
from tests.support.control_server import until

LINE = Audit(at=5.0, caller="local-admin", action="do", target="it")
MODEL = asset(
    "org/qwen3:8b ünïcode",
    EMBEDDINGS,
    abilities=(Ability.TOOLS,),
    load_state=LoadState.LOADED,
    context_tokens=4096,
    size_bytes=2**40,
)
HOST = StoredHost(
    host=Host(
        host_id="gpu-1",
        labels={"a": "b\x00"},
        machine=Machine(os="Debian 13", gpus=(Gpu(index=0, memory_bytes=2**34),)),
        condition=Condition(reason=Reason.OWNER, since=1.5),
    ),
    services=(service("gpu-1/a", MODEL), service("gpu-1/b", "m")),
    machine_id="m1",
    agent_version="1.0",
    joined=1.25,
    last_seen=2.5,
    certified=True,
    online=True,
)


async def test_an_empty_database(database: Database, database_url: str, tmp_path: Path) -> None:
    stored = await database.load()
    assert (stored.hosts, stored.keys) == ((), ())
    assert len(stored.cluster_id) > 10
    assert (await database.load()).cluster_id == stored.cluster_id
    again = await open_database(database_url, tmp_path)
    assert (await again.load()).cluster_id == stored.cluster_id
    await again.close()


async def test_hosts_come_back_as_they_were(database: Database) -> None:
    away = Condition(availability=Availability.OFFLINE, reason=Reason.LEASE_EXPIRED, detail="silent", since=3.5)
    other = StoredHost(host=Host(host_id="gpu-2"), absence=away)
    await database.put_hosts([HOST, other])
    assert (await database.load()).hosts == (HOST, other)
    changed = msgspec.structs.replace(HOST, services=(service("gpu-1/b", "n"),), online=False)
    await database.put_hosts([changed])
    assert (await database.load()).hosts == (changed, other)
    await database.put_hosts([])
    await database.put_hosts([msgspec.structs.replace(other, services=()), HOST])
    assert (await database.load()).hosts == (HOST, other)


async def test_no_statement_grows_with_the_number_of_services(database: Database) -> None:
    # A database takes so many parameters and no more; one host must not keep the others from being stored.
    lengths = []

    @sa.event.listens_for(database._engine.sync_engine, "before_cursor_execute")
    def count(_: object, __: object, ___: str, parameters: Sized, ____: object, executemany: bool) -> None:
        if not executemany:
            lengths.append(len(parameters))

    many = msgspec.structs.replace(HOST, services=tuple(Service(service=f"gpu-1/s{n:03}") for n in range(300)))
    for _ in range(2):
        await database.put_hosts([many])
    assert max(lengths) < 20
    assert (await database.load()).hosts == (many,)


async def test_when_hosts_were_seen(database: Database) -> None:
    await database.put_hosts([HOST])
    await database.put_seen({"gpu-1": 77.5, "gone": 1.0})
    await database.put_seen({})
    assert (await database.load()).hosts[0].last_seen == 77.5


async def test_a_forgotten_host_takes_its_services_along(database: Database) -> None:
    await database.put_hosts([HOST])
    await database.forget_host("gpu-1", LINE)
    await database.forget_host("gpu-1", LINE)
    assert (await database.load()).hosts == ()
    async with database._engine.connect() as connection:
        assert (await connection.execute(sa.select(services))).all() == []
        lines = (await connection.execute(sa.select(audit))).all()
    assert [(line.number, *line[1:]) for line in lines] == [
        (1, 5.0, "local-admin", "do", "it"),
        (2, 5.0, "local-admin", "do", "it"),
    ]


async def test_keys(database: Database) -> None:
    keys = [
        ClientKey(
            key_id=f"k{n}", sha256=bytes([n]) * 32, display_name="ci", scopes=(Scope.INFER, Scope.READ), expires=x
        )
        for n, x in ((1, None), (2, 9.5))
    ]
    for number, key in enumerate(keys):
        await database.add_key(key, float(number), LINE)
    await database.revoke_key("k1", LINE)
    stored = (await database.load()).keys
    assert [known.key for known in stored] == keys
    assert [(known.created, known.revoked) for known in stored] == [(0.0, 5.0), (1.0, None)]


def certificate(serial: str, issued: float = 0.0, **fields: Any) -> StoredCertificate:
    made = StoredCertificate(
        serial=serial, kind=PeerKind.NODE, peer_id="gpu-1", issued=issued, expires=issued + 100.0, origin=Origin.TOKEN
    )
    return msgspec.structs.replace(made, **fields)


def token(name: str, created: float = 0.0, **fields: Any) -> StoredToken:
    made = StoredToken(
        token_id=name,
        sha256=name.encode() * 32,
        kinds=(PeerKind.GATEWAY, PeerKind.NODE),
        uses_left=2,
        created=created,
        expires=created + 100.0,
    )
    return msgspec.structs.replace(made, **fields)


def line(at: float) -> Audit:
    return msgspec.structs.replace(LINE, at=at)


async def test_certificates(database: Database) -> None:
    first = certificate("a", machine_id="m1")
    others = [certificate("b", 1.0, kind=PeerKind.GATEWAY, origin=Origin.KEY), certificate("c", 2.0, peer_id="gpu-2")]
    assert await database.add_certificates([first], line(0.0))
    assert await database.add_certificates(others, line(2.0))
    assert (await database.load()).certificates == (first, *others)
    await database.revoke_peer(PeerKind.NODE, "gpu-1", line(5.0))
    await database.revoke_peer(PeerKind.NODE, "gpu-1", line(6.0))
    revoked = msgspec.structs.replace(first, revoked=5.0)
    assert (await database.load()).certificates == (revoked, *others)
    await database.forget_host("gpu-2", line(7.0))
    found = (await database.load()).certificates
    assert [(item.serial, item.revoked) for item in found] == [("a", 5.0), ("b", None), ("c", 7.0)]
    # Those that expired long ago are gone at the next write.
    await database.add_certificates([certificate("d", 101.0 + trust.REMEMBERED)], line(101.0 + trust.REMEMBERED))
    assert [item.serial for item in (await database.load()).certificates] == ["c", "d"]


async def test_a_token_is_used_up_with_the_certificates_or_not_at_all(database: Database) -> None:
    await database.add_token(token("t"), line(0.0))
    assert await database.add_certificates([certificate("a")], line(1.0), "t")
    both = [certificate("b", 2.0), certificate("c", 2.0, kind=PeerKind.GATEWAY)]
    assert await database.add_certificates(both, line(2.0), "t")
    stored = await database.load()
    assert [item.uses_left for item in stored.tokens] == [0]
    # Who joins anew loses what it had.
    assert [(item.serial, item.revoked) for item in stored.certificates] == [("a", 2.0), ("b", None), ("c", None)]
    assert not await database.add_certificates([certificate("d", 3.0)], line(3.0), "t")
    assert not await database.add_certificates([certificate("d", 3.0)], line(3.0), "unknown")
    await database.add_token(token("late"), line(0.0))
    assert not await database.add_certificates([certificate("d", 100.0)], line(100.0), "late")
    await database.add_token(token("revoked"), line(0.0))
    await database.revoke_token("revoked", line(1.0))
    assert not await database.add_certificates([certificate("d", 3.0)], line(3.0), "revoked")
    with pytest.raises(StoreUnavailable):
        # A serial that is there already: nothing of the step counts.
        await database.add_certificates([certificate("b", 3.0)], line(3.0), "late")
    after = await database.load()
    assert after.certificates == stored.certificates
    assert {item.token_id: item.uses_left for item in after.tokens} == {"t": 0, "late": 2, "revoked": 2}


async def test_one_use_is_one_use_however_many_come_at_once(database: Database) -> None:
    await database.add_token(token("t", uses_left=3), line(0.0))
    made = [certificate(f"{n:x}", peer_id=f"gpu-{n}") for n in range(8)]
    answers = await asyncio.gather(*(database.add_certificates([item], line(1.0), "t") for item in made))
    assert sorted(answers) == [False] * 5 + [True] * 3
    assert len((await database.load()).certificates) == 3


async def test_tokens(database: Database) -> None:
    made = [token("a"), token("b", 1.0, kinds=(PeerKind.GATEWAY,), uses_left=10_000)]
    for item in made:
        await database.add_token(item, line(item.created))
    assert (await database.load()).tokens == tuple(made)
    await database.revoke_token("a", line(3.0))
    assert [item.revoked for item in (await database.load()).tokens] == [3.0, None]
    late = 100.5 + tokens.REMEMBERED
    await database.add_token(token("c", late), line(late))
    assert [item.token_id for item in (await database.load()).tokens] == ["b", "c"]


async def test_a_step_is_done_in_full_or_not_at_all(database: Database) -> None:
    key = ClientKey(key_id="k", sha256=b"x" * 32, scopes=(Scope.READ,))
    await database.add_key(key, 1.0, LINE)
    with pytest.raises(StoreUnavailable):
        await database.add_key(key, 1.0, LINE)
    async with database._engine.connect() as connection:
        assert len((await connection.execute(sa.select(audit))).all()) == 1


async def test_a_row_that_cannot_be_read_is_left_out(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    await database.put_hosts([HOST, StoredHost(host=Host(host_id="gpu-2"))])
    async with database._engine.begin() as connection:
        await connection.execute(sa.update(hosts).where(hosts.c.host_id == "gpu-2").values(body="{"))
        await connection.execute(sa.update(services).where(services.c.service == "gpu-1/a").values(body='{"x": 1}'))
    (host,) = (await database.load()).hosts
    assert [made.service for made in host.services] == ["gpu-1/b"]
    assert "host gpu-2" in caplog.text
    assert "service gpu-1/a" in caplog.text


async def test_ping_changes_nothing(database: Database) -> None:
    before = await database.load()
    await database.ping()
    assert await database.load() == before


@asynccontextmanager
async def counted(database: Database) -> AsyncIterator[list[str]]:
    """The statements that the database gets."""
    statements: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    engine = database._engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


async def test_nothing_is_written_per_heartbeat(database: Database) -> None:
    clock = SystemClock()
    registry = Registry(await database.load(), Now(clock.now(), clock.wall()), Pace())
    hub = Hub(registry, database, clock, Backoff(0.01, 0.02))
    hub.start()
    box = hub.open_session(e.SessionOpened(session_id="s", host_id="gpu-1"))
    hub.feed(e.InventorySent(session_id="s", inventory=inventory("gpu-1", HOST.services)))
    answered: Callable[[], bool] = lambda: registry._sessions.live["s"].unanswered is None  # noqa: E731
    await until(answered)
    async with counted(database) as statements:
        for _ in range(1000):
            hub.feed(e.Heartbeat(session_id="s", sent=clock.wall()))
            hub.feed(e.LoadSent(session_id="s"))
        # Nor for an inventory that is what it was.
        hub.feed(e.InventorySent(session_id="s", inventory=inventory("gpu-1", HOST.services, revision=2)))
        await asyncio.sleep(0.05)
        assert statements == []
    assert not box.ended
    await hub.close(1.0)


async def test_many_hosts_load_quickly(database: Database) -> None:
    many = [
        StoredHost(
            host=Host(host_id=f"h{number}"),
            services=tuple(service(f"h{number}/s{n}", "m1", "m2") for n in range(5)),
            online=True,
        )
        for number in range(200)
    ]
    for start in range(0, len(many), 50):
        await database.put_hosts(many[start : start + 50])
    loop = asyncio.get_running_loop()
    started = loop.time()
    stored = await database.load()
    assert len(stored.hosts) == 200
    assert loop.time() - started < 2.0
