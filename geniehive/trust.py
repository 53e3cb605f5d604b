"""What programs of people find out about their cluster without the packages of the daemons.

control   where a machine that joined its cluster reaches control
ca_file   the cluster's CA, by which control on another machine is known
"""

import json
import os
from pathlib import Path

from geniehive.kit import address
from geniehive.kit.errors import UserError

CA_VARIABLE = "GENIEHIVE_CA"
# Below the state folder; geniehive.membership keeps them.
CA_FILE = Path("tls", "ca.pem")
_CLUSTER_FILE = Path("tls", "cluster.json")
# Only where control made a CA of its own.
CA_KEY = Path("tls", "ca.key")

PLAIN_PORT = 8801
TLS_PORT = 8804


def control(folder: Path) -> str | None:
    """Control of the cluster that this machine joined; None if it has not joined, or does not know."""
    try:
        found = json.loads((folder / _CLUSTER_FILE).read_text(encoding="utf-8"))["control"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) and found else None


def ca_file(given: str | Path | None, folder: Path, target: str) -> Path | None:
    """The file of the CA that control at `target` is known by; None if it is spoken to without TLS, on loopback.

    given: by the caller, who then means TLS, on loopback too. UserError if control is elsewhere and there is none.
    """
    if given is not None:
        return Path(given).expanduser()
    host, _ = address.split(target, TLS_PORT)
    if address.is_loopback(host):
        return None
    if told := os.environ.get(CA_VARIABLE):
        return Path(told).expanduser()
    kept = folder / CA_FILE
    if kept.exists():
        return kept
    raise UserError(
        f"control at {target} is on another machine, and nothing here says by what to know it. Copy "
        f"{CA_FILE.as_posix()} from the state folder of control's machine, and give the copy: --ca FILE (or "
        f"{CA_VARIABLE}=FILE)"
    )


def complete(target: str, tls: bool) -> str:
    """ "HOST" or "HOST:PORT" -> "HOST:PORT". UserError if it is neither."""
    host, _ = address.split(target, TLS_PORT)
    plain = address.is_loopback(host) and not tls
    return address.join(*address.split(target, PLAIN_PORT if plain else TLS_PORT))


def read_ca(file: Path) -> bytes:
    """The certificates in a file, in PEM. UserError if there are none."""
    # Imported here: most commands have no need of it.
    import ssl

    try:
        content = file.read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii"))
    except OSError as error:
        if isinstance(error, ssl.SSLError):
            raise _no_certificate(file) from error
        raise UserError(f"cannot read the CA's certificate in {file}: {error.strerror}") from error
    except ValueError as error:
        raise _no_certificate(file) from error
    return content


def _no_certificate(file: Path) -> UserError:
    return UserError(
        f"{file} holds no certificate in PEM; the CA's is {CA_FILE.as_posix()} of the state folder of control's machine"
    )
