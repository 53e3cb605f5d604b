"""This machine's address as others see it, looked at again and again: it changes with DHCP, suspend and travel."""

import asyncio
import ipaddress
import logging
from collections.abc import Callable

from geniehive.kit import address, machine

log = logging.getLogger(__name__)

LOOK_EVERY = 0.5


class Outlook:
    """towards: control's host. ipv6: which family it must be, since the relay listens there; None: either.

    address: as found last; None: none was found yet.
    """

    def __init__(self, towards: str, ipv6: bool | None = None, every: float = LOOK_EVERY) -> None:
        self._towards = None if address.is_loopback(towards) else towards
        self._ipv6 = ipv6
        self._every = every
        self._cut_off = False
        self.address: str | None = None

    async def run(self, changed: Callable[[], None]) -> None:
        """Until cancelled. changed() is called whenever `look` has news."""
        while True:
            await asyncio.sleep(self._every)
            if await self.look():
                changed()

    async def look(self) -> bool:
        """Whether there is another address, or one again after there was none."""
        found = await self._find()
        if found is None:
            # What others were told may still be right when there is a way out again.
            if not self._cut_off:
                self._cut_off = True
                log.warning("this machine has no way to the network now")
            return False
        if found == self.address and not self._cut_off:
            return False
        before, self.address = self.address, found
        self._cut_off = False
        if before is None:
            log.info("this machine's address is %s", found)
        elif before == found:
            log.warning("this machine has a way to the network again, at %s", found)
        else:
            log.warning("this machine's address changed from %s to %s", before, found)
        return True

    async def _find(self) -> str | None:
        if self._towards is not None:
            if _is_number(self._towards):
                local = address.local_towards(self._towards)
            else:
                local = await asyncio.to_thread(address.local_towards, self._towards)
            if local is None or self._fits(local):
                return local
        for local in await asyncio.to_thread(machine.addresses):
            if self._fits(local):
                return local
        # In no network, this machine's own gateway finds the relay all the same.
        return None if self._towards is not None else "::1" if self._ipv6 else "127.0.0.1"

    def _fits(self, local: str) -> bool:
        return self._ipv6 is None or self._ipv6 == (":" in local)


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
