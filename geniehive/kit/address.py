"""Addresses to listen on and to reach, as "HOST:PORT"."""

import errno
import ipaddress
import secrets
import socket

from geniehive.kit.errors import UserError

_TRIES = 100


def split(address: str, default_port: int | None = None) -> tuple[str, int]:
    """ "127.0.0.1:8800" or "[::1]:8800" -> host, port. UserError if it is neither."""
    host, colon, port = address.rpartition(":")
    if not colon and default_port is not None:
        host, port = address, str(default_port)
    bare = host.strip("[]")
    is_number = port.isascii() and port.isdecimal()
    if not bare or not is_number or int(port) > 65535 or (":" in bare and not host.startswith("[")):
        raise UserError(f'{address!r} is no address; write "HOST:PORT", such as 127.0.0.1:8800 or [::1]:8800')
    return bare, int(port)


def join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine and nothing else can reach it. Names other than localhost are not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def local_towards(host: str) -> str | None:
    """This machine's own address on the way to `host`, as the system routes now; None if no way leads there.

    Sends nothing. A name is looked up, which can take its time: not for an event loop, unless `host` is a number.
    """
    try:
        found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    except OSError:
        return None
    for family, kind, protocol, _, where in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(where)
                name: str = probe.getsockname()[0]
                return name.partition("%")[0]
        except OSError:
            continue
    return None


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing uses now, and that no outgoing connection is given: those begin at 32768 or above.

    Another process may still be faster.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(_TRIES):
        port = 10_000 + secrets.randbelow(22_000)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(errno.EADDRINUSE, f"no free port found on {host}")
