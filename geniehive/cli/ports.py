"""Addresses to listen on: free, or a message that names the flag."""

import errno
import os
import socket
from collections.abc import Mapping

from geniehive.kit import address
from geniehive.kit.errors import UserError


class InUse(UserError):
    """Something listens there already."""


def settle(wanted: Mapping[str, str]) -> dict[str, str]:
    """Flag to address -> the same with port 0 replaced by a free port, and no port twice.

    Children are told the addresses before any of them listens, and keep them over restarts. UserError if two flags
    have one address, or one is no address.
    """
    settled: dict[str, str] = {}
    parts = {flag: _split(flag, text) for flag, text in wanted.items()}
    # Fixed ports first, so that no free one takes their place.
    for flag, (host, port) in sorted(parts.items(), key=lambda item: item[1][1] == 0):
        if port == 0:
            made = address.join(host, address.free_port(host))
            while any(_clash(made, taken) for taken in settled.values()):
                made = address.join(host, address.free_port(host))
        else:
            made = address.join(host, port)
            for other, taken in settled.items():
                if _clash(taken, made):
                    both = f"both {made}" if taken == made else f"on one port, as {taken} and {made}"
                    raise UserError(f"{other} and {flag} are {both}; give each a port of its own")
        settled[flag] = made
    return {flag: settled[flag] for flag in wanted}


def _split(flag: str, text: str) -> tuple[str, int]:
    try:
        return address.split(text)
    except UserError as error:
        raise UserError(f"{flag}: {error}") from None


def _clash(one: str, other: str) -> bool:
    """Whether nothing can listen at both: every address, such as 0.0.0.0, is one of all."""
    (host, port), (other_host, other_port) = address.split(one), address.split(other)
    return port == other_port and (host == other_host or bool({host, other_host} & {"0.0.0.0", "::"}))


def _usage(flag: str) -> str:
    return f"{flag} PORT" if flag.endswith("-port") else f"{flag} HOST:PORT"


def check(flag: str, text: str) -> None:
    """UserError if nothing can listen at an address; InUse if that is because something does."""
    host, port = address.split(text)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise UserError(f"{text} cannot be listened on: {error.strerror}. Choose another: {_usage(flag)}") from error
    for family, kind, protocol, _, place in found:
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":
                # As servers do: what is left of closed connections is no hindrance. On Windows it means another thing.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(place)
                # Linux lets two sockets be bound with that option; only one may listen.
                probe.listen(1)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise InUse(
                        f"{text} is in use by another program. Stop that, or choose another: {_usage(flag)}"
                    ) from error
                raise UserError(
                    f"{text} cannot be listened on: {error.strerror}. Choose another: {_usage(flag)}"
                ) from error


def for_clients(text: str) -> str:
    """Where this machine reaches a server that listens at `text`: "0.0.0.0" is no address to connect to."""
    host, port = address.split(text)
    return address.join({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)
