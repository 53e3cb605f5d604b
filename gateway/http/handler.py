"""Which path is what, who may call it, and what becomes of errors: all are told in the client's dialect."""

import asyncio
import itertools
import logging
import re
import secrets
from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache
from urllib.parse import unquote

from aiohttp import web
from multidict import istr

from gateway.core import api, errors, ids, keys, openapi
from gateway.core.api import ApiCall
from gateway.core.cors import Cors
from gateway.core.errors import ApiError
from gateway.core.listing import Listing
from gateway.core.table import NotFound, Table
from gateway.http.calls import Calls, LookUp
from gateway.http.cluster import Asked, ClusterApi
from gateway.http.exchange import JSON, Exchange, Refusal
from gateway.http.metrics import METRICS, MetricsPage, is_local
from gateway.http.records import Records
from geniehive._version import __version__
from geniehive.kit.http_answer import CLOSE
from geniehive.kit.outbox import Outbox
from geniehive.rules.hops import HOPS, MOST_HOPS
from geniehive.rules.model import Scope
from geniehive.rules.names import is_model_name
from geniehive.rules.operations import Operation

log = logging.getLogger(__name__)

_HOPS = istr(HOPS)
# More than any API has a use for, less than engines take for a line.
_QUERY_LIMIT = 2048
_QUERY = re.compile(rf"\?[!-~]{{0,{_QUERY_LIMIT - 1}}}")
_MODELS = "/v1/models"
_OPENAPI = "/openapi.json"
_ABOUT = b'{"name":"GenieHive","api":"/v1","models":"/v1/models","openapi":"/openapi.json"}'

_NO_PAGES = Cors(())
# Of whom the key's id is known, allowed or not.
_KNOWN = (keys.Caller, keys.ScopeMissing)


class Handler:
    """Called by aiohttp for each request.

    auth: whether clients need a key. client_idle: seconds that a client may send or take nothing. cors: which web pages
    may call. cluster, metrics: None if questions about them are not answered. latency: as of `listing.Listing`.
    """

    def __init__(
        self,
        table: Table,
        calls: Calls,
        look_up: LookUp,
        *,
        auth: bool,
        client_idle: float | None,
        records: Records,
        metrics: MetricsPage | None = None,
        cors: Cors = _NO_PAGES,
        cluster: ClusterApi | None = None,
        latency: Callable[[str], float | None] = lambda model: None,
        outbox: Outbox | None = None,
    ) -> None:
        # Where answers are written.
        self.outbox = outbox if outbox is not None else Outbox()
        self._records = records
        self._metrics = metrics
        # None: no page may call, as for most; then nothing is looked at.
        self._cors = cors if cors else None
        self._cluster = cluster
        self._table = table
        self._calls = calls
        self._look_up = look_up
        self._auth = auth
        self._client_idle = client_idle
        self._id_prefix = f"req-{secrets.token_hex(6)}-"
        self._ids = itertools.count(1)
        self._listing = Listing(table, latency)
        # No new work: answers close their connections, and /readyz says no.
        self.draining = False
        # Connections with a request under way, and what serves them.
        self.open: dict[web.RequestHandler, asyncio.Task[None]] = {}
        # Called when the last of them has ended.
        self.on_idle: Callable[[], None] = lambda: None

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        given = request.headers.get("X-Request-Id")
        request_id = given if given and ids.is_sane(given) else f"{self._id_prefix}{next(self._ids)}"
        exchange = Exchange(
            request, request_id, self._table.cluster_id, not self.draining, self._client_idle, self.outbox
        )
        exchange.tally = self._records.began()
        if self._cors is not None and (origin := request.headers.get("Origin")):
            exchange.allow(self._cors.lines(origin))
        connection = request.protocol
        self.open[connection] = request.task
        self.outbox.under_way = len(self.open)
        try:
            path, query = _target(request)
            call = api.CALLS.get(path)
            if call is not None and request.method == "POST":
                await self._serve(exchange, request, call, path, query)
            else:
                await self._answer(exchange, request, call, path, query)
        except Refusal as refusal:
            self._refuse(exchange, refusal.error)
        except ConnectionError:
            return CLOSE  # the client left
        except Exception:
            log.exception("request %s failed in a way that nothing expected", request_id)
            self._refuse(exchange, errors.internal(request_id))
        finally:
            del self.open[connection]
            self.outbox.under_way = len(self.open)
            if not self.open:
                self.on_idle()
            self._records.ended(exchange, request)
        return exchange.result

    def cluster_id(self) -> str:
        """Empty while it is not known."""
        return self._table.cluster_id

    def _refuse(self, exchange: Exchange, error: ApiError) -> None:
        if exchange.started:
            exchange.abort()
        elif exchange.alive:
            exchange.error(error)

    def _serve(
        self, exchange: Exchange, request: web.BaseRequest, call: ApiCall, path: str, query: str
    ) -> Coroutine[None, None, None]:
        """Serves a call to a model."""
        exchange.dialect = call.dialect
        tally = exchange.tally
        tally.path, tally.operation = path, call.operation
        key_id = self._authenticate(exchange, request, keys.TO_INFER)
        if query:
            if not _QUERY.fullmatch(query):
                raise Refusal(errors.bad_query(_QUERY_LIMIT))
            exchange.query = query
        if (passed := request.headers.get(_HOPS)) is not None:
            exchange.hops = _one_more(passed)
        return self._calls.serve(exchange, request, call, key_id)

    async def _answer(
        self, exchange: Exchange, request: web.BaseRequest, call: ApiCall | None, path: str, query: str
    ) -> None:
        """Answers what is no call to a model. call: whose path it has, if it is asked by another method."""
        if call is not None:
            exchange.dialect = call.dialect
            self._not_post(exchange, request, path)
        elif request.method == "OPTIONS":
            self._options(exchange, request, path, self._takes(path))
        elif path == _MODELS:
            _must_get(request, path)
            self._authenticate(exchange, request, keys.TO_LOOK)
            exchange.whole(200, JSON, self._models())
        elif path.startswith(_MODELS + "/") and len(path) > len(_MODELS) + 1:
            _must_get(request, path)
            key_id = self._authenticate(exchange, request, keys.TO_LOOK)
            exchange.whole(200, JSON, await self._model(unquote(path[len(_MODELS) + 1 :]), key_id))
        elif path == "/":
            # Some clients ask it, by HEAD, whether anybody is there.
            _must_get(request, path)
            exchange.whole(200, JSON, _ABOUT)
        elif path == _OPENAPI:
            _must_get(request, path)
            exchange.whole(200, JSON, _openapi())
        elif self._cluster is not None and (methods := self._cluster.methods(path)) is not None:
            await self._ask_cluster(self._cluster, methods, exchange, request, path, query)
        elif path == METRICS and self._metrics is not None:
            _must_get(request, path)
            if not is_local(request):
                self._authenticate(exchange, request, keys.TO_READ)
            headers, page = await self._metrics.page(request.headers.get("Accept", ""))
            exchange.whole(200, headers, page)
        elif path == "/healthz":
            _must_get(request, path)
            exchange.whole(200, JSON, b'{"status":"ok"}')
        elif path == "/readyz":
            _must_get(request, path)
            if error := self._not_ready():
                raise Refusal(error)
            exchange.whole(200, JSON, b'{"status":"ready"}')
        else:
            exchange.dialect = api.dialect_of(path)
            raise Refusal(errors.unknown_path(request.method, path))

    async def _ask_cluster(
        self, cluster: ClusterApi, methods: Mapping[str, Asked], exchange: Exchange, request: web.BaseRequest,
        path: str, query: str,
    ) -> None:  # fmt: skip
        asked = methods.get("GET" if request.method == "HEAD" else request.method)
        if asked is None:
            raise Refusal(errors.wrong_method(request.method, path, self._takes(path)))
        key_id = self._authenticate(exchange, request, asked.needed)
        body = await exchange.body(asked.body) if asked.body else b""
        exchange.whole(200, JSON, await cluster.answer(asked, query, body, key_id))

    def _takes(self, path: str) -> str:
        """The methods of a path that is no call to a model; "" if there is no such path."""
        if self._cluster is not None and (methods := self._cluster.methods(path)) is not None:
            return ", ".join(
                [*(("GET", "HEAD") if "GET" in methods else ()), *sorted(methods.keys() - {"GET"}), "OPTIONS"]
            )
        return "GET, HEAD, OPTIONS" if _is_looked_at(path) else ""

    def _not_post(self, exchange: Exchange, request: web.BaseRequest, path: str) -> None:
        if request.method != "OPTIONS":
            raise Refusal(errors.wrong_method(request.method, path, "POST, OPTIONS"))
        self._options(exchange, request, path, "POST, OPTIONS")

    def _options(self, exchange: Exchange, request: web.BaseRequest, path: str, allow: str) -> None:
        """What a path takes; to a browser, whether its page may call it."""
        if not allow and path != "*":
            raise Refusal(errors.unknown_path(request.method, path))
        lines = f"allow: {allow or 'GET, HEAD, POST, OPTIONS'}\r\n".encode()
        method = request.headers.get("Access-Control-Request-Method")
        if method is not None and exchange.cross_origin and self._cors is not None:
            wanted = request.headers.get("Access-Control-Request-Headers", "")
            lines += self._cors.preflight(allow.removesuffix(", OPTIONS"), wanted)
        exchange.whole(204, lines, b"")

    def _authenticate(self, exchange: Exchange, request: web.BaseRequest, needed: frozenset[Scope]) -> str:
        """The id of the caller's key, "" where authentication is off."""
        if not self._auth:
            return ""
        if not self._table.ready:
            raise Refusal(errors.not_ready())
        found = keys.authenticate(self._table.key, _key(request), needed)
        if isinstance(found, _KNOWN):
            exchange.tally.key_id = found.key_id
        if not isinstance(found, keys.Caller):
            raise Refusal(errors.unauthenticated(found))
        return found.key_id

    def _models(self) -> bytes:
        if not self._table.ready:
            raise Refusal(errors.not_ready())
        return self._listing.models(self._calls.clock.now())

    async def _model(self, name: str, key_id: str) -> bytes:
        if not self._table.ready:
            raise Refusal(errors.not_ready())
        found = self._listing.model(name)
        if found is None and is_model_name(name) and (learned := await self._look_up(name, key_id)):
            found = self._listing.model(name, learned)
        if found is None:
            missing = self._table.find(name, Operation.CHAT)
            raise Refusal(errors.unresolved(name, None, missing if isinstance(missing, NotFound) else NotFound()))
        return found

    def _not_ready(self) -> ApiError | None:
        if self.draining:
            return errors.stopping()
        return None if self._table.ready else errors.not_ready()


@lru_cache(maxsize=1)
def _openapi() -> bytes:
    return openapi.document(__version__)


def _is_looked_at(path: str) -> bool:
    return path in (_MODELS, "/", _OPENAPI, METRICS, "/healthz", "/readyz") or path.startswith(_MODELS + "/")


def _target(request: web.BaseRequest) -> tuple[str, str]:
    """Path and query as the client wrote them, still percent-encoded; the query with its "?", if there is one."""
    raw = request.raw_path
    if not raw.startswith("/"):
        url = request.rel_url  # the absolute form, as proxies send it
        return url.raw_path, f"?{url.raw_query_string}" if url.raw_query_string else ""
    if "?" not in raw:
        return raw, ""
    path, mark, query = raw.partition("?")
    return path, mark + query


def _one_more(passed: str) -> bytes:
    """What to tell the next gateway, if there is one. Refusal if these are too many."""
    if not passed.isascii() or not passed.isdecimal() or len(passed) > 9:
        raise Refusal(errors.bad_hops(HOPS))
    if int(passed) > MOST_HOPS:
        raise Refusal(errors.loop(int(passed)))
    return b"%d" % (int(passed) + 1)


def _key(request: web.BaseRequest) -> str | None:
    headers = request.headers
    scheme, _, credential = headers.get("Authorization", "").partition(" ")
    if credential and scheme.lower() == "bearer":
        return credential.strip()
    return headers.get("X-Api-Key")


def _must_get(request: web.BaseRequest, path: str) -> None:
    if request.method not in ("GET", "HEAD"):
        raise Refusal(errors.wrong_method(request.method, path, "GET, HEAD, OPTIONS"))
