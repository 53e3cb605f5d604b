"""Listens, and drains when told to stop."""

import asyncio
import logging
import ssl
from collections.abc import Callable

from aiohttp import web

from gateway.core.errors import ApiError
from gateway.http.exchange import Exchange
from gateway.http.handler import Handler
from geniehive.kit import http_server
from geniehive.kit.http_answer import CLOSE
from geniehive.kit.http_server import Connection, fault

log = logging.getLogger(__name__)

# Longer than the proxies and clients that keep connections do, so that it is they who close them.
_KEEP_ALIVE = 120.0
_FIELD_LIMIT = 32 * 1024
# Unread bytes of a request body: from twice as many on, and what one read brings, the client has to wait.
_UNREAD = 32 * 1024
# For what was cancelled to end in order.
_LAST_SECONDS = 1.0


class _Connection(Connection):
    """A client's connection. Says malformed HTTP to be so in the shape of all our errors."""

    __slots__ = ("cluster_id",)

    cluster_id: Callable[[], str]

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        said = fault(message)
        log.info("refused a request that is not HTTP: %s", said)
        exchange = Exchange(request, "-", self.cluster_id(), keep_alive=False)
        exchange.error(ApiError(status, f"This is not HTTP/1.1 as it should be: {said}", "bad_request", close=True))
        return CLOSE


class HttpServer:
    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._manager = web.Server(handler, handler_cancellation=True)
        self._server: asyncio.Server | None = None

    async def start(self, listen: str, context: ssl.SSLContext | None = None, *, shared: bool = False) -> str:
        """Begins to listen on "HOST:PORT" and gives the URL, with the real port if 0 was asked for.

        context: for HTTPS. shared: with other processes.
        """
        advice = "Stop what uses it, or choose another address: --set listen=HOST:PORT"
        self._server, url = await http_server.listen(self._connection, listen, "the gateway", advice, context, shared)
        return url

    def _connection(self) -> _Connection:
        connection = _Connection(
            self._manager,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=_KEEP_ALIVE,
            max_field_size=_FIELD_LIMIT,
            read_bufsize=_UNREAD,
            outbox=self._handler.outbox,
        )
        connection.cluster_id = self._handler.cluster_id
        return connection

    async def drain(self, timeout: float) -> None:
        """Takes no new connections, lets open calls finish for so many seconds, then ends them. Idempotent."""
        self._handler.draining = True
        if self._server is None:
            return
        self._server.close()
        for connection in self._manager.connections:
            if connection in self._handler.open:
                connection.close()  # after its answer
            else:
                connection.force_close()
        if self._handler.open:
            log.info("%d calls are open; they get %g s to finish", len(self._handler.open), timeout)
            idle = asyncio.Event()
            self._handler.on_idle = idle.set
            try:
                async with asyncio.timeout(timeout):
                    await idle.wait()
            except TimeoutError:
                log.warning("%d calls did not finish in time and are ended", len(self._handler.open))
        left = list(self._handler.open.values())
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_LAST_SECONDS)
        await self._manager.shutdown(_LAST_SECONDS)
