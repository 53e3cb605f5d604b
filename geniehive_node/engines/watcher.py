"""Looks at one source again and again, and reports each look."""

import asyncio
import logging
from collections.abc import Callable

from geniehive.kit.http1 import Client
from geniehive_node.core.inventory import Looked, Missed
from geniehive_node.core.looks import LookFailed, Snapshot, Source, Trouble
from geniehive_node.core.pulse import Pulse
from geniehive_node.engines.ask import FAR, NEAR, Asker, Engine, Target
from geniehive_node.engines.identify import identify

log = logging.getLogger(__name__)

Report = Callable[[Looked | Missed], None]


class Watcher:
    """Of one source. `looked` is set after the first look, however it went.

    snapshot: what the last look found, None if it failed.
    """

    def __init__(self, source: Source, target: Target, client: Client, interval: float, report: Report) -> None:
        self._source = source
        self._asker = Asker(client, target, FAR if source.hosted else NEAR)
        self._pulse = Pulse(source, interval)
        self._report = report
        self._engine: Engine | None = None
        self._told: tuple[Trouble | None, str] | None = None
        self.looked = asyncio.Event()
        self.snapshot: Snapshot | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            delay = self._pulse.after(await self._look())
            await asyncio.sleep(delay)

    async def _look(self) -> Trouble | None:
        try:
            try:
                report: Looked | Missed = await self._look_once()
            except LookFailed as error:
                if error.trouble is not Trouble.STRANGE or self._engine is None:
                    raise
                # Another engine may have taken the place of the one that was there.
                self._engine = None
                report = await self._look_once()
        except LookFailed as error:
            if error.trouble is not Trouble.SLOW:
                self._engine = None
            report = Missed(source=self._source.key, trouble=error.trouble, detail=error.message, runtime=error.runtime)
        except Exception as error:
            log.exception("cannot read what %s answers", self._source.key)
            self._engine = None
            report = Missed(source=self._source.key, trouble=Trouble.STRANGE, detail=f"cannot be read: {error!r}")
        trouble = report.trouble if isinstance(report, Missed) else None
        self.snapshot = report.snapshot if isinstance(report, Looked) else None
        self._tell(report, trouble)
        self._report(report)
        self.looked.set()
        return trouble

    async def _look_once(self) -> Looked:
        if self._engine is None:
            self._engine = await identify(self._asker, self._source)
        snapshot, figures = await self._engine.look()
        return Looked(source=self._source.key, snapshot=snapshot, figures=figures)

    def _tell(self, report: Looked | Missed, trouble: Trouble | None) -> None:
        """Logs what changed."""
        runtime = report.snapshot.runtime if isinstance(report, Looked) else ""
        told, self._told = self._told, (trouble, runtime)
        if told == self._told:
            return
        if isinstance(report, Looked):
            names = ", ".join(a.asset_id for a in report.snapshot.assets[:10]) or "no models"
            log.info("%s is %s with %s", self._source.key, runtime, names)
        elif self._source.expected or (told is not None and told[0] is None):
            log.warning("%s: %s", self._source.key, report.detail)
        else:
            log.debug("%s: %s", self._source.key, report.detail)
