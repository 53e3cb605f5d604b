"""The way to relays of other machines: mutual TLS, by this gateway's certificate."""

from collections.abc import Mapping
from typing import Any

from geniehive.kit import http1
from geniehive.membership import Credential
from geniehive.rules.identity import PeerKind, read_uri


class Relays:
    """credential: this gateway's, whose revoked serials are kept out, connections that stand included."""

    def __init__(self, credential: Credential) -> None:
        self._credential = credential
        self._client: http1.Client | None = None
        credential.listeners.append(self._changed)

    def client(self) -> http1.Client | None:
        """None while there is no certificate. The same one as long as there is."""
        if not self._credential.chain:
            return None
        if self._client is None:
            self._client = http1.Client(self._credential.client_context(), admit=self._admit)
        return self._client

    def _changed(self) -> None:
        if self._client is not None:
            self._client.recheck()

    def _admit(self, certificate: Mapping[str, Any]) -> str | None:
        """Of what TLS found to be of our CA, and to have the relay's name."""
        if f"{int(certificate.get('serialNumber', '0'), 16):x}" in self._credential.revoked:
            return "its certificate was revoked"
        names = certificate.get("subjectAltName", ())
        peers = [read_uri(value) for kind, value in names if kind == "URI"]
        if not any(peer is not None and peer.kind is PeerKind.NODE for peer in peers):
            return "its certificate is not that of a node"
        return None

    async def close(self) -> None:
        self._credential.listeners.remove(self._changed)
        if self._client is not None:
            await self._client.close()
