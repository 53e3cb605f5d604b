"""Asks engines whether they are well, by the ways that gateways use."""

import ssl
from functools import lru_cache

import msgspec

from geniehive._version import __version__
from geniehive.kit import http1
from geniehive.kit.http1 import Client, Origin, Timeouts
from geniehive.rules import probe_paths
from geniehive.rules.identity import relay_name
from geniehive.rules.model import Relay, Service, Way
from geniehive_control.core.probes import Failure, Kind

# A relay asks the engine in our place, and needs time for it.
_DIRECT = Timeouts(connect=2.0, first_byte=2.0, idle=1.0, total=3.0)
_RELAYED = Timeouts(connect=2.0, first_byte=4.0, idle=1.0, total=5.0)
_ERROR = b"x-geniehive-relay-error"
# Of the relay, of the engine behind it.
_ENGINE_FAILS = {"connect-failed": Kind.CLOSED, "timeout": Kind.SILENT}
_ENGINE_UNWELL = frozenset({"unwell", "upstream-broke"})
# The relay is there, and can't say.
_NOTHING_SAID = frozenset({"busy", "stopping"})
_LONGEST_REASON = 200

_HEADERS: list[tuple[str, str]] = [
    ("accept", "application/json, text/plain"),
    ("accept-encoding", "identity"),
    ("user-agent", f"GenieHive-control/{__version__}"),
]

_split = lru_cache(maxsize=4096)(http1.split_url)


class Questions:
    """own: shows control's certificate; None where there is none, and no relay that asks for it.

    To be made in the loop that will use it.
    """

    def __init__(self, cluster_id: str, own: ssl.SSLContext | None = None) -> None:
        self._cluster_id = cluster_id
        # Nothing is kept: some engines have few threads for connections. With TLS that would cost a handshake each.
        self._client = Client(max_idle_per_origin=0)
        self._relays = Client(own, max_idle_per_origin=1) if own is not None else None

    async def ask(self, service: Service, way: Way, relay: Relay | None) -> Failure | None:
        """What is wrong, None if nothing is."""
        if way.direct_url is not None:
            return await self._ask_engine(service.runtime, way.direct_url)
        assert relay is not None
        failure: Failure | None = None
        for base_url in relay.base_urls:
            failure = await self._ask_relay(service, relay, base_url)
            if failure is None or failure.kind is not Kind.CLOSED or failure.engine:
                return failure
        return failure

    async def close(self) -> None:
        await self._client.close()
        if self._relays is not None:
            await self._relays.close()

    async def _ask_engine(self, runtime: str, url: str) -> Failure | None:
        asked = probe_paths.question(runtime)
        try:
            origin, base = _split(url)
            path = asked.path if asked.path is not None else "/v1/models"
            async with await self._client.request(origin, "GET", base + path, _HEADERS, None, _DIRECT) as response:
                body = await response.read(probe_paths.LONGEST)
        except (http1.HttpError, ValueError) as error:
            return _failure(error, _DIRECT)
        words = probe_paths.ailment(asked, response.status, body)
        return None if words is None else Failure(Kind.UNWELL, words)

    async def _ask_relay(self, service: Service, relay: Relay, base_url: str) -> Failure | None:
        headers = _HEADERS
        if relay.token is not None:
            headers = [*_HEADERS, ("authorization", f"Bearer {relay.token}")]
        try:
            origin, base = _split(base_url)
            client, origin = self._way_to(origin, relay)
            path = f"{base}/{service.service}{probe_paths.AT_RELAY}"
            async with await client.request(origin, "GET", path, headers, None, _RELAYED) as response:
                body = await response.read(probe_paths.LONGEST)
        except (http1.HttpError, ValueError) as error:
            return _failure(error, _RELAYED)
        word = (response.header(_ERROR) or b"").decode("latin-1")
        if response.status == 200 or word in _NOTHING_SAID:
            return None
        if not word:
            return Failure(Kind.UNWELL, "something else answers at the relay's address")
        kind = _ENGINE_FAILS.get(word, Kind.UNWELL)
        return Failure(kind, _message(body) or word, word in _ENGINE_FAILS or word in _ENGINE_UNWELL)

    def _way_to(self, origin: Origin, relay: Relay) -> tuple[Client, Origin]:
        if origin.scheme != "https" or self._relays is None:
            return self._client, origin
        return self._relays, origin._replace(tls_name=relay_name(self._cluster_id, relay.host_id))


def _failure(error: Exception, limits: Timeouts) -> Failure:
    match error:
        case http1.ConnectFailed() | http1.ConnectTimeout():
            return Failure(Kind.CLOSED, str(error))
        case http1.FirstByteTimeout() | http1.IdleTimeout() | http1.TotalTimeout():
            return Failure(Kind.SILENT, f"no answer within {limits.first_byte:g} s")
        case http1.HttpError():
            return Failure(Kind.UNWELL, str(error))
    return Failure(Kind.CLOSED, f"its address is malformed: {error}")


def _message(body: bytes) -> str:
    """Of a relay's error, as it can stand in one line."""
    try:
        text = str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, IndexError):
        return ""
    return "".join(c if c.isprintable() else " " for c in text[:_LONGEST_REASON])
