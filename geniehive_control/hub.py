"""The one owner of the core: feeds it events, runs its timers, and carries out its effects.

Streams get a Mailbox each and empty it at their own speed. Hosts are written behind, newest content only, in batches;
what an operator changes is written before it is answered. A database that fails holds up neither streams nor tables.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from geniehive.kit.backoff import Backoff
from geniehive.kit.clock import Clock
from geniehive.kit.tasks import Tasks
from geniehive.rules.identity import PeerKind
from geniehive.rules.model import BenchmarkSample, ClientKey, Service
from geniehive_control.core import benchmarks
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from geniehive_control.core.events import Event, Now
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.registry import Registry
from geniehive_control.mailbox import Mailbox
from geniehive_control.ports import Audit, Store, StoreUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

# Hosts per transaction: keeps the event loop and a lock on the database free.
BATCH = 50
RECONNECT_AFTER = 0.5
_LOAD = fx.TellLoad()


class Watch:
    """Objects that changed since a watcher last looked.

    key_id: of the key it was opened with, if any.
    changes: whether it is to be woken by changes, or only by its end.
    """

    def __init__(self, key_id: str | None, changes: bool) -> None:
        self.key_id = key_id
        self.changes = changes
        self.hosts: set[str] = set()
        self.services: set[str] = set()
        self.roles: set[str] = set()
        self.aliases: set[str] = set()
        self.benchmarks: set[str] = set()
        self.cluster = False
        self.ended = False
        self.refusal: Refusal | None = None
        self._something = asyncio.Event()

    def tell(self, changed: fx.Changed) -> None:
        if not self.changes:
            return
        self.hosts |= changed.hosts
        self.services |= changed.services
        self.roles |= changed.roles
        self.aliases |= changed.aliases
        self.benchmarks |= changed.benchmarks
        self.cluster = self.cluster or changed.cluster
        self._something.set()

    def end(self, refusal: Refusal) -> None:
        if not self.ended:
            self.ended = True
            self.refusal = refusal
            self._something.set()

    async def wait(self, seconds: float) -> bool:
        """Until something changed or the watch is to end. False if `seconds` passed before."""
        try:
            async with asyncio.timeout(seconds):
                await self._something.wait()
        except TimeoutError:
            return False
        if not self.ended:
            self._something.clear()
        return True

    def take(self) -> fx.Changed:
        """What changed; the watch then starts over."""
        taken = fx.Changed(
            hosts=frozenset(self.hosts),
            services=frozenset(self.services),
            roles=frozenset(self.roles),
            aliases=frozenset(self.aliases),
            benchmarks=frozenset(self.benchmarks),
            cluster=self.cluster,
        )
        self.hosts, self.services, self.cluster = set(), set(), False
        self.roles, self.aliases, self.benchmarks = set(), set(), set()
        return taken


class Hub:
    """`registry` may be read by anyone and is changed here alone."""

    def __init__(self, registry: Registry, store: Store, clock: Clock, backoff: Backoff | None = None) -> None:
        self.registry = registry
        self.tasks = Tasks()
        self.stopping = False
        self._store = store
        self._clock = clock
        self._backoff = backoff or Backoff(0.2, 5.0)
        self._sessions: dict[str, Mailbox[fx.Effect]] = {}
        self._subscribers: dict[str, Mailbox[fx.Effect]] = {}
        self._reporters: dict[str, Mailbox[int]] = {}
        self._watches: set[Watch] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = float("inf")
        self._hosts_to_store: dict[str, None] = {}
        self._seen_to_store: dict[str, float] = {}
        self._to_store = asyncio.Event()
        # One write at a time: a host that is being forgotten must not be written meanwhile.
        self._writing = asyncio.Lock()
        self._completing: set[asyncio.Task[Any]] = set()
        # Set whenever a stream or a change has ended.
        self._left = asyncio.Event()

    def start(self) -> None:
        self.tasks.start(self._write_behind(), "store writer")
        self._set_timer()

    def now(self) -> Now:
        return Now(self._clock.now(), self._clock.wall())

    def feed(self, event: Event) -> None:
        """Something happened."""
        for effect in self.registry.handle(event, self.now()):
            self._carry_out(effect)
        # A sign of life can only put off what is due.
        if type(event) not in e.SIGNS_OF_LIFE:
            self._set_timer()

    @property
    def store(self) -> Store:
        """For changes that have a module of their own; see `change` and `stored`."""
        return self._store

    # Streams.

    def open_session(self, event: e.SessionOpened) -> Mailbox[fx.Effect]:
        """A node's stream: Welcome, TellTrust, AnswerInventory, GiveCertificate. Refusal if control is stopping."""
        self._check_running()
        box = self._sessions[event.session_id] = Mailbox()
        self.feed(event)
        return box

    def close_session(self, session_id: str) -> None:
        self._left.set()
        if self._sessions.pop(session_id, None) is not None and not self.stopping:
            self.feed(e.SessionClosed(session_id=session_id))

    def subscribe(self, event: e.Subscribed) -> Mailbox[fx.Effect]:
        """A gateway's stream: TellTrust, Update, GiveCertificate, TellLoad. Refusal if control is stopping."""
        self._check_running()
        box = self._subscribers[event.subscriber_id] = Mailbox()
        self.feed(event)
        return box

    def unsubscribe(self, subscriber_id: str) -> None:
        self._left.set()
        if self._subscribers.pop(subscriber_id, None) is not None and not self.stopping:
            self.feed(e.Unsubscribed(subscriber_id=subscriber_id))

    @property
    def subscribed(self) -> bool:
        """Whether a gateway listens."""
        return bool(self._subscribers)

    def tell_loads(self) -> None:
        """There are newer figures of load, for every gateway; what they are is asked when they are written."""
        for subscriber in self._subscribers.values():
            subscriber.put("load", _LOAD)

    def open_reports(self, stream_id: str) -> Mailbox[int]:
        """A gateway's reports: sequences that are stored. Refusal if control is stopping."""
        self._check_running()
        box = self._reporters[stream_id] = Mailbox()
        return box

    def close_reports(self, stream_id: str) -> None:
        self._left.set()
        self._reporters.pop(stream_id, None)

    def give(self, certificate: fx.GiveCertificate) -> None:
        """Answers a request on a stream of either kind; without effect if the stream has ended."""
        for box in self._boxes(certificate.stream_id):
            box.put("certificate", certificate)

    def open_watch(self, key_id: str | None, changes: bool = True) -> Watch:
        """A tool's stream. Refusal if control is stopping."""
        self._check_running()
        watch = Watch(key_id, changes)
        self._watches.add(watch)
        return watch

    def close_watch(self, watch: Watch) -> None:
        self._watches.discard(watch)
        self._left.set()

    # What operators change.

    async def create_key(self, key: ClientKey, caller: str) -> None:
        """StoreUnavailable: it does not exist."""
        now = self.now()
        audit = Audit(at=now.wall, caller=caller, action="create key", target=key.key_id)

        async def create() -> None:
            await self._write(self._store.add_key(key, now.wall, audit))
            self.feed(e.KeyCreated(key=key, created=now.wall))

        await self._complete(create())

    async def revoke_key(self, key_id: str, caller: str) -> None:
        """Refusal: OBJECT_NOT_FOUND, OWNED_BY_FILE. StoreUnavailable: it is still good."""
        known = self.registry.keys.get(key_id)
        if known is None:
            raise Refusal(Why.OBJECT_NOT_FOUND, f"there is no client key {key_id!r}", name=key_id)
        if known.key.configured:
            text = f"client key {key_id!r} comes from control's configuration; remove it there and restart control"
            raise Refusal(Why.OWNED_BY_FILE, text, file="control's configuration")
        audit = Audit(at=self.now().wall, caller=caller, action="revoke key", target=key_id)

        async def revoke() -> None:
            await self._write(self._store.revoke_key(key_id, audit))
            self.feed(e.KeyRevoked(key_id=key_id))

        await self._complete(revoke())

    async def forget_host(self, host_id: str, caller: str, *, left: bool = False) -> None:
        """left: it says so itself. Refusal: OBJECT_NOT_FOUND. StoreUnavailable: it is still known."""
        action = "leave" if left else "forget host"
        audit = Audit(at=self.now().wall, caller=caller, action=action, target=host_id)

        async def forget() -> None:
            joined = self.registry.trust.live(PeerKind.NODE, host_id, audit.at)
            if self.registry.host(host_id) is None and not joined:
                raise Refusal(Why.OBJECT_NOT_FOUND, f"there is no host {host_id!r}", name=host_id)
            if not left:
                await self._revoke_clones(host_id, audit)
            await self.stored(self._store.forget_host(host_id, audit))
            self._hosts_to_store.pop(host_id, None)
            self.feed(e.HostForgotten(host_id=host_id, left=left))

        await self.change(forget)

    async def revoke_peer(self, kind: PeerKind, peer_id: str, caller: str) -> None:
        """Refusal: OBJECT_NOT_FOUND. StoreUnavailable: its certificates are still good."""
        target = f"{kind.value} {peer_id}"
        audit = Audit(at=self.now().wall, caller=caller, action="revoke certificates", target=target)

        async def revoke() -> None:
            if not self.registry.trust.live(kind, peer_id, audit.at):
                text = f"{kind.value} {peer_id!r} has no certificate that could be revoked"
                raise Refusal(Why.OBJECT_NOT_FOUND, text, name=peer_id)
            if kind is PeerKind.NODE:
                await self._revoke_clones(peer_id, audit)
            await self.stored(self._store.revoke_peer(kind, peer_id, audit))
            self.feed(e.PeerRevoked(kind=kind, peer_id=peer_id))

        await self.change(revoke)

    async def _revoke_clones(self, host_id: str, why: Audit) -> None:
        """Who had a host's key could get certificates under other names by it: they go with it."""
        for clone in self.registry.trust.clones(host_id, why.at):
            target = f"{PeerKind.NODE.value} {clone}, a copy of {host_id}"
            audit = Audit(at=why.at, caller=why.caller, action="revoke certificates", target=target)
            await self.stored(self._store.revoke_peer(PeerKind.NODE, clone, audit))
            self.feed(e.PeerRevoked(kind=PeerKind.NODE, peer_id=clone))

    async def revoke_token(self, token_id: str, caller: str) -> None:
        """Refusal: OBJECT_NOT_FOUND. StoreUnavailable: it can still be used."""
        audit = Audit(at=self.now().wall, caller=caller, action="revoke join token", target=token_id)

        async def revoke() -> None:
            self.registry.tokens.get(token_id, audit.at)
            await self.stored(self._store.revoke_token(token_id, audit))
            self.feed(e.TokenRevoked(token_id=token_id))

        await self.change(revoke)

    async def record_samples(self, samples: Sequence[BenchmarkSample], caller: str) -> list[Refusal | None]:
        """What became of each, in order; None: stored, now or earlier. Refusal: FIELD_INVALID. StoreUnavailable: none
        of them is."""

        async def record() -> list[Refusal | None]:
            now = self.now()
            refusals = benchmarks.judge(samples, self._offered, now.wall)
            good = [sample for sample, refusal in zip(samples, refusals, strict=True) if refusal is None]
            if not good:
                return refusals
            target = ", ".join(sorted({sample.service for sample in good}))
            audit = Audit(at=now.wall, caller=caller, action="record benchmark samples", target=target)
            new = await self.stored(self._store.add_samples(good, benchmarks.MOST_KEPT, audit))
            # Of two with one id the first was stored.
            added = {sample.sample_id: sample for sample in reversed(good) if sample.sample_id in new}
            if added:
                self.feed(e.SamplesStored(samples=tuple(added.values())))
            return refusals

        return await self.change(record)

    def _offered(self, name: str) -> Service | None:
        found = self.registry.service(name)
        return None if found is None else found[1]

    async def samples(self, query: benchmarks.Query) -> list[BenchmarkSample]:
        """StoreUnavailable."""
        return await self._store.samples(query)

    async def change(self, steps: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Does `steps` while nothing else is written, and to their end even if the caller leaves."""

        async def alone() -> T:
            async with self._writing:
                return await steps()

        return await self._complete(alone())

    # The end.

    def end_streams(self) -> None:
        """Says goodbye to everyone. What closes from now on is control's own doing and says nothing about hosts."""
        self.stopping = True
        for session in self._sessions.values():
            session.end()
        refusal = Refusal(Why.CONTROL_UNAVAILABLE, "control is stopping", retry_after=RECONNECT_AFTER)
        for subscriber in self._subscribers.values():
            subscriber.end(refusal)
        for reporter in self._reporters.values():
            reporter.end(refusal)
        for watch in self._watches:
            watch.end(refusal)

    async def until_idle(self, seconds: float) -> None:
        """Until every stream has ended and every change is done, for at most so long."""
        try:
            async with asyncio.timeout(seconds):
                while self._sessions or self._subscribers or self._reporters or self._watches or self._completing:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            log.warning("stopping with streams that did not end in %g s", seconds)

    async def close(self, seconds: float) -> None:
        """Writes what is left, for at most so long."""
        if self._timer is not None:
            self._timer.cancel()
        await self.tasks.close()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*self._completing, return_exceptions=True)
                if seen := {host.host_id: host.last_seen for host in self.registry.hosts() if host.session is not None}:
                    self._seen_to_store |= seen
                while self._hosts_to_store or self._seen_to_store:
                    await self._write_batch()
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("stopping with unwritten hosts; they register again: %s", error)

    # Effects.

    def _carry_out(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Welcome():
                self._sessions[effect.session_id].put("welcome", effect)
            case fx.AnswerInventory():
                if (session := self._sessions.get(effect.session_id)) is not None:
                    session.put("inventory", effect)
            case fx.EndSession():
                if (session := self._sessions.get(effect.session_id)) is not None:
                    session.end(effect.refusal)
            case fx.TellTrust():
                everybody = [*self._sessions.values(), *self._subscribers.values()]
                for box in everybody if effect.stream_id is None else self._boxes(effect.stream_id):
                    box.put("trust", effect)
            case fx.EndSubscriber():
                if (subscriber := self._subscribers.get(effect.subscriber_id)) is not None:
                    subscriber.end(effect.refusal)
            case fx.Update():
                if (subscriber := self._subscribers.get(effect.subscriber_id)) is not None:
                    subscriber.put("update", effect)
            case fx.Changed():
                for watch in self._watches:
                    watch.tell(effect)
            case fx.EndCallers():
                for watch in self._watches:
                    if watch.key_id == effect.key_id:
                        watch.end(effect.refusal)
            case fx.StoreHost():
                self._hosts_to_store[effect.host_id] = None
                self._to_store.set()
            case fx.StoreSeen():
                self._seen_to_store |= effect.seen
                self._to_store.set()
            case fx.Note():
                log.log(logging.WARNING if effect.grave else logging.INFO, "%s", effect.text)

    def _boxes(self, stream_id: str) -> list[Mailbox[fx.Effect]]:
        found = (self._sessions.get(stream_id), self._subscribers.get(stream_id))
        return [box for box in found if box is not None]

    def _set_timer(self) -> None:
        due = self.registry.deadline
        # A timer that comes too early costs one Tick; renewing it with every lease would cost more.
        if self._timer is not None and self._timer_due <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        delay = max(0.0, due - self._clock.now())
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.feed(e.Tick())

    # The database.

    async def _write_behind(self) -> None:
        while True:
            if self.registry.store_failure is None:
                await self._to_store.wait()
            else:
                await asyncio.sleep(self._backoff.next())
            try:
                if self._hosts_to_store or self._seen_to_store:
                    await self._write_batch()
                else:
                    self._to_store.clear()
                    if self.registry.store_failure is not None:
                        await self._write(self._store.ping())
            except StoreUnavailable as error:
                log.debug("not stored: %s", error)

    async def _write_batch(self) -> None:
        async with self._writing:
            batch = list(self._hosts_to_store)[:BATCH]
            kept = {host_id: self.registry.to_store(host_id) for host_id in batch}
            if hosts := [item[0] for item in kept.values() if item is not None]:
                await self.stored(self._store.put_hosts(hosts))
            for host_id, item in kept.items():
                # Changed meanwhile: it is asked for again.
                newer = self.registry.to_store(host_id)
                if item is None or newer is None or newer[1] == item[1]:
                    self._hosts_to_store.pop(host_id, None)
                if item is not None:
                    self.feed(e.HostStored(host_id=host_id, change=item[1]))
            seen = dict(list(self._seen_to_store.items())[: 5 * BATCH])
            if seen:
                await self.stored(self._store.put_seen(seen))
                for host_id, at in seen.items():
                    if self._seen_to_store.get(host_id) == at:
                        del self._seen_to_store[host_id]

    async def _write(self, step: Coroutine[Any, Any, T]) -> T:
        try:
            async with self._writing:
                return await self.stored(step)
        finally:
            step.close()

    async def stored(self, step: Coroutine[Any, Any, T]) -> T:
        """Runs one step of the store, within `change`, and tells the core how that went."""
        try:
            result = await step
        except StoreUnavailable as error:
            self.feed(e.StoreFailed(message=str(error)))
            self._to_store.set()
            raise
        self._backoff.reset()
        if self.registry.store_failure is not None:
            self.feed(e.StoreFailed(message=None))
        return result

    async def _complete(self, step: Coroutine[Any, Any, T]) -> T:
        """Runs `step` to its end even if the caller leaves: what is stored must also be in force."""
        task = asyncio.create_task(step)
        self._completing.add(task)
        task.add_done_callback(self._completed)
        return await asyncio.shield(task)

    def _completed(self, task: asyncio.Task[Any]) -> None:
        self._completing.discard(task)
        self._left.set()
        if not task.cancelled():
            # Looked at, so that an error whose caller has left is not reported as lost.
            task.exception()

    def _check_running(self) -> None:
        if self.stopping:
            raise Refusal(Why.CONTROL_UNAVAILABLE, "control is stopping", retry_after=RECONNECT_AFTER)
