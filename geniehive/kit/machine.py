"""What this machine calls itself, and where others find it."""

import hashlib
import ipaddress
import platform
import socket
import uuid
from pathlib import Path

import psutil

from geniehive.kit import address


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


def addresses() -> list[str]:
    """Addresses at which other machines may reach this one, the likeliest first: that of the way out, if any."""
    # Any address outside: which one only decides about the family.
    towards = (address.local_towards(outside) for outside in ("192.0.2.1", "2001:db8::1"))
    found = [local for local in towards if local is not None and not address.is_loopback(local)]
    states = psutil.net_if_stats()
    for name, entries in psutil.net_if_addrs().items():
        if name not in states or not states[name].isup:
            continue
        for entry in entries:
            text = entry.address.partition("%")[0]
            if entry.family not in (socket.AF_INET, socket.AF_INET6) or text in found:
                continue
            number = ipaddress.ip_address(text)
            if not (number.is_loopback or number.is_link_local):
                found.append(text)
    return found


def _digest(text: str) -> str:
    # Hashed, since the id itself is meant to stay on the machine.
    return hashlib.sha256(b"geniehive machine " + text.encode()).hexdigest()[:32]
