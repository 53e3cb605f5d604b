"""A control off loopback in all but its address: TLS with a CA of its own, for what joins it or asks it synchronously.

with tls_control() as control:
    control.address    # TLS without a client's certificate, as control's tls.listen
    control.peers      # mutual TLS, as its tls.peers_port
    control.token()    # a join token that it accepts; `answers` and the rest as FakeControl has them
"""

import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from geniehive.failures import Refused
from geniehive.kit import state, tls
from geniehive.rules.identity import CONTROL_NAME, Peer, PeerKind, relay_name
from geniehive.rules.join_token import SECRET_BYTES, JoinToken
from geniehive.v1 import failure_pb2, node_service_pb2, node_service_pb2_grpc
from tests.support.fake_control import SERVICES, FakeControl, servicer

_KINDS = {1: PeerKind.NODE, 2: PeerKind.GATEWAY}


class TlsControl(FakeControl):
    """taken: host_ids of other machines. seconds: the life of what it issues. revoked: URIs that it refuses."""

    def __init__(self, cluster_id: str = "c-test") -> None:
        super().__init__()
        self.cluster_id = cluster_id
        self.peers = ""
        self.authority = tls.Authority(*tls.make_authority(cluster_id, time.time()))
        self.taken: set[str] = set()
        self.seconds = 3600.0
        self.revoked: set[str] = set()
        self.left: list[str] = []
        self.callers: list[str] = []
        self.answers["Enroll"] = self._enroll
        self._secrets: set[bytes] = set()

    def token(self) -> str:
        made = JoinToken(self.authority.sha256, secrets.token_bytes(SECRET_BYTES))
        self._secrets.add(made.secret)
        return made.text

    def server_credentials(self, mutual: bool) -> grpc.ServerCredentials:
        chain, key = issue(self.authority, CONTROL_NAME)
        ca = self.authority.bundle if mutual else None
        return grpc.ssl_server_credentials([(key, chain)], ca, mutual)

    def ask(self, name: str, response: type[Any], request: Any, context: grpc.ServicerContext) -> Any:
        uris = [v.decode() for v in context.auth_context().get("peer_spiffe_id", ())]
        self.callers += uris
        if self.revoked.intersection(uris):
            self.answers[name] = Refused(failure_pb2.FAILURE_REASON_CREDENTIAL_REVOKED, "it was revoked")
        if name == "Leave":
            self.left += uris
        return super().ask(name, response, request, context)

    def _enroll(self, request: node_service_pb2.EnrollRequest) -> Any:
        secret = next(
            (s for s in self._secrets if JoinToken(self.authority.sha256, s).text == request.join_token), None
        )
        if secret is None:
            return Refused(failure_pb2.FAILURE_REASON_JOIN_TOKEN_REFUSED, "this join token is used up")
        self._secrets.remove(secret)
        host_id = f"{request.host_id}-2" if request.host_id in self.taken else request.host_id
        answer = node_service_pb2.EnrollResponse(
            cluster_id=self.cluster_id, host_id=host_id, peer_port=int(self.peers.rpartition(":")[2])
        )
        answer.trust.ca_bundle = self.authority.bundle.decode()
        for asked in request.peers:
            peer = Peer(self.cluster_id, _KINDS[asked.kind], host_id)
            made = self.authority.issue(
                tls.read_csr(asked.certificate_request.csr.encode()),
                host_id,
                now=time.time(),
                seconds=self.seconds,
                uris=[peer.uri],
                dns=[relay_name(self.cluster_id, host_id)],
            )
            answer.certificates.add(chain=made.chain.decode())
        return answer


@contextmanager
def tls_control(cluster_id: str = "c-test") -> Iterator[TlsControl]:
    control = TlsControl(cluster_id)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    for module, name, add in SERVICES:
        add(servicer(control, module, name), server)
    nodes = servicer(control, node_service_pb2, "NodeService")
    node_service_pb2_grpc.add_NodeServiceServicer_to_server(nodes, server)
    for mutual, attribute in ((False, "address"), (True, "peers")):
        port = server.add_secure_port("127.0.0.1:0", control.server_credentials(mutual))
        setattr(control, attribute, f"127.0.0.1:{port}")
    server.start()
    try:
        yield control
    finally:
        server.stop(None).wait()


def issue(authority: tls.Authority, dns: str, seconds: float = 3600.0) -> tuple[bytes, bytes]:
    """A server's certificate chain and key."""
    key = tls.new_key()
    public = tls.read_csr(tls.make_csr(key, dns))
    return authority.issue(public, dns, now=time.time(), seconds=seconds, dns=[dns]).chain, key


class Impostor:
    """Somebody in between: shows a chain of its own, and writes down what it is then sent."""

    def __init__(self, authority: tls.Authority) -> None:
        self.heard = b""
        self.handshakes = 0
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        chain, key = issue(authority, CONTROL_NAME)
        file = state.temporary(chain + key)
        context.load_cert_chain(file)
        context.set_alpn_protocols(["h2"])
        Path(file).unlink()
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            plain.settimeout(5.0)
            try:
                with self._context.wrap_socket(plain, server_side=True) as secure:
                    self.handshakes += 1
                    while got := secure.recv(65536):
                        self.heard += got
            except OSError:
                plain.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
