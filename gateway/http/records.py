"""Where requests are recorded when they have ended: metrics, the access log, and whoever else wants their outcomes.

What has ended is recorded some dozens at a time: one after another each costs a third of what it costs alone, between
two requests, when the processor has to fetch all of this code anew.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web

from gateway.core.metrics import Metrics
from gateway.core.outcome import Outcome
from gateway.http.access import AccessLog
from gateway.http.exchange import Exchange
from gateway.http.tally import Tally
from geniehive.kit.clock import Clock

# Requests that are recorded together at most, and seconds that one may wait for that.
_TOGETHER = 64
_SOON = 0.1
# Asked all the time by machines; told of in the log only when something is wrong.
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


class Records:
    """access: None for no log. also: takes the outcome of each call to a model."""

    def __init__(
        self,
        metrics: Metrics,
        clock: Clock,
        access: AccessLog | None = None,
        also: tuple[Callable[[Outcome], None], ...] = (),
    ) -> None:
        self.metrics = metrics
        self._now = clock.now
        self._wall = clock.wall
        self._access = access
        self._also = also
        # With the request's id, the status as sent, and when it ended on the clock that only grows.
        self._ended: list[tuple[Tally, str, int, float]] = []
        self._timer: asyncio.TimerHandle | None = None

    def began(self) -> Tally:
        return Tally(self._now)

    def ended(self, exchange: Exchange, request: web.BaseRequest) -> None:
        """Whatever became of it."""
        tally = exchange.tally
        operation = tally.operation
        if operation is None:
            if self._access is not None:
                self._other(exchange, request, self._access)
            return
        ended = self._ended
        ended.append((tally, exchange.request_id, exchange.status, self._now()))
        if len(ended) >= _TOGETHER:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SOON, self._due)

    def flush(self) -> None:
        """Records all that has ended."""
        if not self._ended:
            return
        ended, self._ended = self._ended, []
        outcomes = [tally.outcome(request_id, status, at) for tally, request_id, status, at in ended]
        record, access = self.metrics.record, self._access
        for outcome in outcomes:
            record(outcome)
        for take in self._also:
            for outcome in outcomes:
                take(outcome)
        if access is not None:
            since = self._wall() - self._now()
            for outcome, (tally, _, _, at) in zip(outcomes, ended, strict=True):
                access.served(outcome, tally.path, since + at)

    def _due(self) -> None:
        self._timer = None
        self.flush()

    def _other(self, exchange: Exchange, request: web.BaseRequest, access: AccessLog) -> None:
        tally = exchange.tally
        # What follows the path may be secret.
        path = request.raw_path.partition("?")[0]
        if exchange.status >= 400 or path not in _QUIET:
            seconds = self._now() - tally.began
            self.flush()
            access.other(exchange.request_id, tally.key_id, request.method, path, exchange.status, seconds)
