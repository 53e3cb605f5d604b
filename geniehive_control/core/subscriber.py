"""What one gateway holds, and the next update for it.

One update is in flight at most; what changes meanwhile is merged into the next. What a gateway refused is not sent
again until its content is another.
"""

from collections.abc import Callable, Mapping

from geniehive.rules.model import Resource
from geniehive_control.core.effects import Update
from geniehive_control.core.events import Subscribed
from geniehive_control.core.table import Table

# Name to version; None: gone.
_Contents = dict[str, str | None]

# Whether a gateway that holds a resource must not be told yet that it became this, or vanished.
Withhold = Callable[[str, Resource | None], bool]


class Subscriber:
    """One stream of a gateway. `connected`: seconds since the epoch."""

    def __init__(self, event: Subscribed, table: Table, connected: float) -> None:
        self.subscriber_id = event.subscriber_id
        self.gateway_id = event.gateway_id
        self.instance_id = event.instance_id
        self.gateway_version = event.gateway_version
        self.base_url = event.base_url
        # By which it proved itself; None: by a node key.
        self.certificate = event.certificate
        self.connected = connected
        # The gateway's words, if its last answer was a refusal.
        self.rejected: str | None = None
        # What it leaves out by itself.
        self.ejected: tuple[str, ...] = ()
        self._held: dict[str, str] = dict(event.held)
        self._refused: _Contents = {}
        self._dirty: set[str] = {*table, *event.held}
        self._withheld: set[str] = set()
        self._flight: tuple[str, _Contents] | None = None
        self._sent = 0

    @property
    def current(self) -> bool:
        """Whether the gateway has all that control has."""
        return self._sent > 0 and self._flight is None and not self._dirty and not self._refused

    @property
    def held(self) -> Mapping[str, str]:
        return self._held

    def touch(self, names: set[str]) -> None:
        """These resources are other than they were."""
        self._dirty |= names

    def release(self) -> None:
        """What was withheld is to be looked at again."""
        self._dirty |= self._withheld
        self._withheld = set()

    def answer(self, nonce: str, rejected: str | None) -> bool:
        """The gateway's answer. False if it is to nothing that is in flight, which is passed over."""
        if self._flight is None or self._flight[0] != nonce:
            return False
        contents, self._flight = self._flight[1], None
        self.rejected = rejected
        if rejected is not None:
            self._refused |= contents
            return True
        for name, version in contents.items():
            self._refused.pop(name, None)
            if version is None:
                self._held.pop(name, None)
            else:
                self._held[name] = version
        return True

    def next(self, table: Table, withhold: Withhold | None) -> Update | None:
        """What to send now; None if an update is unanswered, or there is nothing to say."""
        if self._flight is not None:
            return None
        changed: list[Resource] = []
        contents: _Contents = {}
        for name in sorted(self._dirty):
            version = table.version(name)
            held = self._held.get(name)
            if version == held:
                self._refused.pop(name, None)
                continue
            if name in self._refused and self._refused[name] == version:
                continue
            resource = table.get(name)
            if withhold is not None and held is not None and withhold(name, resource):
                self._withheld.add(name)
                continue
            self._refused.pop(name, None)
            contents[name] = version
            if resource is not None:
                changed.append(resource)
        self._dirty = set()
        # The first update comes even if it is empty: it tells the gateway that it is current.
        if not contents and self._sent:
            return None
        self._sent += 1
        nonce = str(self._sent)
        self._flight = nonce, contents
        removed = tuple(name for name, version in contents.items() if version is None)
        return Update(subscriber_id=self.subscriber_id, nonce=nonce, changed=tuple(changed), removed=removed)
