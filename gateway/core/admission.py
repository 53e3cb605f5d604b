"""Who may go to an endpoint that has a limit, and who is next once it is reached.

A pool is what shares one limit: a service's requests, or those of one of its models. Who finds no room takes a ticket
and waits in the pools of all its endpoints; whoever has waited longest in a pool gets what becomes free there. A fair
share among clients would be decided here too: `next` alone says whose turn it is.

Limits are soft: engines queue by themselves, every worker counts for itself, and a limit that was lowered takes effect
as requests end.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice

from gateway.core.asking import Ask
from gateway.core.flight import Flight
from gateway.core.plan import Plan, Pool

# How much the latest request weighs in the mean of a pool's durations.
_WEIGHT = 0.2
# Seconds to name while nothing has ended yet from which to know better, and most to name at all.
_UNKNOWN = 5.0
_LONGEST = 600.0
# Pools that are remembered while nothing runs there.
_POOLS_KEPT = 10_000


class Ticket:
    """A request that waits. flight: the turn that it got, which is counted already. wake: called when it got one."""

    __slots__ = ("ask", "flight", "number", "plan", "pools", "tried", "wake")

    def __init__(self, plan: Plan, tried: set[str], pools: Iterable[Pool], ask: Ask | None = None) -> None:
        self.ask = ask
        self.plan = plan
        self.tried = tried
        self.pools = frozenset(pool.key for pool in pools)
        self.flight: Flight | None = None
        # In the order of arrival.
        self.number = 0
        self.wake: Callable[[], object] = _nobody


def _nobody() -> None:
    return None


class _Used:
    """What is known of a pool. seconds: how long its requests take, 0 while none has ended."""

    __slots__ = ("limit", "running", "seconds", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.seconds = 0.0
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()


class Admission:
    """wait: seconds that a request is held at most. most: how many are held at once."""

    def __init__(self, wait: float = 30.0, most: int = 256) -> None:
        self.wait = wait
        self.waiting = 0
        self._most = most
        self._arrived = 0
        self._pools: dict[str, _Used] = {}

    def learn(self, pool: Pool) -> None:
        """A pool as the newest table has it: its limit is in force from now on."""
        used = self._pools.get(pool.key)
        if used is not None:
            used.limit = pool.limit
            return
        if len(self._pools) >= _POOLS_KEPT:
            self._pools = {key: used for key, used in self._pools.items() if used.running or used.waiting}
        self._pools[pool.key] = _Used(pool.limit)

    def has_room(self, pool: Pool) -> bool:
        used = self._pools.get(pool.key)
        return used is None or used.running < used.limit

    def took(self, pool: Pool) -> None:
        """A request goes there."""
        if pool.key not in self._pools:
            self.learn(pool)
        self._pools[pool.key].running += 1

    def gave_back(self, pool: Pool, seconds: float | None) -> None:
        """It has ended. seconds: how long it took, None if it was not answered to the end."""
        used = self._pools[pool.key]
        used.running -= 1
        if seconds is not None:
            used.seconds += (seconds - used.seconds) * (_WEIGHT if used.seconds else 1.0)

    def enqueue(self, ticket: Ticket) -> bool:
        """Whether it may wait."""
        if self.wait <= 0 or self.waiting >= self._most:
            return False
        self.waiting += 1
        self._arrived += 1
        ticket.number = self._arrived
        for key in ticket.pools:
            self._pools[key].waiting[ticket] = None
        return True

    def extend(self, ticket: Ticket, pools: Iterable[Pool]) -> None:
        """It waits in these too, at the place that is due to it: where it waited nobody can serve it now."""
        new = {pool.key for pool in pools} - ticket.pools
        ticket.pools |= new
        for key in new:
            used = self._pools[key]
            waiting = sorted((*used.waiting, ticket), key=lambda other: other.number)
            used.waiting = OrderedDict.fromkeys(waiting)

    def withdraw(self, ticket: Ticket) -> None:
        """It waits no longer."""
        self.waiting -= 1
        for key in ticket.pools:
            del self._pools[key].waiting[ticket]

    def next(self, pool: Pool, passed_over: int = 0) -> Ticket | None:
        """Whose turn it is there, if so many who come before have no use for it now; None: nobody else waits."""
        used = self._pools.get(pool.key)
        return next(islice(used.waiting, passed_over, None), None) if used is not None else None

    def running(self, pool: Pool) -> int:
        used = self._pools.get(pool.key)
        return used.running if used is not None else 0

    def free_in(self, pools: Iterable[Pool]) -> float:
        """Seconds until somebody who comes now may have a turn in one of them, by how long requests took there."""
        ahead: set[Ticket] = set()
        per_second = 0.0
        for used in [self._pools[key] for key in {pool.key for pool in pools} & self._pools.keys()]:
            ahead.update(used.waiting)
            if used.seconds > 0:
                per_second += used.limit / used.seconds
        return min(_LONGEST, (len(ahead) + 1) / per_second) if per_second else _UNKNOWN
