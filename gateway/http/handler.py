"""Which path is what, who may call it, and what becomes of errors: all answers are OpenAI's JSON."""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable
from urllib.parse import unquote

from aiohttp import web

from gateway.core import api, errors, ids, keys, listing
from gateway.core.errors import ApiError
from gateway.core.table import NotFound, Table
from gateway.http.calls import Calls, LookUp
from gateway.http.exchange import JSON, Exchange, Refusal
from geniehive.kit.http_answer import CLOSE
from geniehive.rules.model import Scope
from geniehive.rules.names import is_model_name
from geniehive.rules.operations import SERVED, Operation

log = logging.getLogger(__name__)

_CALLS = {path: call for path, call in api.CALLS.items() if call.operation in SERVED}
_MODELS = "/v1/models"


class Handler:
    """Called by aiohttp for each request.

    auth: whether clients need a key. client_idle: seconds that a client may send or take nothing.
    """

    def __init__(self, table: Table, calls: Calls, look_up: LookUp, *, auth: bool, client_idle: float | None) -> None:
        self._table = table
        self._calls = calls
        self._look_up = look_up
        self._auth = auth
        self._client_idle = client_idle
        self._id_prefix = f"req-{secrets.token_hex(6)}-"
        self._ids = itertools.count(1)
        self._listed: tuple[int, bytes] = (-1, b"")
        # No new work: answers close their connections, and /readyz says no.
        self.draining = False
        # Connections with a request under way, and what serves them.
        self.open: dict[web.RequestHandler, asyncio.Task[None]] = {}
        # Called when the last of them has ended.
        self.on_idle: Callable[[], None] = lambda: None

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        given = request.headers.get("X-Request-Id")
        request_id = given if given and ids.is_sane(given) else f"{self._id_prefix}{next(self._ids)}"
        exchange = Exchange(request, request_id, self._table.cluster_id, not self.draining, self._client_idle)
        connection = request.protocol
        self.open[connection] = request.task
        try:
            await self._answer(exchange, request)
        except Refusal as refusal:
            self._refuse(exchange, refusal.error)
        except ConnectionError:
            return CLOSE  # the client left
        except Exception:
            log.exception("request %s failed in a way that nothing expected", request_id)
            self._refuse(exchange, errors.internal(request_id))
        finally:
            del self.open[connection]
            if not self.open:
                self.on_idle()
        return exchange.result

    def cluster_id(self) -> str:
        """Empty while it is not known."""
        return self._table.cluster_id

    def _refuse(self, exchange: Exchange, error: ApiError) -> None:
        if exchange.started:
            exchange.abort()
        elif exchange.alive:
            exchange.error(error)

    async def _answer(self, exchange: Exchange, request: web.BaseRequest) -> None:
        path = _path(request)
        call = _CALLS.get(path)
        if call is not None:
            if request.method != "POST":
                raise Refusal(errors.wrong_method(request.method, path, "POST"))
            key_id = self._authenticate(request, keys.TO_INFER)
            await self._calls.serve(exchange, request, call, key_id)
        elif path == _MODELS:
            _must_get(request, path)
            self._authenticate(request, keys.TO_LOOK)
            exchange.whole(200, JSON, self._models())
        elif path.startswith(_MODELS + "/") and len(path) > len(_MODELS) + 1:
            _must_get(request, path)
            key_id = self._authenticate(request, keys.TO_LOOK)
            exchange.whole(200, JSON, await self._model(unquote(path[len(_MODELS) + 1 :]), key_id))
        elif path == "/healthz":
            _must_get(request, path)
            exchange.whole(200, JSON, b'{"status":"ok"}')
        elif path == "/readyz":
            _must_get(request, path)
            if error := self._not_ready():
                raise Refusal(error)
            exchange.whole(200, JSON, b'{"status":"ready"}')
        else:
            raise Refusal(errors.unknown_path(request.method, path))

    def _authenticate(self, request: web.BaseRequest, needed: frozenset[Scope]) -> str:
        """The id of the caller's key, "" where authentication is off."""
        if not self._auth:
            return ""
        if not self._table.ready:
            raise Refusal(errors.not_ready())
        found = keys.authenticate(self._table.key, _key(request), needed)
        if not isinstance(found, keys.Caller):
            raise Refusal(errors.unauthenticated(found))
        return found.key_id

    def _models(self) -> bytes:
        if not self._table.ready:
            raise Refusal(errors.not_ready())
        generation, listed = self._listed
        if generation != self._table.generation:
            listed = listing.models(self._table)
            self._listed = self._table.generation, listed
        return listed

    async def _model(self, name: str, key_id: str) -> bytes:
        if not self._table.ready:
            raise Refusal(errors.not_ready())
        found = listing.model(self._table, name)
        if found is None and is_model_name(name) and (learned := await self._look_up(name, key_id)):
            found = listing.model(learned, name)
        if found is None:
            missing = self._table.find(name, Operation.CHAT)
            raise Refusal(errors.unresolved(name, None, missing if isinstance(missing, NotFound) else NotFound()))
        return found

    def _not_ready(self) -> ApiError | None:
        if self.draining:
            return errors.stopping()
        return None if self._table.ready else errors.not_ready()


def _path(request: web.BaseRequest) -> str:
    """As the client wrote it, still percent-encoded, without the query, which no call here has a use for."""
    raw = request.raw_path
    if not raw.startswith("/"):
        return request.rel_url.raw_path  # the absolute form, as proxies send it
    return raw.partition("?")[0] if "?" in raw else raw


def _key(request: web.BaseRequest) -> str | None:
    headers = request.headers
    scheme, _, credential = headers.get("Authorization", "").partition(" ")
    if credential and scheme.lower() == "bearer":
        return credential.strip()
    return headers.get("X-Api-Key")


def _must_get(request: web.BaseRequest, path: str) -> None:
    if request.method not in ("GET", "HEAD"):
        raise Refusal(errors.wrong_method(request.method, path, "GET, HEAD"))
