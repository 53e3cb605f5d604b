"""Join tokens, and the certificates that they give.

Every certificate is stored before it is handed out, so that it can be revoked.
"""

import logging
import secrets
from collections.abc import Callable, Sequence
from typing import NamedTuple

from geniehive.kit.tls import Issued, PublicKey
from geniehive.rules.identity import Peer, PeerKind
from geniehive.rules.join_token import SECRET_BYTES, JoinToken
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from geniehive_control.core.events import Now
from geniehive_control.core.records import Origin, StoredCertificate, StoredToken
from geniehive_control.core.refusal import Refusal, Why, field_invalid
from geniehive_control.core.tokens import refused, used_up
from geniehive_control.core.trust import Grant
from geniehive_control.hub import Hub
from geniehive_control.ports import Audit, Issuer, Store, StoreUnavailable

log = logging.getLogger(__name__)

# Machines that join at one time.
MOST_AT_ONCE = 256
# Certificates of one peer that are good at one time: who asks for more does not keep what it is given.
MOST_OF_A_PEER = 200


class Joiner(NamedTuple):
    """What a machine says of itself. wanted: the id that it would like. csrs: one for each of `kinds`."""

    wanted: str
    machine_id: str | None
    kinds: tuple[PeerKind, ...]
    csrs: tuple[str, ...]


class Joined(NamedTuple):
    host_id: str
    certificates: tuple[Issued, ...]


class Joining:
    """tls_port, peers_port: where control listens for machines that join, and for those that have joined."""

    def __init__(
        self, hub: Hub, store: Store, issuer: Issuer, seconds: float, addresses: Callable[[int], Sequence[str]]
    ) -> None:
        """seconds: the life of a certificate. addresses: where others reach control, which listens on this port."""
        self.issuer = issuer
        self.renew_after = seconds / 3
        self.tls_port = 0
        self.peers_port = 0
        self._hub = hub
        self._registry = hub.registry
        self._store = store
        self._seconds = seconds
        self._addresses = addresses
        self._joining = 0
        # Streams whose request is being answered.
        self._asking: set[str] = set()

    def addresses(self) -> list[str]:
        """Where machines join, the likeliest first."""
        return list(self._addresses(self.tls_port))

    async def create_token(
        self, seconds: float, uses: int, kinds: tuple[PeerKind, ...], caller: str
    ) -> tuple[JoinToken, StoredToken]:
        """StoreUnavailable: it does not exist."""
        now = self._hub.now().wall
        token = JoinToken(self.issuer.sha256, secrets.token_bytes(SECRET_BYTES))
        kept = StoredToken(
            token_id=token.token_id,
            sha256=token.secret_sha256,
            kinds=kinds,
            uses_left=uses,
            created=now,
            expires=now + seconds,
        )
        audit = Audit(at=now, caller=caller, action="create join token", target=kept.token_id)

        async def create() -> None:
            await self._hub.stored(self._store.add_token(kept, audit))
            self._hub.feed(e.TokenCreated(token=kept))

        await self._hub.change(create)
        return token, kept

    def check_token(self, token: JoinToken, kinds: Sequence[PeerKind]) -> StoredToken:
        """Refusal (JOIN_TOKEN_REFUSED) unless such peers may join by it now."""
        if token.ca_sha256 != self.issuer.sha256:
            raise refused("is of another cluster, or was altered; copy it again")
        return self._registry.tokens.by_digest(token.secret_sha256, kinds, self._hub.now().wall)

    async def join(self, token: JoinToken, joiner: Joiner) -> Joined:
        """Refusal: JOIN_TOKEN_REFUSED, FIELD_INVALID, TOO_MUCH. StoreUnavailable: no use of the token was counted."""
        keys = [self.read(csr, f"peers[{n}].certificate_request.csr") for n, csr in enumerate(joiner.csrs)]
        if self._joining >= MOST_AT_ONCE:
            raise Refusal(Why.TOO_MUCH, "too many machines join at this moment", retry_after=1.0)

        async def join() -> Joined:
            # Asked here: others may have joined meanwhile.
            token_id = self.check_token(token, joiner.kinds).token_id
            now = self._hub.now()
            host_id = self._registry.fence.enrol(joiner.wanted, joiner.machine_id, now)
            made = [
                self._issue(Grant(kind, host_id, joiner.machine_id, Origin.TOKEN), key, now)
                for kind, key in zip(joiner.kinds, keys, strict=True)
            ]
            kept = tuple(record for _, record in made)
            target = ", ".join(f"{kind.value} {host_id}" for kind in joiner.kinds)
            audit = Audit(at=now.wall, caller=f"join token {token_id}", action="join", target=target)
            if not await self._hub.stored(self._store.add_certificates(kept, audit, token_id)):
                raise used_up()
            self._hub.feed(e.Enrolled(token_id=token_id, certificates=kept))
            return Joined(host_id, tuple(issued for issued, _ in made))

        self._joining += 1
        try:
            return await self._hub.change(join)
        finally:
            self._joining -= 1

    async def give(self, stream_id: str, key: PublicKey) -> None:
        """Answers a request on an open stream.

        One that comes meanwhile is passed over, as is one whose answer can't be stored: the daemon asks again.
        """
        if stream_id in self._asking:
            return

        async def give() -> None:
            now = self._hub.now()
            grant = self._registry.grant(stream_id, now)
            if grant is None:
                return
            words = f"{grant.kind.value} {grant.peer_id}"
            if len(self._registry.trust.live(grant.kind, grant.peer_id, now.wall)) >= MOST_OF_A_PEER:
                log.warning("%s asks for certificates again and again, and gets none for now", words)
                return
            issued, kept = self._issue(grant, key, now)
            audit = Audit(at=now.wall, caller=words, action="certify", target=words)
            await self._hub.stored(self._store.add_certificates([kept], audit))
            self._hub.feed(e.CertificateIssued(certificate=kept))
            self._hub.give(
                fx.GiveCertificate(
                    stream_id=stream_id, chain=issued.chain, renew_after=self.renew_after, expires=issued.not_after
                )
            )

        self._asking.add(stream_id)
        try:
            await self._hub.change(give)
        except StoreUnavailable as error:
            log.debug("no certificate, since it can't be stored: %s", error)
        finally:
            self._asking.discard(stream_id)

    def read(self, csr: str, field: str) -> PublicKey:
        """Refusal: FIELD_INVALID."""
        try:
            return self.issuer.read(csr)
        except ValueError as error:
            raise field_invalid(field, str(error)) from error

    def _issue(self, grant: Grant, key: PublicKey, now: Now) -> tuple[Issued, StoredCertificate]:
        peer = Peer(self._registry.cluster_id, grant.kind, grant.peer_id)
        issued = self.issuer.issue(key, peer, now.wall, self._seconds)
        kept = StoredCertificate(
            serial=issued.serial,
            kind=grant.kind,
            peer_id=grant.peer_id,
            machine_id=grant.machine_id,
            issued=now.wall,
            expires=issued.not_after,
            origin=grant.origin,
        )
        return issued, kept
