"""What follows when client keys come, expire or are revoked: the table has those that are good; callers are ended."""

from collections.abc import Callable, Iterable

from geniehive.rules.model import ClientKey
from geniehive_control.core import events as e
from geniehive_control.core.effects import Effect, EndCallers
from geniehive_control.core.events import Now
from geniehive_control.core.keys import Keys
from geniehive_control.core.records import StoredKey
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.table import Table

# How often expiry is compared with the wall clock at least, since that may be set.
LOOK_EVERY = 60.0


class Callers:
    """`due`: when `tick` is to be called, on the clock that only grows; None: no key expires.

    Resources that become other than they were are added to `changed`.
    """

    def __init__(
        self,
        configured: Iterable[ClientKey],
        stored: Iterable[StoredKey],
        table: Table,
        changed: Callable[[set[str]], None],
        now: Now,
    ) -> None:
        self.keys = Keys(configured, stored)
        self.due: float | None = None
        self._table = table
        self._changed = changed
        for key in self.keys.valid(now.wall):
            table.put_key(key)
        self._time(now)

    def key_created(self, event: e.KeyCreated, now: Now) -> list[Effect]:
        self.keys.add(event.key, event.created)
        if event.key in self.keys.valid(now.wall):
            self._changed(self._table.put_key(event.key))
        self._time(now)
        return []

    def key_revoked(self, event: e.KeyRevoked, now: Now) -> list[Effect]:
        if not self.keys.revoke(event.key_id):
            return []
        self._changed(self._table.drop_key(event.key_id))
        return [EndCallers(key_id=event.key_id, refusal=Refusal(Why.CREDENTIAL_REVOKED, "this key was revoked"))]

    def tick(self, now: Now) -> list[Effect]:
        """Drops the keys that have expired."""
        effects: list[Effect] = []
        valid = {key.key_id for key in self.keys.valid(now.wall)}
        for known in self.keys.all():
            key_id = known.key.key_id
            if key_id not in valid and (dropped := self._table.drop_key(key_id)):
                self._changed(dropped)
                refusal = Refusal(Why.CREDENTIAL_REFUSED, f"the key {key_id!r} has expired")
                effects.append(EndCallers(key_id=key_id, refusal=refusal))
        self._time(now)
        return effects

    def _time(self, now: Now) -> None:
        end = self.keys.next_expiry(now.wall)
        self.due = None if end is None else now.mono + min(max(0.0, end - now.wall), LOOK_EVERY)
