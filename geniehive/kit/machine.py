"""What this machine calls itself."""

import hashlib
import platform
import uuid
from pathlib import Path


def host_name() -> str:
    """As the system says, in whatever spelling it likes."""
    return platform.node() or "localhost"


def fingerprint() -> str | None:
    """A hash that is stable on one machine and differs on a clone that was given a machine id of its own.

    None if this system has nothing to tell machines apart by.
    """
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            if text := Path(path).read_text(encoding="ascii").strip():
                return _digest(text)
        except (OSError, UnicodeDecodeError):
            continue
    number = uuid.getnode()
    # A multicast bit means that getnode found no interface and made a random number.
    return None if number >> 40 & 1 else _digest(str(number))


def _digest(text: str) -> str:
    # Hashed, since the id itself is meant to stay on the machine.
    return hashlib.sha256(b"geniehive machine " + text.encode()).hexdigest()[:32]
