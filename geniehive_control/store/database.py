"""The Store of `ports` on a database: reads at start, writes in whole steps."""

import logging
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from geniehive.rules.identity import PeerKind
from geniehive.rules.model import Alias, BenchmarkSample, ClientKey, Condition, Host, Role, Scope, Service
from geniehive_control.core import tokens, trust
from geniehive_control.core.benchmarks import Query as SampleQuery
from geniehive_control.core.records import Origin, Stored, StoredCertificate, StoredHost, StoredKey, StoredToken
from geniehive_control.core.usage import Batch, Group, Query, Who
from geniehive_control.ports import Audit
from geniehive_control.store import benchmarks as sample_rows
from geniehive_control.store import engine as engines
from geniehive_control.store import migrate
from geniehive_control.store import profiles as profile_rows
from geniehive_control.store import usage as usage_rows
from geniehive_control.store.tables import audit, certificates, client_keys, cluster, hosts, join_tokens, services

log = logging.getLogger(__name__)


class _HostBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """What of a host is in its row's body."""

    host: Host
    machine_id: str | None = None
    agent_version: str = ""
    certified: bool = False
    absence: Condition | None = None


_host_body = msgspec.json.Decoder(_HostBody)
_service_body = msgspec.json.Decoder(Service)


async def open_database(database_url: str | None, folder: Path) -> "Database":
    """The database at its newest revision. UserError if it can't be used."""
    engine = engines.create(engines.parse(database_url, folder))
    try:
        await migrate.to_head(engine)
    except BaseException:
        await engine.dispose()
        raise
    return Database(engine)


class Database:
    """Every method is one transaction, and fails with StoreUnavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._insert = _insert(engine.dialect.name)

    async def close(self) -> None:
        await self._engine.dispose()

    async def load(self) -> Stored:
        async with engines.step(self._engine) as connection:
            cluster_id = await self._cluster_id(connection)
            offered: dict[str, list[Service]] = {}
            for row in await connection.execute(sa.select(services).order_by(services.c.service)):
                if (service := _decode(_service_body, row.body, f"service {row.service}")) is not None:
                    offered.setdefault(row.host_id, []).append(service)
            found_hosts = []
            for row in await connection.execute(sa.select(hosts).order_by(hosts.c.host_id)):
                body = _decode(_host_body, row.body, f"host {row.host_id}")
                if body is not None:
                    found_hosts.append(
                        StoredHost(
                            host=body.host,
                            services=tuple(offered.get(row.host_id, ())),
                            machine_id=body.machine_id,
                            agent_version=body.agent_version,
                            joined=row.joined,
                            last_seen=row.last_seen,
                            certified=body.certified,
                            online=row.online,
                            absence=body.absence,
                        )
                    )
            rows = await connection.execute(sa.select(client_keys).order_by(client_keys.c.created))
            found_keys = tuple(map(_key, rows))
            rows = await connection.execute(sa.select(certificates).order_by(certificates.c.issued))
            found_certificates = tuple(map(_certificate, rows))
            rows = await connection.execute(sa.select(join_tokens).order_by(join_tokens.c.created))
            found_tokens = tuple(map(_token, rows))
            samples = await sample_rows.newest(connection)
            found_roles, found_aliases = await profile_rows.load(connection)
            learned = await usage_rows.learned(connection)
            reported = await usage_rows.reported(connection)
        return Stored(
            cluster_id=cluster_id,
            hosts=tuple(found_hosts),
            keys=found_keys,
            certificates=found_certificates,
            tokens=found_tokens,
            samples=tuple(samples),
            roles=found_roles,
            aliases=found_aliases,
            learned=tuple(learned),
            reported=reported,
        )

    async def _cluster_id(self, connection: AsyncConnection) -> str:
        values = {"row": 1, "cluster_id": f"c{secrets.token_hex(8)}", "created": time.time(), "checked": time.time()}
        # Of two processes that start at once, both take the id of the first.
        await connection.execute(self._insert(cluster).values(values).on_conflict_do_nothing())
        return str(await connection.scalar(sa.select(cluster.c.cluster_id)))

    async def put_hosts(self, kept: Sequence[StoredHost]) -> None:
        host_rows = [
            {
                "host_id": host.host_id,
                "body": _encode(_host_body_of(host)),
                "joined": host.joined,
                "last_seen": host.last_seen,
                "online": host.online,
            }
            for host in kept
        ]
        service_rows = [
            {"service": service.service, "host_id": host.host_id, "body": _encode(service)}
            for host in kept
            for service in host.services
        ]
        if not host_rows:
            return
        insert = self._insert(hosts)
        others = {column.name: insert.excluded[column.name] for column in hosts.columns if column.name != "host_id"}
        put = insert.on_conflict_do_update(index_elements=["host_id"], set_=others)
        # All of them: to name those that stay would take more parameters than a statement may have.
        before = sa.delete(services).where(services.c.host_id.in_([host.host_id for host in kept]))
        async with engines.step(self._engine) as connection:
            await connection.execute(put, host_rows)
            await connection.execute(before)
            if service_rows:
                await connection.execute(sa.insert(services), service_rows)

    async def put_seen(self, seen: Mapping[str, float]) -> None:
        if not seen:
            return
        statement = sa.update(hosts).where(hosts.c.host_id == sa.bindparam("id")).values(last_seen=sa.bindparam("at"))
        async with engines.step(self._engine) as connection:
            await connection.execute(statement, [{"id": host_id, "at": at} for host_id, at in seen.items()])

    async def forget_host(self, host_id: str, line: Audit) -> None:
        async with engines.step(self._engine) as connection:
            await connection.execute(sa.delete(hosts).where(hosts.c.host_id == host_id))
            await sample_rows.forget_host(connection, host_id)
            await _revoke(connection, PeerKind.NODE, host_id, line.at)
            await _note(connection, line)

    async def add_key(self, key: ClientKey, created: float, line: Audit) -> None:
        values = {
            "key_id": key.key_id,
            "sha256": key.sha256,
            "display_name": key.display_name,
            "scopes": " ".join(scope.word for scope in key.scopes),
            "created": created,
            "expires": key.expires,
        }
        async with engines.step(self._engine) as connection:
            await connection.execute(sa.insert(client_keys).values(values))
            await _note(connection, line)

    async def revoke_key(self, key_id: str, line: Audit) -> None:
        statement = sa.update(client_keys).where(client_keys.c.key_id == key_id).values(revoked=line.at)
        async with engines.step(self._engine) as connection:
            await connection.execute(statement)
            await _note(connection, line)

    async def add_certificates(
        self, added: Sequence[StoredCertificate], line: Audit, token_id: str | None = None
    ) -> bool:
        rows = [_certificate_row(item) for item in added]
        async with engines.step(self._engine) as connection:
            if token_id is not None:
                token = join_tokens.c
                usable = (token.uses_left > 0) & (token.expires > line.at) & token.revoked.is_(None)
                use = sa.update(join_tokens).where((token.token_id == token_id) & usable)
                if (await connection.execute(use.values(uses_left=token.uses_left - 1))).rowcount != 1:
                    return False
                for kind, peer_id in {(item.kind, item.peer_id) for item in added}:
                    await _revoke(connection, kind, peer_id, line.at)
            gone = certificates.c.expires <= line.at - trust.REMEMBERED
            await connection.execute(sa.delete(certificates).where(gone))
            await connection.execute(sa.insert(certificates), rows)
            await _note(connection, line)
        return True

    async def revoke_peer(self, kind: PeerKind, peer_id: str, line: Audit) -> None:
        async with engines.step(self._engine) as connection:
            await _revoke(connection, kind, peer_id, line.at)
            await _note(connection, line)

    async def add_token(self, token: StoredToken, line: Audit) -> None:
        values = {
            "token_id": token.token_id,
            "sha256": token.sha256,
            "kinds": " ".join(kind.value for kind in token.kinds),
            "uses_left": token.uses_left,
            "created": token.created,
            "expires": token.expires,
        }
        gone = join_tokens.c.expires <= line.at - tokens.REMEMBERED
        async with engines.step(self._engine) as connection:
            await connection.execute(sa.delete(join_tokens).where(gone))
            await connection.execute(sa.insert(join_tokens).values(values))
            await _note(connection, line)

    async def revoke_token(self, token_id: str, line: Audit) -> None:
        statement = sa.update(join_tokens).where(join_tokens.c.token_id == token_id).values(revoked=line.at)
        async with engines.step(self._engine) as connection:
            await connection.execute(statement)
            await _note(connection, line)

    async def add_usage(self, batch: Batch, at: float) -> None:
        async with engines.step(self._engine) as connection:
            await usage_rows.add(connection, self._insert, batch, at)

    async def usage(self, query: Query) -> list[Group]:
        async with engines.step(self._engine) as connection:
            return await usage_rows.groups(connection, query)

    async def prune_usage(self, first: int, since: float) -> dict[Who, int]:
        async with engines.step(self._engine) as connection:
            return await usage_rows.prune(connection, first, since)

    async def add_samples(self, samples: Sequence[BenchmarkSample], most: int, line: Audit) -> set[str]:
        async with engines.step(self._engine) as connection:
            added = await sample_rows.add(connection, self._insert, samples, most)
            if added:
                await _note(connection, line)
        return added

    async def samples(self, query: SampleQuery) -> list[BenchmarkSample]:
        async with engines.step(self._engine) as connection:
            return await sample_rows.find(connection, query)

    async def put_role(self, role: Role, line: Audit) -> None:
        async with engines.step(self._engine) as connection:
            await profile_rows.put_role(connection, self._insert, role)
            await _note(connection, line)

    async def drop_role(self, role_id: str, line: Audit) -> None:
        async with engines.step(self._engine) as connection:
            await profile_rows.drop_role(connection, role_id)
            await _note(connection, line)

    async def put_alias(self, alias: Alias, line: Audit) -> None:
        async with engines.step(self._engine) as connection:
            await profile_rows.put_alias(connection, self._insert, alias)
            await _note(connection, line)

    async def drop_alias(self, alias: str, line: Audit) -> None:
        async with engines.step(self._engine) as connection:
            await profile_rows.drop_alias(connection, alias)
            await _note(connection, line)

    async def ping(self) -> None:
        # A new value each time: SQLite does not write one that is as it was, and a full disk would go unseen.
        async with engines.step(self._engine) as connection:
            await connection.execute(sa.update(cluster).values(checked=time.time()))


def _insert(dialect: str) -> Any:
    """INSERT ... ON CONFLICT: the two dialects have the same words for it, in places that are slow to import."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    return insert


async def _revoke(connection: AsyncConnection, kind: PeerKind, peer_id: str, at: float) -> None:
    column = certificates.c
    theirs = (column.kind == kind.value) & (column.peer_id == peer_id) & column.revoked.is_(None)
    await connection.execute(sa.update(certificates).where(theirs).values(revoked=at))


async def _note(connection: AsyncConnection, line: Audit) -> None:
    values = {"at": line.at, "caller": line.caller[:64], "action": line.action[:64], "target": line.target}
    await connection.execute(sa.insert(audit).values(values))


def _host_body_of(host: StoredHost) -> _HostBody:
    return _HostBody(
        host=host.host,
        machine_id=host.machine_id,
        agent_version=host.agent_version,
        certified=host.certified,
        absence=host.absence,
    )


def _encode(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()


def _decode(decoder: msgspec.json.Decoder[Any], body: str, what: str) -> Any:
    """None for a row that this version cannot read: its node sends it again anyway."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, ValueError) as error:
        log.warning("%s is stored in a form that this version cannot read, and is left out: %s", what, error)
        return None


def _key(row: Any) -> StoredKey:
    key = ClientKey(
        key_id=row.key_id,
        sha256=bytes(row.sha256),
        display_name=row.display_name,
        scopes=tuple(_scopes(row.scopes.split())),
        expires=row.expires,
    )
    return StoredKey(key=key, created=row.created, revoked=row.revoked)


# The columns that have the names and the values of the noun's fields.
_CERTIFICATE = ("serial", "peer_id", "machine_id", "issued", "expires", "revoked")
_TOKEN = ("token_id", "uses_left", "created", "expires", "revoked")


def _certificate_row(item: StoredCertificate) -> dict[str, Any]:
    words = {"kind": item.kind.value, "origin": item.origin.value}
    return words | {name: getattr(item, name) for name in _CERTIFICATE}


def _certificate(row: Any) -> StoredCertificate:
    fields = {name: getattr(row, name) for name in _CERTIFICATE}
    return StoredCertificate(kind=PeerKind(row.kind), origin=Origin(row.origin), **fields)


def _token(row: Any) -> StoredToken:
    fields = {name: getattr(row, name) for name in _TOKEN}
    return StoredToken(sha256=bytes(row.sha256), kinds=tuple(map(PeerKind, row.kinds.split())), **fields)


def _scopes(words: Iterable[str]) -> Iterable[Scope]:
    known = {scope.word: scope for scope in Scope}
    return (known[word] for word in words if word in known)
