"""The gateway's URLs: the one it is told to listen at, as programs of this machine and of others write it."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from geniehive.cli import ports
from geniehive.kit import address, machine, tls
from geniehive.kit.errors import UserError


@dataclass(frozen=True)
class Urls:
    """people: for this machine's programs; elsewhere: for those of others, None if these can't reach it.

    local: by number, where we look ourselves, believing its own certificate (`trusting`).
    """

    local: str
    people: str
    elsewhere: str | None
    trusting: ssl.SSLContext | None

    @classmethod
    def of(cls, listen: str, certificate: str | None, advertise: str | None) -> Self:
        """certificate: file, for HTTPS. advertise: this machine as others know it. UserError for a bad file."""
        host, port = address.split(listen)
        local = ports.for_clients(listen)
        scheme, name, trusting = "http", None, None
        if certificate is not None:
            scheme = "https"
            name, trusting = _look_into(Path(certificate))
        elsewhere = None
        if not address.is_loopback(host):
            is_one = address.split(local)[0] == host
            known = name or advertise or (host if is_one else next(iter(machine.addresses()), None))
            elsewhere = known and f"{scheme}://{address.join(known, port)}"
        people = address.join(name, port) if name else local
        return cls(f"{scheme}://{local}", f"{scheme}://{people}", elsewhere, trusting)


def _look_into(file: Path) -> tuple[str | None, ssl.SSLContext]:
    """The name that a certificate is for, and a context that believes it alone. UserError if it is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # It is reached by number, and it alone is believed: who signed it is of no matter.
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        content = file.read_bytes()
        seen = tls.read_certificate(content)
        context.load_verify_locations(cadata=content.decode("ascii"))
    except OSError as error:
        raise UserError(f"--cert: cannot use {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"--cert: {file} holds no certificate in PEM") from error
    return next((name for name in seen.dns if "*" not in name), None), context
