"""Which web pages may call this gateway from a browser: CORS, by the Origin that the browser names."""

from collections.abc import Iterable

# What scripts may read of an answer beside what every browser lets them.
_EXPOSED = (
    "x-request-id, request-id, retry-after, x-geniehive-cluster, x-geniehive-service, x-geniehive-host, "
    "x-geniehive-model, x-geniehive-route, x-geniehive-attempts, x-ratelimit-limit-requests, "
    "x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, "
    "x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
# Seconds for which a browser need not ask again.
_REMEMBERED = 7200
# A list of headers longer than any client's is not repeated to it.
_LONGEST = 4096


class Cors:
    """origins: such as "https://chat.example.com"; "*" stands for all. ValueError for what is no origin."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        for origin in self._origins:
            scheme, mark, rest = origin.partition("://")
            if origin not in ("*", "null") and not (scheme.isalpha() and mark and rest and rest.isascii()):
                raise ValueError(f'{origin!r} is no origin; write it like "https://chat.example.com", or "*" for all')
            if any(c in origin for c in " \t\r\n,") or "/" in rest:
                raise ValueError(f"{origin!r} is no origin: it has a scheme, a host and perhaps a port, nothing else")

    def __bool__(self) -> bool:
        return bool(self._origins)

    def lines(self, origin: str) -> bytes:
        """What every answer to a page of this origin has; b"" if it may not call."""
        if "*" in self._origins:
            allowed = "*"
        elif origin.lower() in self._origins:
            allowed = origin
        else:
            return b""
        vary = "" if allowed == "*" else "vary: Origin\r\n"
        return f"access-control-allow-origin: {allowed}\r\n{vary}access-control-expose-headers: {_EXPOSED}\r\n".encode()

    def preflight(self, method: str, wanted: str) -> bytes:
        """What the answer to a browser's question has beside `lines`. wanted: headers that the page wants to send."""
        # Keys come in headers that the page sets itself, never in cookies, so that no page can use another's.
        headers = wanted if len(wanted) <= _LONGEST and wanted.isprintable() and wanted.isascii() else ""
        allowed = f"access-control-allow-headers: {headers}\r\n" if headers else ""
        return (
            f"access-control-allow-methods: {method}\r\n{allowed}access-control-max-age: {_REMEMBERED}\r\n"
            "vary: Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
        ).encode()
