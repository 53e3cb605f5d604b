"""Does an engine that this machine has on loopback answer at the machine's own address too?

Then gateways of other machines can ask it themselves. What answers there must be what answers on loopback: the same
engine, with the same models.
"""

import asyncio
import logging
from collections.abc import Callable

from geniehive.kit.http1 import Client, Origin
from geniehive.rules.model import Asset
from geniehive_node.core.inventory import Seen
from geniehive_node.core.looks import Choice, LookFailed, Source
from geniehive_node.core.ways import STANDARD_BASE
from geniehive_node.engines.ask import Asker, Target
from geniehive_node.engines.identify import identify
from geniehive_node.engines.watcher import Watcher

log = logging.getLogger(__name__)

LOOK_EVERY = 30.0


def matters(source: Source) -> bool:
    """Whether gateways of other machines might ask this engine themselves, if it answers."""
    own = source.loopback and not source.hosted and not source.demo
    return own and not source.has_key and source.base_path == STANDARD_BASE and source.way is not Choice.RELAY


class Outside:
    """Of one source. watcher: looks at it on loopback."""

    def __init__(
        self, source: Source, target: Target, watcher: Watcher, client: Client, report: Callable[[Seen], None]
    ) -> None:
        self._source = source
        self._target = target
        self._watcher = watcher
        self._client = client
        self._report = report
        self._address: str | None = None
        self._wake = asyncio.Event()
        self._told: str | None = None

    def at(self, address: str | None) -> None:
        """This machine's address from now on; looks there at once."""
        if address != self._address:
            self._address = address
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._watcher.looked.wait()
        while True:
            self._wake.clear()
            found = await self._find()
            if found != self._told:
                self._told = found
                log.info("%s %s", self._source.key, f"also answers at {found}" if found else "answers on loopback only")
                self._report(Seen(source=self._source.key, url=found))
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _find(self) -> str | None:
        address, inside = self._address, self._watcher.snapshot
        if address is None or inside is None:
            return None
        origin = Origin(self._target.origin.scheme, address, self._target.origin.port)
        try:
            engine = await identify(Asker(self._client, Target(origin, self._target.base_path)), self._source)
            snapshot, _ = await engine.look()
        except LookFailed:
            return None
        except Exception:
            log.exception("cannot read what %s answers", origin)
            return None
        alike = snapshot.runtime == inside.runtime and _models(snapshot.assets) == _models(inside.assets)
        return str(origin) if alike else None


def _models(assets: tuple[Asset, ...]) -> set[str]:
    return {asset.upstream_name for asset in assets}
