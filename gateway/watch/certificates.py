"""This gateway's certificate, over the stream of routes: asked for when it is due, taken, kept; and whom to believe."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from math import inf

from geniehive.kit import tls
from geniehive.kit.clock import Clock
from geniehive.membership import Credential
from geniehive.rules.renewal import Held, Renewal, due_in
from geniehive.v1.credential_pb2 import Certificate, Trust

log = logging.getLogger(__name__)


class Certificates:
    """gateway_id: the name that the certificate is to have."""

    def __init__(self, credential: Credential, gateway_id: str, clock: Clock) -> None:
        self._credential = credential
        self._gateway_id = gateway_id
        self._clock = clock
        self._renewal = Renewal(wanted=True)
        self._news = asyncio.Event()
        if credential.not_before is not None and credential.expires is not None:
            renew_in = due_in(credential.not_before, credential.expires, tls.BACKDATED, clock.wall())
            self._hold(renew_in)

    def _hold(self, renew_in: float) -> None:
        peer, serial = self._credential.peer, self._credential.serial
        held = None
        if peer is not None and serial is not None:
            held = Held(cluster_id=peer.cluster_id, peer_id=peer.peer_id, serial=serial, renew_in=renew_in)
        self._renewal.hold(held, self._clock.now())

    def trust(self, told: Trust) -> None:
        """Control says whom to believe."""
        try:
            self._credential.believe(told.ca_bundle.encode(), told.revoked_serials)
        except OSError as error:
            log.error("cannot keep the cluster's CA: %s", error)
        except ValueError as error:
            log.error("control's word on whom to believe can't be used: %s", error)
            return
        if not self._credential.chain:
            self._hold(inf)
        self._renewal.told()
        self._news.set()

    def take(self, certificate: Certificate) -> None:
        """Control answers a request."""
        try:
            taken = self._credential.accept(certificate.chain.encode())
        except OSError as error:
            log.error("cannot keep the new certificate: %s", error)
            taken = True
        except ValueError:
            taken = False
        if not taken:
            log.error("control sent a certificate that is not for this gateway's request; it is asked again later")
            return
        assert self._credential.peer is not None
        log.info("there is a certificate for %s", self._credential.peer.words)
        self._hold(certificate.renew_after.ToNanoseconds() / 1e9)
        self._news.set()

    def lost(self) -> None:
        """The stream is over."""
        self._renewal.lost()

    async def run(self, ask: Callable[[str], Awaitable[None]]) -> None:
        """While a stream stands: sends a request, in PEM, by `ask` whenever one is due."""
        while True:
            at = self._due()
            now = self._clock.now()
            if at <= now:
                self._renewal.ask(now)
                await ask(self._credential.request(f"gateway {self._gateway_id}").decode("ascii"))
                continue
            try:
                async with asyncio.timeout(None if at == inf else at - now):
                    await self._news.wait()
                self._news.clear()
            except TimeoutError:
                pass

    def _due(self) -> float:
        peer = self._credential.peer
        at = self._renewal.at(peer.cluster_id if peer is not None else "", self._gateway_id)
        return inf if at is None else at
