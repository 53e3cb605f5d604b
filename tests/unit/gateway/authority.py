"""A cluster's CA, and what it gives to daemons."""

import ssl
import time
from pathlib import Path

import grpc

from geniehive.kit import state, tls
from geniehive.membership import CA_FILE, Cluster, Credential, ensure
from geniehive.rules.identity import CONTROL_NAME, Peer, PeerKind, relay_name

CLUSTER = "c-1"
DAY = 86400.0


class Authority:
    def __init__(self) -> None:
        self._made = tls.Authority(*tls.make_authority(CLUSTER, time.time()))
        self.bundle = self._made.bundle

    def issue(
        self, kind: PeerKind, peer_id: str, csr: bytes, seconds: float = DAY, now: float | None = None
    ) -> tls.Issued:
        return self._made.issue(
            tls.read_csr(csr),
            peer_id,
            now=time.time() if now is None else now,
            seconds=seconds,
            uris=[Peer(CLUSTER, kind, peer_id).uri],
            dns=[relay_name(CLUSTER, peer_id)] if kind is PeerKind.NODE else [],
        )

    def pair(self, kind: PeerKind, peer_id: str, seconds: float = DAY, now: float | None = None) -> tuple[bytes, str]:
        """Chain with key, in PEM, and the serial."""
        key = tls.new_key()
        issued = self.issue(kind, peer_id, tls.make_csr(key, "x"), seconds, now)
        return issued.chain + key, issued.serial

    def join(
        self, folder: Path, gateway_id: str = "gw", peers: str = "", seconds: float = DAY, now: float | None = None
    ) -> Credential:
        """As `geniehive join` leaves a state folder. peers: of control; "": this is control's own machine."""
        made, _ = self.pair(PeerKind.GATEWAY, gateway_id, seconds, now)
        (ensure(folder) / CA_FILE).write_bytes(self.bundle)
        (ensure(folder) / "gateway.pem").write_bytes(made)
        if peers:
            Cluster(CLUSTER, gateway_id, "192.0.2.1:8804", peers).save(folder)
        return Credential(folder, PeerKind.GATEWAY)

    def control(self) -> grpc.ServerCredentials:
        """Of a control that asks for certificates."""
        key = tls.new_key()
        public = tls.read_csr(tls.make_csr(key, "x"))
        issued = self._made.issue(public, "control", now=time.time(), seconds=DAY, dns=[CONTROL_NAME])
        return grpc.ssl_server_credentials([(key, issued.chain)], self.bundle, True)

    def relay(self, host_id: str, kind: PeerKind = PeerKind.NODE) -> tuple[ssl.SSLContext, str]:
        """Of a relay that asks for certificates, and its serial."""
        made, serial = self.pair(kind, host_id)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(cadata=self.bundle.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        load(context, made)
        return context, serial


def load(context: ssl.SSLContext, pair: bytes) -> None:
    path = state.temporary(pair)
    try:
        context.load_cert_chain(path)
    finally:
        path.unlink()
