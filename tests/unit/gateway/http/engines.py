"""An engine that answers all alike, and a table with a model at it for all operations."""

from geniehive.rules.model import Resource
from geniehive.rules.operations import Operation
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.builders import endpoint, route, upstream


def everything(url: str, **fields: object) -> tuple[Resource, ...]:
    """A model "m" for all operations."""
    return (
        route("m", "a/e/m", operations=tuple(Operation)),
        endpoint("a/e", "m"),
        upstream("a/e", url, **fields),
    )


class Engine(RawServer):
    """Answers everything alike."""

    def __init__(self, body: bytes = b"{}", status: bytes = b"200 OK", extra: bytes = b"") -> None:
        super().__init__(self._answer)
        self.heads: list[bytes] = []
        self._told = body, status, extra

    async def _answer(self, peer: Peer) -> None:
        while True:
            head, _ = await peer.request()
            self.heads.append(head)
            await peer.answer(*self._told)

    @property
    def url(self) -> str:
        return str(self.origin)
