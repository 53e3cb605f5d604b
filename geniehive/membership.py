"""What a daemon of this package proves itself with, kept below the state folder, and whom it believes.

    tls/ca.pem        whom to believe
    tls/revoked       and whom not, though they have a certificate: serials, one a line
    tls/node.pem      chain and private key of this machine's node; likewise gateway.pem
    tls/cluster.json  where control is: only on a machine that joined; the daemons of control's own machine have the
                      plain port of loopback, and a certificate only for the relays

Files are readable by their owner alone, and replaced in one step.
"""

import json
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Self

from geniehive.channels import Tls
from geniehive.kit import state, tls
from geniehive.kit.errors import UserError
from geniehive.rules import names
from geniehive.rules.identity import Peer, PeerKind, read_uri

FOLDER = "tls"
CA_FILE = "ca.pem"
REVOKED_FILE = "revoked"
CLUSTER_FILE = "cluster.json"


class Cluster(NamedTuple):
    """What a machine was told when it joined. control: where machines join, "HOST:PORT"; peers: where daemons with a
    certificate are served."""

    cluster_id: str
    host_id: str
    control: str
    peers: str

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """folder: the state folder. None: this machine has not joined. UserError if the file can't be used."""
        path = folder / FOLDER / CLUSTER_FILE
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            found = cls(**{field: told[field] for field in cls._fields})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"cannot read {path}: {error!r}. Restore it, or leave and join again: geniehive leave --force"
            ) from error
        if not all(isinstance(value, str) and value for value in found) or not names.is_id(found.host_id):
            raise UserError(f"{path} does not say what it should. Leave and join again: geniehive leave --force")
        return found

    def save(self, folder: Path) -> None:
        content = json.dumps(self._asdict(), indent=1) + "\n"
        state.write_private(ensure(folder) / CLUSTER_FILE, content.encode())


def ensure(folder: Path) -> Path:
    """The folder of these files, below the state folder, made if it is not there."""
    made = folder / FOLDER
    made.mkdir(mode=0o700, exist_ok=True)
    return made


def forget(folder: Path) -> None:
    """Removes everything that `join` gave. Without effect where there is nothing."""
    for name in (CLUSTER_FILE, CA_FILE, REVOKED_FILE, *(f"{kind.value}.pem" for kind in PeerKind)):
        (folder / FOLDER / name).unlink(missing_ok=True)


class Credential:
    """One daemon's certificate, and the trust of its cluster. To be used from one thread.

    peer, serial, expires: of the certificate; None without one. ca: PEM, b"" if nobody is believed yet.
    """

    def __init__(self, folder: Path, kind: PeerKind) -> None:
        """folder: the state folder. UserError if what is kept can't be read; what does not fit is not used."""
        self._folder = folder
        self._kind = kind
        self.ca = b""
        self.chain = b""
        self.key = b""
        self.peer: Peer | None = None
        self.serial: str | None = None
        self.not_before: float | None = None
        self.expires: float | None = None
        self.revoked: frozenset[str] = frozenset()
        # Called after each change of the certificate or of the trust.
        self.listeners: list[Callable[[], None]] = []
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None
        self._pending: bytes | None = None
        self._load()

    def __repr__(self) -> str:
        return f"Credential({self._kind.value}, {self.peer.uri if self.peer else None})"

    @property
    def path(self) -> Path:
        return self._folder / FOLDER / f"{self._kind.value}.pem"

    def _load(self) -> None:
        try:
            self.ca = (self._folder / FOLDER / CA_FILE).read_bytes()
            if (kept_revoked := self._folder / FOLDER / REVOKED_FILE).exists():
                self.revoked = frozenset(kept_revoked.read_text(encoding="ascii", errors="replace").split())
            kept = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
        chain, key = _split(kept)
        if tls.fits(chain, key, self.ca):
            self._take(chain, key)

    @property
    def link(self) -> Tls | None:
        """For gRPC; None without a certificate."""
        return Tls(self.ca, self.chain, self.key) if self.chain else None

    def request(self, common_name: str) -> bytes:
        """A certificate request, in PEM, for a new key, which waits for its certificate."""
        self._pending = tls.new_key()
        return tls.make_csr(self._pending, common_name)

    def accept(self, chain: bytes) -> bool:
        """Takes the certificate of the last request, and keeps it. False if it is not for that key, or not of our CA.

        OSError if it can't be kept; it is in use all the same.
        """
        key = self._pending
        if key is None or not tls.fits(chain, key, self.ca) or not self._take(chain, key):
            return False
        self._pending = None
        for context in (self._server, self._client):
            if context is not None:
                self._show(context)
        try:
            ensure(self._folder)
            state.write_private(self.path, chain + key)
        finally:
            self._tell()
        return True

    def _take(self, chain: bytes, key: bytes) -> bool:
        seen = tls.read_certificate(chain)
        peers = [peer for peer in map(read_uri, seen.uris) if peer is not None and peer.kind is self._kind]
        if len(peers) != 1:
            return False
        self.chain, self.key, self.peer = chain, key, peers[0]
        self.serial, self.not_before, self.expires = seen.serial, seen.not_before, seen.not_after
        return True

    def believe(self, ca_bundle: bytes, revoked: Iterable[str] = ()) -> None:
        """Control's word on whom to believe. A certificate of ours that is not of this CA is dropped.

        OSError if it can't be kept; it is in force all the same.
        """
        before, self.revoked = self.revoked, frozenset(revoked)
        changed = ca_bundle != self.ca
        if changed:
            self.ca = ca_bundle
            if self.chain and not tls.fits(self.chain, self.key, ca_bundle):
                self.drop()
            for context in (self._server, self._client):
                if context is not None:
                    context.load_verify_locations(cadata=ca_bundle.decode("ascii"))
        try:
            if changed:
                state.write_private(ensure(self._folder) / CA_FILE, ca_bundle)
            if before != self.revoked:
                # A relay that starts while control is away must not admit them again.
                kept = "".join(f"{serial}\n" for serial in sorted(self.revoked))
                state.write_private(ensure(self._folder) / REVOKED_FILE, kept.encode("ascii", "replace"))
        finally:
            self._tell()

    def drop(self) -> None:
        """Has no certificate from now on."""
        self.chain = self.key = b""
        self.peer = self.serial = self.not_before = self.expires = None
        self.path.unlink(missing_ok=True)

    def _tell(self) -> None:
        for listener in self.listeners:
            listener()

    # For TLS made by asyncio. Both contexts stay good: a connection is made with what is in force then.

    def server_context(self) -> ssl.SSLContext:
        """For a server that admits holders of certificates of this CA alone. There must be a certificate."""
        if self._server is None:
            self._server = self._context(ssl.PROTOCOL_TLS_SERVER)
            self._server.verify_mode = ssl.CERT_REQUIRED
        return self._server

    def client_context(self) -> ssl.SSLContext:
        """For a client that shows its certificate, and checks the server's name. There must be a certificate."""
        if self._client is None:
            self._client = self._context(ssl.PROTOCOL_TLS_CLIENT)
        return self._client

    def _context(self, protocol: int) -> ssl.SSLContext:
        made = ssl.SSLContext(protocol)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        made.load_verify_locations(cadata=self.ca.decode("ascii"))
        self._show(made)
        return made

    def _show(self, context: ssl.SSLContext) -> None:
        # The only way in is a file; the kept one may be unwritable, or not be written yet.
        path = state.temporary(self.chain + self.key, self.path.parent)
        try:
            context.load_cert_chain(path)
        finally:
            path.unlink(missing_ok=True)


def _split(kept: bytes) -> tuple[bytes, bytes]:
    """Chain and key."""
    mark = kept.find(b"-----BEGIN PRIVATE KEY-----")
    return (kept, b"") if mark < 0 else (kept[:mark], kept[mark:])
