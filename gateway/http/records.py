"""Where requests are recorded when they have ended: metrics, the access log, and whoever else wants their outcomes."""

from collections.abc import Callable

from aiohttp import web

from gateway.core.metrics import Metrics
from gateway.core.outcome import Outcome
from gateway.http.access import AccessLog
from gateway.http.exchange import Exchange
from gateway.http.tally import Tally
from geniehive.kit.clock import Clock

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
        self._access = access
        self._also = also

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
        outcome = tally.outcome(operation, exchange.request_id, exchange.status)
        self.metrics.record(outcome)
        for take in self._also:
            take(outcome)
        if self._access is not None:
            self._access.served(outcome, "POST", tally.path)

    def _other(self, exchange: Exchange, request: web.BaseRequest, access: AccessLog) -> None:
        tally = exchange.tally
        # What follows the path may be secret.
        path = request.raw_path.partition("?")[0]
        if exchange.status >= 400 or path not in _QUIET:
            seconds = self._now() - tally.began
            access.other(exchange.request_id, tally.key_id, request.method, path, exchange.status, seconds)
