"""The streams of gateways: who is there, what each is told next, and what is kept from them right after a restart."""

from collections.abc import Callable

from geniehive_control.core import events as e
from geniehive_control.core.effects import Changed, Effect, EndSubscriber, Note
from geniehive_control.core.events import Now
from geniehive_control.core.grace import Grace
from geniehive_control.core.members import Members
from geniehive_control.core.refusal import Refusal
from geniehive_control.core.subscriber import Subscriber
from geniehive_control.core.table import Table


class Gateways:
    """streams: by subscriber_id. grace: None once it is over. compiled: the table with every route as it is now."""

    def __init__(self, table: Table, compiled: Callable[[], Table], members: Members, grace: Grace) -> None:
        self.streams: dict[str, Subscriber] = {}
        self.grace: Grace | None = grace
        self._table = table
        self._compiled = compiled
        self._members = members

    def subscribed(self, event: e.Subscribed, now: Now) -> list[Effect]:
        try:
            self._members.check_gateway(event, now)
        except Refusal as refusal:
            return [EndSubscriber(subscriber_id=event.subscriber_id, refusal=refusal)]
        # Compared with routes as they are: one that is only not compiled yet must not look gone.
        subscriber = self.streams[event.subscriber_id] = Subscriber(event, self._compiled(), now.wall)
        told = self._members.tell_newcomer(event.subscriber_id, now)
        return [Changed(cluster=True), *told, *self._send(subscriber)]

    def acknowledged(self, event: e.Acknowledged, now: Now) -> list[Effect]:
        subscriber = self.streams.get(event.subscriber_id)
        if subscriber is None or not subscriber.answer(event.nonce, event.rejected):
            return []
        effects: list[Effect] = [Changed(cluster=True)]
        if event.rejected is not None:
            text = f"gateway {subscriber.gateway_id!r} refused its new table and keeps the one it had: {event.rejected}"
            effects.append(Note(text=text, grave=True))
        return effects + self._send(subscriber)

    def unsubscribed(self, event: e.Unsubscribed, now: Now) -> list[Effect]:
        return [] if self.streams.pop(event.subscriber_id, None) is None else [Changed(cluster=True)]

    def ejected(self, event: e.Ejected, now: Now) -> list[Effect]:
        who = event.gateway_id, event.instance_id
        told = [s for s in self.streams.values() if (s.gateway_id, s.instance_id) == who]
        if all(subscriber.ejected == event.endpoints for subscriber in told):
            return []
        for subscriber in told:
            subscriber.ejected = event.endpoints
        return [Changed(cluster=True)]

    def revoke(self, peer_id: str, refusal: Refusal) -> list[Effect]:
        """Ends every stream that was opened by a certificate of this gateway."""
        return [
            EndSubscriber(subscriber_id=subscriber.subscriber_id, refusal=refusal)
            for subscriber in self.streams.values()
            if subscriber.certificate is not None and subscriber.certificate.peer_id == peer_id
        ]

    def tell(self, names: set[str]) -> list[Effect]:
        """These resources became other than they were."""
        if self.grace is not None:
            self.grace.drop({name for name in names if name not in self._table})
        effects: list[Effect] = []
        for subscriber in self.streams.values():
            subscriber.touch(names)
            effects += self._send(subscriber)
        return effects

    def tell_what_was_withheld(self) -> list[Effect]:
        self.release()
        return [effect for subscriber in self.streams.values() for effect in self._send(subscriber)]

    def release(self) -> None:
        """Something need not be withheld any more; it goes with what is told next."""
        for subscriber in self.streams.values():
            subscriber.release()

    def forget(self, host_id: str) -> None:
        """An operator's doing, of which nothing is withheld."""
        if self.grace is not None:
            self.grace.forget(host_id)
        self.release()

    def _send(self, subscriber: Subscriber) -> list[Effect]:
        update = subscriber.next(self._table, None if self.grace is None else self.grace.withholds)
        return [] if update is None else [update]
