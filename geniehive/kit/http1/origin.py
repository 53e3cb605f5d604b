"""Where to connect: scheme, host and port, and whom to expect there."""

import ipaddress
import re
from typing import NamedTuple, Self
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_.-])?")
_PATH = re.compile(r"[\x21\x24-\x3e\x40-\x7e]*")  # visible ASCII without the quote, '#' and '?'


class Origin(NamedTuple):
    """scheme is "http" or "https"; host is lower case and has no brackets; port is always set.

    tls_name: that the server's certificate must have, if that is not `host`.
    """

    scheme: str
    host: str
    port: int
    tls_name: str | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """`url` without a path (a lone "/" is fine); ValueError for everything else: see `split_url`."""
        origin, path = split_url(url)
        if path:
            raise ValueError(f"{url!r} has a path; only scheme, host and port are expected here")
        return cls(*origin)

    @property
    def authority(self) -> str:
        """As in a Host header: "[::1]:8080", "example.org" when the port is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if DEFAULT_PORTS.get(self.scheme) == self.port else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def split_url(url: str) -> tuple[Origin, str]:
    """("http://box:8000/v1/") -> (Origin("http", "box", 8000), "/v1"); the base path has no slash at its end.

    ValueError when the scheme isn't http or https, the host is missing or malformed, the port is out of range, or
    there is a user, query or fragment (which a base address can't have, and which would be lost silently).
    """
    # urlsplit drops control characters and blanks silently, so they are refused before.
    if any(ord(letter) <= 0x20 or ord(letter) == 0x7F for letter in url):
        raise ValueError(f"{url!r} contains blanks or control characters")
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"{url!r} must start with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("a URL with a user or password in it is not accepted")
    if "?" in url or "#" in url:
        raise ValueError(f"{url!r} must not have a query or a fragment")
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"{url!r} has a malformed port") from None
    if port == 0:
        raise ValueError(f"{url!r} has port 0")
    path = parts.path.rstrip("/")
    if not _PATH.fullmatch(path):
        raise ValueError(f"the path of {url!r} must be percent-encoded")
    bracketed = parts.netloc.startswith("[")
    return Origin(parts.scheme, _host(url, parts.hostname or "", bracketed), port or DEFAULT_PORTS[parts.scheme]), path


def _host(url: str, host: str, bracketed: bool) -> str:
    if bracketed:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise ValueError(f"{url!r} has a malformed IPv6 address") from None
    try:
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError(f"{url!r} has a malformed host name") from None
    if not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{url!r} has no proper host name")
    return host
