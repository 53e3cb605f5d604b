"""The way to control: plain on loopback, by a node key; or mutual TLS, by the certificate that joining gave."""

import asyncio
from datetime import UTC, datetime

import grpc

from geniehive import channels
from geniehive.kit import address, machine, tls_probe
from geniehive.kit.clock import Clock
from geniehive.membership import Credential
from geniehive.rules.identity import CONTROL_NAME

# Seconds: a look is one more handshake for a control that may be short of time.
_LOOK_EVERY = 10.0
_LOOK_WITHIN = 2.0

_EVERYWHERE = {"0.0.0.0", "::"}


class NoCertificate(Exception):
    """There is none to reach control by; the text says what to do."""


class Link:
    """target: "HOST:PORT". credential: by which control is reached; None: plain, by node_key; None sends none, as to a
    control that asks for none. join: the address at which machines join, for advice."""

    def __init__(
        self,
        target: str,
        clock: Clock,
        node_key: str | None = None,
        credential: Credential | None = None,
        join: str = "",
    ) -> None:
        self.target = target
        self.metadata = ((channels.NODE_KEY, node_key),) if node_key else ()
        self._clock = clock
        self._credential = credential
        self._join = join or "HOST:PORT"
        self._looked_at: float | None = None
        self._found: str | None = None

    @property
    def secured(self) -> bool:
        return self._credential is not None

    @property
    def advice(self) -> str:
        """How to get a certificate."""
        return f"join again: geniehive join {self._join} --gateway --token TOKEN"

    def channel(self) -> grpc.aio.Channel:
        """A new one, with the certificate of this moment. NoCertificate if there is none."""
        if self._credential is None:
            return channels.aio_channel(self.target)
        if self._credential.link is None:
            raise NoCertificate(f"this gateway has no certificate any more; {self.advice}")
        return channels.aio_channel(self.target, self._credential.link)

    async def why_not(self) -> str | None:
        """Why no connection comes about, in words that gRPC does not have; None if nothing is wrong with TLS."""
        if self._credential is None or not self._credential.chain:
            return None
        now = self._clock.now()
        if self._looked_at is None or now >= self._looked_at + _LOOK_EVERY:
            self._found = await self._look(self._credential)
            self._looked_at = now
        return self._found

    async def _look(self, credential: Credential) -> str | None:
        host, port = address.split(self.target)
        words = await tls_probe.why_not(host, port, credential.client_context(), CONTROL_NAME, _LOOK_WITHIN)
        if words is None or credential.expires is None or self._clock.wall() < credential.expires:
            return words
        day = datetime.fromtimestamp(credential.expires, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"{words} (by this machine's clock this gateway's certificate expired on {day}; if so, {self.advice})"

    async def advertised(self, url: str) -> str:
        """`url` as others reach it: a server on all addresses has the one that this machine has towards control."""
        scheme, _, where = url.partition("://")
        host, port = address.split(where)
        if host not in _EVERYWHERE:
            return url
        control, _ = address.split(self.target)
        return f"{scheme}://{address.join(await asyncio.to_thread(_local, control), port)}"


def _local(control: str) -> str:
    found = None if address.is_loopback(control) else address.local_towards(control)
    return found or next(iter(machine.addresses()), "127.0.0.1")
