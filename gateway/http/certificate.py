"""The certificate that clients see: read from files, and read again when they change."""

import asyncio
import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path

from geniehive.kit import state, tls
from geniehive.kit.errors import UserError

log = logging.getLogger(__name__)

_LOOK_EVERY = 5.0

# What tells one version of a file from another.
_Version = tuple[tuple[int, int, int], ...]


class Certificate:
    """cert: PEM, leaf first. key: PEM. UserError if they can't be used."""

    def __init__(self, cert: Path, key: Path) -> None:
        self._files = (cert.expanduser(), key.expanduser())
        self.context = _context()
        try:
            # First what they are, then what is in them: a change in between is seen as one later.
            self._seen = self._version()
            self._load()
        except (OSError, ValueError) as error:
            raise UserError(f"{self._problem(error)}. Correct tls.cert and tls.key") from error

    async def run(self, interval: float = _LOOK_EVERY) -> None:
        """Until cancelled. A pair that can't be used leaves the older one in force, and is told of once."""
        while True:
            await asyncio.sleep(interval)
            try:
                now = await asyncio.to_thread(self._version)
            except OSError:
                continue  # in the middle of being replaced, or gone: there is nothing to read
            if now == self._seen:
                continue
            self._seen = now
            try:
                self._load()
            except (OSError, ValueError) as error:
                log.error("%s. The certificate in use stays", self._problem(error))
            else:
                log.info("the certificate in %s changed, and is in use", self._files[0])

    def _version(self) -> _Version:
        return tuple((s.st_mtime_ns, s.st_size, s.st_ino) for s in (file.stat() for file in self._files))

    def _load(self) -> None:
        cert, key = (file.read_bytes() for file in self._files)
        # The only way into a context is a file: a copy, so that what was tried is what is taken.
        path = state.temporary(cert + b"\n" + key)
        try:
            _context().load_cert_chain(path, password=_no_password)
            self.context.load_cert_chain(path, password=_no_password)
        finally:
            path.unlink(missing_ok=True)
        expires = tls.read_certificate(cert).not_after
        day = datetime.fromtimestamp(expires, UTC)
        if day < datetime.now(UTC):
            log.warning("the certificate in %s expired on %s", self._files[0], day.strftime("%Y-%m-%d %H:%M UTC"))

    def _problem(self, error: Exception) -> str:
        cert, key = self._files
        if isinstance(error, ssl.SSLError):
            return f"{cert} and {key} are no certificate with its key: {(error.reason or str(error)).lower()}"
        if isinstance(error, OSError):
            return f"cannot read {error.filename or cert}: {error.strerror}"
        return f"{cert} and {key} can't be used: {error}"


def _context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    return made


def _no_password() -> str:
    # Without this OpenSSL would ask for it at the terminal.
    raise ValueError("the key has a password; remove it, as by: openssl pkey -in KEY -out NEW")
