"""What a second machine needs to join: a token, and an address of control that answers."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from geniehive.kit import address, state

# Of the token that `up` makes by itself.
USES = 10
HOURS = 24
_CONNECT_SECONDS = 1.0


class Invitation(NamedTuple):
    """where: "HOST:PORT", the likeliest first."""

    token: str
    where: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Invitation(where={self.where})"


async def make(control: str, folder: Path) -> Invitation:
    """Asks control on this machine. folder: holds the key for it. Refused if there is no token to be had."""
    # Imported here: gRPC is large, and most starts of `up` have no need of it.
    import geniehive
    from geniehive.v1.admin_service_pb2 import CreateJoinTokenRequest

    request = CreateJoinTokenRequest(uses=USES)
    request.ttl.FromTimedelta(timedelta(hours=HOURS))
    async with geniehive.connect(control, key=state.local_secret(folder / "admin.key", "gha")) as hive:
        made = await hive.admin.CreateJoinToken(request)
    return Invitation(made.token, tuple(await answering(made.addresses)))


async def answering(where: Sequence[str]) -> list[str]:
    """The addresses at which something listens, in the order given; all of them if nothing is known to."""
    answers = await asyncio.gather(*map(_answers, where))
    return [one for one, answer in zip(where, answers, strict=True) if answer] or list(where)


async def _answers(where: str) -> bool:
    host, port = address.split(where)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True
