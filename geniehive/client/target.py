"""Which control to call, and with which key.

Each is what the caller gives, else the environment's (GENIEHIVE_CONTROL, GENIEHIVE_KEY), else what `geniehive up`
left in the state folder of this user, else the default address and no key.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

from geniehive.kit import address, state
from geniehive.kit.errors import UserError

DEFAULT_CONTROL = "127.0.0.1:8801"
CONTROL_VARIABLE = "GENIEHIVE_CONTROL"
KEY_VARIABLE = "GENIEHIVE_KEY"
UP_FILE = "up.json"
ADMIN_KEY_FILE = "admin.key"


class Target(NamedTuple):
    control: str  # "HOST:PORT"
    key: str | None

    def __repr__(self) -> str:
        return f"Target({self.control!r}, key {'given' if self.key else 'absent'})"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return (("authorization", f"Bearer {self.key}"),) if self.key else ()


def find(control: str | None = None, key: str | None = None) -> Target:
    """Fills in what is not given (None; an empty key is none at all). UserError says what of it can't be used."""
    folder = state.default_folder()
    control = control or os.environ.get(CONTROL_VARIABLE) or _running(folder / UP_FILE) or DEFAULT_CONTROL
    host, port = address.split(control, default_port=8801)
    if key is None:
        # The key that this machine made for itself is shown to nobody outside it.
        key = os.environ.get(KEY_VARIABLE) or (_local_key(folder) if address.is_loopback(host) else None)
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError("the key holds characters that no key has; give it without quotes and spaces")
    return Target(address.join(host, port), key or None)


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
