"""How a machine becomes a member of a cluster: a join token turned into certificates.

Control is known by the digest in the token, before anything is sent; what it gives is kept by geniehive.membership.
"""

import hashlib
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import grpc

from geniehive import channels, failures, membership, trust
from geniehive.channels import Tls
from geniehive.cli import common, output
from geniehive.cli.children import say
from geniehive.failures import Refused
from geniehive.kit import address, machine, state, tls, tls_probe
from geniehive.kit.errors import EXIT_FAILED, UserError
from geniehive.membership import Cluster, Credential
from geniehive.rules import names
from geniehive.rules.identity import CONTROL_NAME, PeerKind
from geniehive.rules.join_token import JoinToken
from geniehive.trust import TLS_PORT
from geniehive.v1 import credential_pb2, node_service_pb2, registry_service_pb2
from geniehive.v1.failure_pb2 import FailureReason
from geniehive.v1.node_service_pb2_grpc import NodeServiceStub
from geniehive.v1.registry_service_pb2_grpc import RegistryServiceStub

_LOOK_SECONDS = 5.0
_CALL_SECONDS = 10.0
_KINDS = {
    PeerKind.NODE: credential_pb2.PEER_KIND_NODE,
    PeerKind.GATEWAY: credential_pb2.PEER_KIND_GATEWAY,
}


async def ensure(
    folder: Path, where: str | None, token: JoinToken | None, name: str | None, kinds: Sequence[PeerKind]
) -> Cluster:
    """The cluster that this machine is a member of, by certificates for these daemons; joins it if need be.

    where: "HOST" or "HOST:PORT" of control, token, name: as the user gave them, None if he did not. UserError says what
    is missing.
    """
    where = None if where is None else complete(where)
    if name is not None and not names.is_id(name):
        raise UserError(
            f"--name {name}: up to 63 of a-z, 0-9, dot, dash and underscore are allowed, as in {names.to_id(name)}"
        )
    cluster = Cluster.load(folder)
    if cluster is None:
        return await _first(folder, where, token, name, kinds)
    return await _again(folder, cluster, where, token, name, kinds)


def complete(where: str) -> str:
    """ "HOST" or "HOST:PORT" of control, as the user gave it -> "HOST:PORT". UserError if it is neither."""
    try:
        return address.join(*address.split(where, TLS_PORT))
    except UserError:
        raise UserError(
            f"{where!r} is no address of control: write HOST or HOST:PORT, such as 192.168.1.10:{TLS_PORT}"
        ) from None


async def _first(
    folder: Path, where: str | None, token: JoinToken | None, name: str | None, kinds: Sequence[PeerKind]
) -> Cluster:
    if (folder / trust.CA_KEY).exists():
        raise UserError(
            f"{folder} holds the CA of a cluster of this machine's own, which `geniehive up` runs. To join another, "
            "give a folder of its own: --state-dir DIR"
        )
    if where is None:
        raise UserError(
            "this machine has not joined a cluster. `geniehive tokens create` on control's machine prints the line: "
            "geniehive join HOST:PORT --token TOKEN"
        )
    if token is None:
        raise UserError(
            f"joining {where} needs a token: --token TOKEN, or --token-file FILE. `geniehive tokens create` on "
            "control's machine makes one"
        )
    # What an attempt that broke off has left would not fit.
    membership.forget(folder)
    return await _enrol(folder, where, token, name, kinds)


async def _again(
    folder: Path,
    cluster: Cluster,
    where: str | None,
    token: JoinToken | None,
    name: str | None,
    kinds: Sequence[PeerKind],
) -> Cluster:
    known = _digests(folder)
    if token is not None and token.ca_sha256 not in known:
        raise _other_cluster(cluster)
    if where is not None and where != cluster.control:
        cluster = await _moved(folder, cluster, where, known)
    held = {kind: Credential(folder, kind) for kind in kinds}
    missing = {kind: why for kind, credential in held.items() if (why := trouble(credential))}
    if token is not None and not missing:
        missing = {
            kind: "was revoked" for kind, credential in held.items() if await _is_revoked(cluster.peers, credential)
        }
    if not missing:
        if token is not None:
            say(f"this machine is a member of that cluster already, as {cluster.host_id}; the token is not used")
        if name is not None and name != cluster.host_id:
            output.warn(
                f"--name {name} is not used: a name is given once, at the first join; `geniehive leave` ends it"
            )
        return cluster
    if token is None:
        told = "; ".join(f"the certificate of its {kind.value} {why}" for kind, why in missing.items())
        raise UserError(
            f"this machine must join again: {told}. `geniehive tokens create` on control's machine makes a token; "
            f"then: geniehive join {cluster.control} --token TOKEN{' --gateway' if PeerKind.GATEWAY in kinds else ''}"
        )
    # Control may have renamed the node since it joined.
    called = next((c.peer.peer_id for c in held.values() if c.peer is not None), cluster.host_id)
    return await _enrol(folder, cluster.control, token, name or called, tuple(missing))


def trouble(credential: Credential) -> str | None:
    """What is wrong with a certificate, by this machine's clock; None if nothing is."""
    if not credential.chain or credential.expires is None:
        return "is missing"
    if credential.expires < time.time():
        moment = datetime.fromtimestamp(credential.expires, UTC)
        return f"expired on {moment:%Y-%m-%d %H:%M} UTC (if that is yet to come, this machine's clock is wrong)"
    return None


async def _is_revoked(peers: str, credential: Credential) -> bool:
    """Whether control refuses a certificate; False if it can't be asked."""
    async with channels.aio_channel(peers, credential.link) as channel:
        try:
            request = registry_service_pb2.GetClusterHealthRequest()
            await RegistryServiceStub(channel).GetClusterHealth(request, timeout=_LOOK_SECONDS)
        except grpc.aio.AioRpcError as error:
            # Any other refusal is of somebody whom control knows.
            return failures.from_rpc_error(error).reason == FailureReason.FAILURE_REASON_CREDENTIAL_REVOKED
    return False


def _digests(folder: Path) -> set[bytes]:
    """Of the CAs that this machine believes."""
    try:
        text = (folder / membership.FOLDER / membership.CA_FILE).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return set()
    end = "-----END CERTIFICATE-----"
    found = set()
    for part in text.split(end)[:-1]:
        begin = part.find("-----BEGIN CERTIFICATE-----")
        found.add(hashlib.sha256(ssl.PEM_cert_to_DER_cert(part[begin:] + end)).digest())
    return found


def _other_cluster(cluster: Cluster) -> UserError:
    return UserError(
        f"this machine is a member of another cluster already, whose control is {cluster.control}. It must leave that "
        "one first: geniehive leave"
    )


async def _moved(folder: Path, cluster: Cluster, where: str, known: set[bytes]) -> Cluster:
    """Control answers at another address than when this machine joined."""
    chain = await _chain(where)
    if not any(tls.sha256(der) in known for der in chain):
        raise _other_cluster(cluster)
    host, port = address.split(where)
    _, peer_port = address.split(cluster.peers)
    if port == peer_port:
        raise _wrong_port(where)
    cluster = cluster._replace(control=where, peers=address.join(host, peer_port))
    _keep(cluster, folder)
    return cluster


def _wrong_port(where: str) -> UserError:
    return UserError(
        f"{where} is where control serves machines that have joined; join at its other port, usually {TLS_PORT}",
        common.EXIT_UNREACHABLE,
    )


async def _chain(where: str) -> list[bytes]:
    """What the server shows, in DER. Nothing is sent."""
    host, port = address.split(where)
    try:
        return await tls_probe.fetch_chain(host, port, _LOOK_SECONDS)
    except (OSError, TimeoutError) as error:
        raise common.unreachable(
            where, tls_probe.words(error), f"Check the address, and that control listens for others (port {TLS_PORT})"
        ) from error


async def authority(where: str, token: JoinToken) -> bytes:
    """The CA that the token is of, in PEM, as the server shows it. UserError if it shows none such; nothing is sent."""
    ca = next((der for der in await _chain(where) if tls.sha256(der) == token.ca_sha256), None)
    if ca is None:
        raise UserError(
            f"the server at {where} is not the control of this token (whose CA has the SHA-256 "
            f"{token.ca_sha256.hex()}): wrong address, another cluster, or somebody in between; nothing was sent",
            EXIT_FAILED,
        )
    return tls.to_pem(ca)


async def _enrol(folder: Path, where: str, token: JoinToken, name: str | None, kinds: Sequence[PeerKind]) -> Cluster:
    ca = await authority(where, token)
    offered = name or state.machine_id(folder, names.to_id(machine.host_name()))
    credentials = [Credential(folder, kind) for kind in kinds]
    request = node_service_pb2.EnrollRequest(
        join_token=token.text, host_id=offered, display_name=machine.host_name(), machine_id=machine.fingerprint()
    )
    for kind, credential in zip(kinds, credentials, strict=True):
        csr = credential.request(offered).decode("ascii")
        request.peers.add(kind=_KINDS[kind], certificate_request=credential_pb2.CertificateRequest(csr=csr))
    answer = await _call(where, ca, request)
    host, _ = address.split(where)
    cluster = Cluster(answer.cluster_id, answer.host_id, where, address.join(host, answer.peer_port))
    try:
        for credential, given in zip(credentials, answer.certificates, strict=True):
            credential.believe(answer.trust.ca_bundle.encode("ascii"), answer.trust.revoked_serials)
            if not credential.accept(given.chain.encode("ascii")):
                raise ValueError("a certificate is not for the key that was asked for, or of another CA")
        state.write_private(folder / "machine-id", answer.host_id.encode("ascii") + b"\n")
    except OSError as error:
        raise _cannot_keep(folder, error) from error
    except ValueError as error:
        raise UserError(f"control at {where} answered what it should not: {error}", EXIT_FAILED) from error
    _keep(cluster, folder)
    if cluster.host_id != offered:
        output.warn(f"another machine of this cluster is called {offered} already; this one goes by {cluster.host_id}")
    return cluster


async def _call(where: str, ca: bytes, request: node_service_pb2.EnrollRequest) -> node_service_pb2.EnrollResponse:
    async with channels.aio_channel(where, Tls(ca)) as channel:
        try:
            return await NodeServiceStub(channel).Enroll(request, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as failed:
            error = failures.from_rpc_error(failed)
    if error.reason == FailureReason.FAILURE_REASON_JOIN_TOKEN_REFUSED:
        raise UserError(f"control at {where} refused the token: {error}", EXIT_FAILED)
    raise await explained(error, where, Tls(ca))


async def explained(error: Refused, where: str, tls_: Tls) -> UserError:
    """Why a call to control did not succeed, for people."""
    if error.reason != FailureReason.FAILURE_REASON_UNSPECIFIED:
        return UserError(f"control at {where} refused: {error}", EXIT_FAILED)
    host, port = address.split(where)
    context = _context(tls_)
    why = await tls_probe.why_not(host, port, context, CONTROL_NAME, _LOOK_SECONDS)
    if not tls_.chain and why in (tls_probe.REFUSES, tls_probe.WANTS_OURS):
        return _wrong_port(where)
    if why is None:
        why = "no answer in time" if error.code is grpc.StatusCode.DEADLINE_EXCEEDED else str(error) or "no answer"
    return common.unreachable(where, why, "Is it running, and is this its address?")


def _context(tls_: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=tls_.ca.decode("ascii"))
    context.set_alpn_protocols(["h2"])
    if tls_.chain and tls_.key:
        path = state.temporary(tls_.chain + tls_.key)
        try:
            context.load_cert_chain(path)
        finally:
            path.unlink(missing_ok=True)
    return context


def _keep(cluster: Cluster, folder: Path) -> None:
    try:
        cluster.save(folder)
    except OSError as error:
        raise _cannot_keep(folder, error) from error


def _cannot_keep(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write into {error.filename or folder}: {error.strerror}. Choose another folder: --state-dir DIR"
    )
