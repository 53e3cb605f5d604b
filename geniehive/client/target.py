"""Which control to call, with which key, and by which CA it is known.

Each is what the caller gives, else the environment's (GENIEHIVE_CONTROL, GENIEHIVE_KEY, GENIEHIVE_CA), else what
`geniehive up` or `join` left in the state folder of this user, else the default address and no key. Control on this
machine is spoken to without TLS, unless the caller gives a CA.
"""

import asyncio
import json
import os
import ssl
from pathlib import Path
from typing import NamedTuple

from geniehive import trust
from geniehive.channels import Tls
from geniehive.kit import address, state, tls_probe
from geniehive.kit.errors import UserError
from geniehive.rules.identity import CONTROL_NAME

DEFAULT_CONTROL = "127.0.0.1:8801"
CONTROL_VARIABLE = "GENIEHIVE_CONTROL"
KEY_VARIABLE = "GENIEHIVE_KEY"
UP_FILE = "up.json"
ADMIN_KEY_FILE = "admin.key"
_WRONG_PORT = f"it asks for a certificate: that is the port for nodes and gateways; tools use {trust.TLS_PORT}"
# That a look at why there is no connection may take.
_LOOK_SECONDS = 3.0


class Target(NamedTuple):
    control: str  # "HOST:PORT"
    key: str | None
    tls: Tls | None = None  # None: plain, on loopback

    def __repr__(self) -> str:
        return f"Target({self.control!r}, key {'given' if self.key else 'absent'})"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return (("authorization", f"Bearer {self.key}"),) if self.key else ()

    def why_not(self) -> str | None:
        """Why no TLS connection comes about, in words; None if it is not for that. Blocks for seconds."""
        if self.tls is None:
            return None
        host, port = address.split(self.control)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.tls.ca.decode("ascii"))
        context.set_alpn_protocols(["h2"])
        why = tls_probe.look(host, port, context, CONTROL_NAME, _LOOK_SECONDS)
        # A tool has none.
        return _WRONG_PORT if why == tls_probe.REFUSES else why

    async def why_not_async(self) -> str | None:
        """As `why_not`, for an event loop."""
        return await asyncio.to_thread(self.why_not)


def find(control: str | None = None, key: str | None = None, ca: str | Path | None = None) -> Target:
    """Fills in what is not given (None; an empty key is none at all). UserError says what of it can't be used."""
    folder = state.default_folder()
    control = (
        control
        or os.environ.get(CONTROL_VARIABLE)
        or _running(folder / UP_FILE)
        or trust.control(folder)
        or DEFAULT_CONTROL
    )
    control = trust.complete(control, tls=ca is not None)
    if key is None:
        # The key that this machine made for itself is shown to nobody outside it.
        host, _ = address.split(control)
        key = os.environ.get(KEY_VARIABLE) or (_local_key(folder) if address.is_loopback(host) else None)
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError("the key holds characters that no key has; give it without quotes and spaces")
    file = trust.ca_file(ca, folder, control)
    return Target(control, key or None, None if file is None else Tls(trust.read_ca(file)))


def _running(file: Path) -> str | None:
    """The control that `geniehive up` started."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {file}: {error}. Delete it, or say which control is meant (--control, {CONTROL_VARIABLE})"
        ) from error
    found = told.get("control") if isinstance(told, dict) else None
    return found if isinstance(found, str) and found else None


def _local_key(folder: Path) -> str | None:
    file = folder / ADMIN_KEY_FILE
    return state.read_secret(file) if file.exists() else None
