"""A Store in memory that can be told to fail or to stall."""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from geniehive.rules.identity import PeerKind
from geniehive.rules.model import ClientKey
from geniehive_control.core.records import Stored, StoredCertificate, StoredHost, StoredKey, StoredToken
from geniehive_control.ports import Audit, StoreUnavailable


class FakeStore:
    """`failing`: what every step fails with. `gate`: steps wait until it is set. `steps`: those that were done."""

    def __init__(self) -> None:
        self.hosts: dict[str, StoredHost] = {}
        self.keys: dict[str, StoredKey] = {}
        self.certificates: dict[str, StoredCertificate] = {}
        self.tokens: dict[str, StoredToken] = {}
        self.audit: list[Audit] = []
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

    async def ping(self) -> None:
        await self._step("ping")
