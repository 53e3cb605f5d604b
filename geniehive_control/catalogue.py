"""The file of roles and aliases: read at start, and again whenever it has changed; refused as a whole or taken.

What was taken last is kept in the state folder, so that a file that somebody has broken since does not take the roles
with it when control restarts.
"""

import asyncio
import logging
from pathlib import Path

from geniehive import catalogue as texts
from geniehive.kit import state
from geniehive.kit.config import ConfigError
from geniehive.kit.errors import UserError
from geniehive_control.core import events as e
from geniehive_control.core.refusal import Refusal
from geniehive_control.hub import Hub

log = logging.getLogger(__name__)

# How often it is looked at, in seconds. A file counts once two looks find it alike: it may be in the midst of being
# written, and half a catalogue can be a good one.
EVERY = 1.0

_Look = tuple[int, int, int] | None


class CatalogueFile:
    """kept: where the last good text stays."""

    def __init__(self, hub: Hub, file: Path, kept: Path, every: float = EVERY) -> None:
        self._hub = hub
        self._file = file
        self._kept = kept
        self._every = every
        # How the file looked last, how it did when it was read last, and what was wrong with it then.
        self._seen: _Look = None
        self._read: _Look = None
        self._fault: str | None = None

    async def start(self) -> None:
        """UserError if neither the file nor what was kept of it can be used."""
        self._seen = self._read = await asyncio.to_thread(self._stat)
        try:
            await self._take(self._file)
        except ConfigError as error:
            self._fault = str(error)
            try:
                await self._take(self._kept)
            except ConfigError:
                raise UserError(f"the catalogue can't be used: {error}") from error
            self._hub.feed(e.CatalogueRefused(fault=self._fault))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            await self.look()

    async def look(self) -> None:
        """Once."""
        before, self._seen = self._seen, await asyncio.to_thread(self._stat)
        if self._seen != before or self._seen == self._read:
            return
        self._read = self._seen
        try:
            await self._take(self._file)
        except ConfigError as error:
            if self._fault != str(error):
                self._fault = str(error)
                self._hub.feed(e.CatalogueRefused(fault=self._fault))
        else:
            self._fault = None

    async def _take(self, file: Path) -> None:
        """ConfigError if it can't be used."""
        found = await asyncio.to_thread(_parse, file, str(self._file))
        # Nothing may change between the check and the event, so that nothing is waited for.
        try:
            self._hub.registry.catalogue.check_file(found.roles, found.aliases)
        except Refusal as refusal:
            at = refusal.details["field"]
            why = refusal.message.removeprefix(f"{at}: ")
            raise texts.fault(found.text, str(self._file), at, why) from refusal
        self._hub.feed(e.CatalogueRead(file=str(self._file), roles=found.roles, aliases=found.aliases))
        if file == self._file:
            try:
                await asyncio.to_thread(state.write_private, self._kept, found.text.encode())
            except OSError as error:
                log.warning("no copy of the catalogue can be kept for the next start: %s", error)

    def _stat(self) -> _Look:
        """None: it is not there, or may not be looked at."""
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _parse(file: Path, name: str) -> texts.Catalogue:
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(texts.LONGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise ConfigError(f"{name}: cannot be read: {why or error}") from error
    return texts.parse(text, name)
