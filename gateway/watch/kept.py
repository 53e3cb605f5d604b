"""The routing table on disk, so that a gateway that starts while control is away serves from it.

The file is one WatchRoutesResponse.Update with all resources, those of kinds that this version does not know included;
its last field, the nonce, is a digest of all bytes before it. It holds relay tokens and hashes of keys, hence 0600.
"""

import asyncio
import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

from geniehive.kit import state
from geniehive.kit.errors import UserError
from geniehive.v1 import routing_pb2
from geniehive.v1.routing_service_pb2 import WatchRoutesResponse

log = logging.getLogger(__name__)

Update = WatchRoutesResponse.Update

# At most one write in so many seconds, however often the table changes.
INTERVAL = 1.0
_DIGEST_SIZE = 16


class Broken(Exception):
    """The file can't be used; the text says why."""


class KeptTable:
    """The file `path`. `note` what changes; `run` writes."""

    def __init__(self, path: Path, interval: float = INTERVAL) -> None:
        self._path = path
        self._interval = interval
        # Each resource as an Update of its own: protobuf messages put one after the other are one message.
        self._pieces: dict[str, bytes] = {}
        self._cluster_id = ""
        self._dirty = asyncio.Event()
        self._failing = False
        self._writing: asyncio.Task[None] | None = None

    def load(self) -> Update | None:
        """What was kept; None if nothing was. Broken if the file is not whole or can't be read."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Broken(f"cannot read {self._path}: {error.strerror}") from error
        size = len(_sealed(b"")) if content else 0
        body = content[: len(content) - size]
        if not content or _sealed(body) != content:
            raise Broken(f"{self._path} is not whole")
        update = Update.FromString(content)
        update.ClearField("nonce")
        return update

    def forget(self) -> None:
        """All that was noted is of no use any more."""
        self._pieces.clear()
        self._cluster_id = ""
        self._dirty.set()

    def note(self, changed: Iterable[routing_pb2.Resource], removed: Iterable[str], cluster_id: str) -> None:
        """An update that was applied."""
        for name in removed:
            self._pieces.pop(name, None)
        for resource in changed:
            self._pieces[resource.name] = Update(changed=[resource]).SerializeToString()
        self._cluster_id = cluster_id or self._cluster_id
        self._dirty.set()

    async def run(self) -> None:
        """Writes what was noted, for as long as it is let."""
        self._make_folder()
        while True:
            await self._dirty.wait()
            await self.flush()
            await asyncio.sleep(self._interval)

    async def flush(self) -> None:
        """Writes now, if anything was noted since it was written last. Failures are logged, not raised."""
        if self._writing is not None:
            # Begun by a turn that was cancelled: a thread can't be, and must not overtake the next one.
            await asyncio.wait({self._writing})
        if not self._dirty.is_set():
            return
        self._dirty.clear()
        pieces = [*self._pieces.values(), Update(cluster_id=self._cluster_id).SerializeToString()]
        writing = self._writing = asyncio.create_task(asyncio.to_thread(self._write, pieces), name="write the table")
        # Looked at even if nobody is left who awaits it.
        writing.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            self._dirty.set()
            raise
        except OSError as error:
            # Serving goes on; what is lost is a start without control. The next turn tries again.
            self._dirty.set()
            if not self._failing:
                log.warning("cannot keep the table in %s: %s", self._path, error.strerror or error)
            self._failing = True
        else:
            if self._failing:
                log.info("the table is kept in %s again", self._path)
            self._failing = False
        self._writing = None

    def _write(self, pieces: list[bytes]) -> None:
        state.write_private(self._path, _sealed(b"".join(pieces)))

    def _make_folder(self) -> None:
        try:
            state.ensure_folder(self._path.parent)
        except UserError as error:
            log.warning("%s", error)


def _sealed(body: bytes) -> bytes:
    digest = hashlib.blake2b(body, digest_size=_DIGEST_SIZE).hexdigest()
    return body + Update(nonce=digest).SerializeToString()
