"""Joining, as the contract has it: tokens, certificates and trust between messages and `geniehive_control.joining`."""

from typing import Any

import grpc

from geniehive import convert
from geniehive.failures import Refused
from geniehive.rules import join_token, names
from geniehive.rules.identity import PeerKind
from geniehive.v1 import admin_service_pb2, credential_pb2, node_service_pb2
from geniehive.v1.failure_pb2 import FAILURE_REASON_UNSPECIFIED
from geniehive_control.core import effects as fx
from geniehive_control.core.records import StoredToken
from geniehive_control.core.refusal import Refusal, Why, field_invalid
from geniehive_control.core.tokens import refused
from geniehive_control.hub import Hub
from geniehive_control.joining import Joiner, Joining
from geniehive_control.rpc.policy import Caller
from geniehive_control.rpc.views import duration

_LONGEST = 128
_LONGEST_NAME = 200
_MOST_PEERS = 8
_TTL, _LONGEST_TTL = 3600.0, 30 * 86400.0
_MOST_USES = 10_000

_KINDS = {credential_pb2.PEER_KIND_NODE: PeerKind.NODE, credential_pb2.PEER_KIND_GATEWAY: PeerKind.GATEWAY}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}


class Certificates:
    """joining: None if this control has no TLS."""

    def __init__(self, hub: Hub, joining: Joining | None) -> None:
        self._hub = hub
        self._joining = joining
        # The last one that was made: everybody is told the same.
        self._told: tuple[tuple[str, ...], credential_pb2.Trust] | None = None

    def _with_tls(self) -> Joining:
        if self._joining is None:
            raise Refused(
                FAILURE_REASON_UNSPECIFIED,
                "this control has no TLS, so that no machine can join; start it with tls.listen=0.0.0.0:8804, "
                "or geniehive up --lan",
                code=grpc.StatusCode.FAILED_PRECONDITION,
            )
        return self._joining

    async def create_token(
        self, request: admin_service_pb2.CreateJoinTokenRequest, caller: str
    ) -> admin_service_pb2.CreateJoinTokenResponse:
        joining = self._with_tls()
        ttl = request.ttl.ToNanoseconds() / 1e9 if request.HasField("ttl") else _TTL
        if not 0 < ttl <= _LONGEST_TTL:
            raise field_invalid("ttl", f"must be more than 0 and at most {_LONGEST_TTL / 86400:.0f} days")
        uses = request.uses or 1
        if uses > _MOST_USES:
            raise field_invalid("uses", f"must be at most {_MOST_USES}")
        kinds = {peer_kind(kind, "peer_kinds") for kind in request.peer_kinds} or set(PeerKind)
        ordered = tuple(sorted(kinds, key=lambda kind: kind.value))
        token, kept = await joining.create_token(ttl, uses, ordered, caller)
        return admin_service_pb2.CreateJoinTokenResponse(
            join_token=token_view(kept), token=token.text, addresses=joining.addresses()
        )

    async def enroll(self, request: node_service_pb2.EnrollRequest) -> node_service_pb2.EnrollResponse:
        joining = self._with_tls()
        try:
            token = join_token.read(request.join_token[:_LONGEST])
        except ValueError as error:
            raise refused(f"cannot be used: {error}") from error
        # First of all: who has no token is told nothing else.
        joining.check_token(token, ())
        joiner = _joiner(request)
        joining.check_token(token, joiner.kinds)
        joined = await joining.join(token, joiner)
        certificates = (
            given(
                fx.GiveCertificate(
                    stream_id="", chain=made.chain, renew_after=joining.renew_after, expires=made.not_after
                )
            )
            for made in joined.certificates
        )
        revoked = self._hub.registry.trust.revoked(self._hub.now().wall)
        return node_service_pb2.EnrollResponse(
            cluster_id=self._hub.registry.cluster_id,
            host_id=joined.host_id,
            certificates=certificates,
            trust=self.trust(fx.TellTrust(revoked=revoked)),
            peer_port=joining.peers_port,
        )

    async def leave(self, caller: Caller) -> None:
        if (shown := caller.certificate) is None:
            text = "only who has joined can leave, and proves itself by its certificate"
            raise Refusal(Why.CREDENTIAL_REFUSED, text)
        if shown.kind is PeerKind.NODE:
            await self._hub.forget_host(shown.peer_id, caller.name, left=True)
        else:
            await self._hub.revoke_peer(shown.kind, shown.peer_id, caller.name)

    def ask(self, stream_id: str, request: credential_pb2.CertificateRequest) -> None:
        """A request on an open stream; the answer goes there. Refusal: FIELD_INVALID."""
        grant = self._hub.registry.grant(stream_id, self._hub.now())
        if self._joining is not None and grant is not None:
            if not names.is_id(grant.peer_id):
                text = f"{grant.peer_id[:80]!r} stands in no certificate: use [a-z0-9][a-z0-9._-]{{0,62}}"
                raise field_invalid(f"{grant.kind.value}_id", text)
            key = self._joining.read(request.csr, "certificate_request.csr")
            self._hub.tasks.start(self._joining.give(stream_id, key), "certificate")

    def trust(self, effect: fx.TellTrust) -> credential_pb2.Trust:
        if self._told is None or self._told[0] != effect.revoked:
            bundle = "" if self._joining is None else self._joining.issuer.bundle.decode()
            made = credential_pb2.Trust(ca_bundle=bundle, revoked_serials=effect.revoked)
            self._told = effect.revoked, made
        return self._told[1]


def given(effect: fx.GiveCertificate) -> credential_pb2.Certificate:
    return credential_pb2.Certificate(
        chain=effect.chain.decode(),
        renew_after=duration(effect.renew_after),
        expire_time=convert.timestamp(effect.expires),
    )


def token_view(token: StoredToken) -> admin_service_pb2.JoinToken:
    return admin_service_pb2.JoinToken(
        token_id=token.token_id,
        expire_time=convert.timestamp(token.expires),
        uses_left=token.uses_left,
        peer_kinds=[_NUMBERS[kind] for kind in token.kinds],
    )


def peer_kind(number: Any, field: str) -> PeerKind:
    """Refusal: FIELD_INVALID."""
    try:
        return _KINDS[number]
    except KeyError as error:
        raise field_invalid(field, "allowed are node and gateway") from error


def _joiner(request: node_service_pb2.EnrollRequest) -> Joiner:
    if request.HasField("host_id") and not names.is_id(request.host_id):
        raise field_invalid("host_id", f"{request.host_id[:80]!r} is none: use [a-z0-9][a-z0-9._-]{{0,62}}")
    name = request.display_name.strip()
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise field_invalid("display_name", f"must be printable and at most {_LONGEST_NAME} characters long")
    if len(request.machine_id) > _LONGEST:
        raise field_invalid("machine_id", f"is longer than {_LONGEST} characters")
    if not 0 < len(request.peers) <= _MOST_PEERS:
        raise field_invalid("peers", f"there must be 1 to {_MOST_PEERS}")
    return Joiner(
        wanted=request.host_id if request.HasField("host_id") else names.to_id(name),
        machine_id=request.machine_id or None,
        kinds=tuple(peer_kind(peer.kind, f"peers[{number}].kind") for number, peer in enumerate(request.peers)),
        csrs=tuple(peer.certificate_request.csr for peer in request.peers),
    )
