"""The cluster's CA in files, and control's own certificate.

    tls/ca.pem  the CA's certificate, below the state folder
    tls/ca.key  its key, readable by its owner alone

or, by settings, files of one's own.
"""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from geniehive.kit import state, tls
from geniehive.kit.clock import Clock
from geniehive.kit.errors import UserError
from geniehive.kit.tls import Issued, PublicKey
from geniehive.rules.identity import CONTROL_NAME, Peer, PeerKind, relay_name

log = logging.getLogger(__name__)

FOLDER = "tls"
CA_FILE = "ca.pem"
KEY_FILE = "ca.key"
# Before the end of a CA, in seconds: its successor has to reach every machine.
_WARN = 90 * 86400.0


class Files(NamedTuple):
    """In PEM."""

    certificate: Path
    key: Path


def open_authority(folder: Path, own: Files | None, cluster_id: str, now: float) -> tls.Authority:
    """The CA in the state folder, made if there is none, or that of one's own files. UserError if it can't be used."""
    files = own or Files(folder / FOLDER / CA_FILE, folder / FOLDER / KEY_FILE)
    if own is None:
        _ensure(files, cluster_id, now)
    certificate, key = _read(files.certificate), _read(files.key)
    try:
        authority = tls.Authority(certificate, key)
    except ValueError as error:
        text = f"{files.certificate}: {error}. The key was read from {files.key}"
        raise UserError(f"{text}; settings tls.ca_cert and tls.ca_key name another CA") from error
    read = x509.load_pem_x509_certificate(certificate)
    if read.subject != read.issuer:
        raise UserError(
            f"{files.certificate} was issued by another CA, so that machines that join could not verify it. "
            "Give a root CA that is this cluster's alone, or leave tls.ca_cert and tls.ca_key out"
        )
    if authority.not_after <= now:
        raise UserError(f"{files.certificate} has expired. Give another CA; every machine must then join again")
    if authority.not_after <= now + _WARN:
        log.warning("the CA %s expires in %.0f days", files.certificate, (authority.not_after - now) / 86400)
    return authority


def _ensure(files: Files, cluster_id: str, now: float) -> None:
    there = [path for path in files if path.exists()]
    if len(there) == len(files):
        return
    for held in there:
        lost = files.key if held == files.certificate else files.certificate
        raise UserError(
            f"there is {held}, but no {lost.name} beside it: this machine belongs to another cluster, or the file was "
            f"lost. Restore it. Or remove {held} as well, and a new CA is made; every machine must then join again"
        )
    certificate, key = tls.make_authority(f"GenieHive {cluster_id}", now)
    try:
        files.key.parent.mkdir(mode=0o700, exist_ok=True)
        state.write_private(files.key, key)
        state.write_private(files.certificate, certificate)
    except OSError as error:
        raise UserError(
            f"cannot keep a CA in {files.key.parent}: {error.strerror}. Choose another folder: --state-dir DIR"
        ) from error
    log.info("made a CA for this cluster: %s", files.certificate)


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}. Without its CA control cannot use tls.listen"
        ) from error


class CertificateIssuer:
    """The Issuer of `ports`."""

    def __init__(self, authority: tls.Authority) -> None:
        self._authority = authority

    @property
    def bundle(self) -> bytes:
        return self._authority.bundle

    @property
    def sha256(self) -> bytes:
        return self._authority.sha256

    def read(self, csr: str) -> PublicKey:
        return tls.read_csr(csr.encode())

    def issue(self, key: PublicKey, peer: Peer, now: float, seconds: float) -> Issued:
        # A node's relay is a server too, known by this name.
        dns = [relay_name(peer.cluster_id, peer.peer_id)] if peer.kind is PeerKind.NODE else []
        return self._authority.issue(key, peer.words, now=now, seconds=seconds, uris=[peer.uri], dns=dns)


class OwnCertificate:
    """What control shows. pair: key and chain, in PEM; replaced in good time. bundle: whom control believes.

    client_context: for asking relays, with what is in force.
    """

    def __init__(self, authority: tls.Authority, clock: Clock, seconds: float) -> None:
        self._authority = authority
        self._clock = clock
        self._seconds = seconds
        self.bundle = authority.bundle
        self.client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.client_context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.client_context.load_verify_locations(cadata=self.bundle.decode("ascii"))
        self.renew()

    def renew(self) -> None:
        self.pair = key, chain = self._make()
        # The only way in is a file.
        path = state.temporary(chain + key)
        try:
            self.client_context.load_cert_chain(path)
        finally:
            path.unlink(missing_ok=True)

    async def keep(self) -> None:
        """Renews it again and again. Never ends."""
        made = self._clock.wall()
        while True:
            # By the wall clock, in steps: a machine sleeps, or its clock is set.
            await asyncio.sleep(min(60.0, self._seconds / 6))
            if abs(self._clock.wall() - made) >= self._seconds / 3:
                self.renew()
                made = self._clock.wall()

    def _make(self) -> tuple[bytes, bytes]:
        key = tls.new_key()
        public = tls.read_csr(tls.make_csr(key, CONTROL_NAME))
        made = self._authority.issue(
            public, CONTROL_NAME, now=self._clock.wall(), seconds=self._seconds, dns=[CONTROL_NAME]
        )
        return key, made.chain
