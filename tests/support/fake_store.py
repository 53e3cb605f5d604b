"""A Store in memory that can be told to fail or to stall."""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from geniehive.rules.identity import PeerKind
from geniehive.rules.model import Alias, BenchmarkSample, ClientKey, Role
from geniehive_control.core.benchmarks import Query as SampleQuery
from geniehive_control.core.records import Stored, StoredCertificate, StoredHost, StoredKey, StoredToken
from geniehive_control.core.usage import NUMBERS, Batch, By, Group, Key, Query, Who, outcomes
from geniehive_control.ports import Audit, StoreUnavailable


class FakeStore:
    """`failing`: what every step fails with. `gate`: steps wait until it is set. `steps`: those that were done."""

    def __init__(self) -> None:
        self.hosts: dict[str, StoredHost] = {}
        self.keys: dict[str, StoredKey] = {}
        self.certificates: dict[str, StoredCertificate] = {}
        self.tokens: dict[str, StoredToken] = {}
        self.benchmarks: dict[str, BenchmarkSample] = {}
        self.roles: dict[str, Role] = {}
        self.aliases: dict[str, Alias] = {}
        self.audit: list[Audit] = []
        self.rows: dict[Key, list[float]] = {}
        self.reported: dict[Who, int] = {}
        self.steps: list[str] = []
        self.failing: str | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def _step(self, name: str) -> None:
        await self.gate.wait()
        if self.failing is not None:
            raise StoreUnavailable(self.failing)
        self.steps.append(name)

    async def load(self) -> Stored:
        await self._step("load")
        return Stored(
            cluster_id="c1",
            hosts=tuple(self.hosts.values()),
            keys=tuple(self.keys.values()),
            certificates=tuple(self.certificates.values()),
            tokens=tuple(self.tokens.values()),
            samples=tuple(self.benchmarks.values()),
            roles=tuple(self.roles.values()),
            aliases=tuple(self.aliases.values()),
            learned=tuple(
                outcomes(key.endpoint, key.model, "", sums) for key, sums in self.rows.items() if key.endpoint
            ),
            reported=dict(self.reported),
        )

    async def put_hosts(self, hosts: Sequence[StoredHost]) -> None:
        await self._step("put_hosts")
        self.hosts |= {host.host_id: host for host in hosts}

    async def put_seen(self, seen: Mapping[str, float]) -> None:
        await self._step("put_seen")
        for host_id, at in seen.items():
            if host_id in self.hosts:
                self.hosts[host_id] = msgspec.structs.replace(self.hosts[host_id], last_seen=at)

    async def forget_host(self, host_id: str, audit: Audit) -> None:
        await self._step("forget_host")
        self.hosts.pop(host_id, None)
        self._revoke(PeerKind.NODE, host_id, audit.at)
        self.audit.append(audit)

    async def add_key(self, key: ClientKey, created: float, audit: Audit) -> None:
        await self._step("add_key")
        self.keys[key.key_id] = StoredKey(key=key, created=created)
        self.audit.append(audit)

    async def revoke_key(self, key_id: str, audit: Audit) -> None:
        await self._step("revoke_key")
        self.keys[key_id] = msgspec.structs.replace(self.keys[key_id], revoked=audit.at)
        self.audit.append(audit)

    async def add_certificates(
        self, added: Sequence[StoredCertificate], audit: Audit, token_id: str | None = None
    ) -> bool:
        await self._step("add_certificates")
        if token_id is not None:
            token = self.tokens[token_id]
            if token.uses_left <= 0 or token.revoked is not None or token.expires <= audit.at:
                return False
            self.tokens[token_id] = msgspec.structs.replace(token, uses_left=token.uses_left - 1)
            for item in added:
                self._revoke(item.kind, item.peer_id, audit.at)
        self.certificates |= {item.serial: item for item in added}
        self.audit.append(audit)
        return True

    async def revoke_peer(self, kind: PeerKind, peer_id: str, audit: Audit) -> None:
        await self._step("revoke_peer")
        self._revoke(kind, peer_id, audit.at)
        self.audit.append(audit)

    def _revoke(self, kind: PeerKind, peer_id: str, at: float) -> None:
        for serial, item in self.certificates.items():
            if (item.kind, item.peer_id, item.revoked) == (kind, peer_id, None):
                self.certificates[serial] = msgspec.structs.replace(item, revoked=at)

    async def add_token(self, token: StoredToken, audit: Audit) -> None:
        await self._step("add_token")
        self.tokens[token.token_id] = token
        self.audit.append(audit)

    async def revoke_token(self, token_id: str, audit: Audit) -> None:
        await self._step("revoke_token")
        self.tokens[token_id] = msgspec.structs.replace(self.tokens[token_id], revoked=audit.at)
        self.audit.append(audit)

    async def add_usage(self, batch: Batch, at: float) -> None:
        await self._step("add_usage")
        who, sequence = next(iter(batch.reported.items()))
        if self.reported.get(who, 0) >= sequence:
            return
        self.reported |= batch.reported
        for key, numbers in batch.rows.items():
            held = self.rows.get(key, [0] * len(numbers))
            self.rows[key] = [a + b for a, b in zip(held, numbers, strict=True)]

    async def usage(self, query: Query) -> list[Group]:
        await self._step("usage")
        found: dict[tuple[str | int, ...], list[float]] = {} if query.group_by else {(): [0] * len(NUMBERS)}
        for key, numbers in self.rows.items():
            if not query.first <= key.hour < query.end or any(_value(key, by) != value for by, value in query.filters):
                continue
            values = tuple(_value(key, by) for by in query.group_by)
            held = found.get(values, [0] * len(numbers))
            found[values] = [a + b for a, b in zip(held, numbers, strict=True)]
        groups = [Group(values, numbers) for values, numbers in found.items()]
        groups.sort(key=lambda group: (-group.numbers[0], group.values))
        return groups[query.offset : query.offset + query.limit]

    async def prune_usage(self, first: int, since: float) -> dict[Who, int]:
        await self._step("prune_usage")
        self.rows = {key: numbers for key, numbers in self.rows.items() if key.hour >= first}
        return dict(self.reported)

    async def add_samples(self, samples: Sequence[BenchmarkSample], most: int, audit: Audit) -> set[str]:
        await self._step("add_samples")
        new = {s.sample_id: s for s in reversed(samples) if s.sample_id not in self.benchmarks}
        self.benchmarks |= new
        if new:
            self.audit.append(audit)
        return set(new)

    async def samples(self, query: SampleQuery) -> list[BenchmarkSample]:
        await self._step("samples")
        found = [
            sample
            for sample in self.benchmarks.values()
            if query.service in ("", sample.service)
            and query.asset_id in ("", sample.asset_id)
            and query.workload in ("", sample.workload)
        ]
        found.sort(key=lambda sample: (-sample.measured, sample.sample_id))
        return found[query.offset : query.offset + query.limit]

    async def put_role(self, role: Role, audit: Audit) -> None:
        await self._step("put_role")
        self.roles[role.role_id] = role
        self.audit.append(audit)

    async def drop_role(self, role_id: str, audit: Audit) -> None:
        await self._step("drop_role")
        self.roles.pop(role_id, None)
        self.audit.append(audit)

    async def put_alias(self, alias: Alias, audit: Audit) -> None:
        await self._step("put_alias")
        self.aliases[alias.alias] = alias
        self.audit.append(audit)

    async def drop_alias(self, alias: str, audit: Audit) -> None:
        await self._step("drop_alias")
        self.aliases.pop(alias, None)
        self.audit.append(audit)

    async def ping(self) -> None:
        await self._step("ping")


def _value(key: Key, by: By) -> str | int:
    return {
        By.KEY: key.key_id,
        By.MODEL: key.model,
        By.HOST: key.host,
        By.SERVICE: key.service,
        By.ENDPOINT: key.endpoint,
        By.OPERATION: key.operation,
        By.HOUR: key.hour,
        By.DAY: key.hour // 24,
    }[by]
