"""Calls to models: the body is read, its name looked up, and what follows is left to a `Call`."""

import logging
from collections.abc import Coroutine, Mapping, Sequence
from typing import Protocol

from aiohttp import web

from gateway.core import body as bodies
from gateway.core import errors, gates
from gateway.core.api import ApiCall
from gateway.core.attempt import Attempt
from gateway.core.balance import Balance
from gateway.core.budget import RetryBudget
from gateway.core.needs import Needs
from gateway.core.plan import Plan, Unusable
from gateway.core.table import ChooseFrom, NotFound, OtherOperations, Table
from gateway.http.call import Call, Content, needs_of
from gateway.http.exchange import Exchange, Refusal
from gateway.http.forms import Forms
from gateway.patience import Patience
from gateway.upstream import Unaskable, Upstream, request_headers
from geniehive.kit.clock import Clock
from geniehive.rules.names import is_model_name
from geniehive.rules.operations import Operation

log = logging.getLogger(__name__)

# Seconds until a failure that goes on is logged again.
_SAY_AGAIN = 5.0

# Whose streams tell of usage only when they are asked to.
_ASKED = frozenset({Operation.CHAT, Operation.COMPLETIONS})
_SILENT_KEPT = 1000


class LookUp(Protocol):
    """Asks control about a name that the table lacks."""

    async def __call__(self, model: str, key_id: str) -> Table | None:
        """A table with that name and all it leads to; None if there is none, or nobody to ask."""


class Calls:
    """max_body: bytes. patience: by path of the API. ask_usage: whether engines are asked for it."""

    def __init__(
        self, table: Table, balance: Balance, budget: RetryBudget, upstream: Upstream, look_up: LookUp, clock: Clock,
        max_body: int, forms: Forms, patience: Mapping[str, Patience], ask_usage: bool = True,
    ) -> None:  # fmt: skip
        self.upstream = upstream
        self.clock = clock
        self._table = table
        self._balance = balance
        self._budget = budget
        self._look_up = look_up
        self._max_body = max_body
        self._forms = forms
        self._patience = patience
        self._ask_usage = ask_usage
        # Services that refuse requests which ask for usage.
        self.silent: set[str] = set()
        self._told = "", 0.0

    def tell(self, request_id: str, failure: str) -> None:
        """Logs a failed call; the same failure, which may come a thousand times a second, only now and then."""
        now = self.clock.now()
        said, at = self._told
        repeated = failure == said and now < at + _SAY_AGAIN
        log.log(logging.DEBUG if repeated else logging.WARNING, "%s: %s", request_id, failure)
        if not repeated:
            self._told = failure, now

    def tells_no_usage(self, service: str) -> None:
        """It refused a request because that asked for usage, and took it without."""
        log.warning("%s refuses stream_options.include_usage: tokens of its streams are not counted", service)
        if len(self.silent) >= _SILENT_KEPT:
            self.silent.clear()
        self.silent.add(service)

    def plan(self, model: str, operation: Operation) -> Plan | None:
        """As the table has it now."""
        found = self._table.find(model, operation) if self._table.knows(model) else None
        return found if isinstance(found, Plan) else None

    def serve(
        self, exchange: Exchange, request: web.BaseRequest, api: ApiCall, key_id: str
    ) -> Coroutine[None, None, None]:
        """Answers the call. Refusal for what the caller of this is to answer."""
        if api.multipart and request.content_type != "application/json":
            return self._serve_form(exchange, request, api, key_id)
        # Whatever can be done without waiting is done here: each coroutine more costs all requests.
        body = exchange.body_there(self._max_body)
        if body is None:
            return self._serve_later(exchange, request, api, key_id)
        return self._serve_json(exchange, request, api, key_id, body)

    async def _serve_form(self, exchange: Exchange, request: web.BaseRequest, api: ApiCall, key_id: str) -> None:
        async with self._forms.receive(exchange) as form:
            plan = await self._plan(exchange, form.model, api, key_id)
            await self._call(exchange, request, api, plan, form, None).run()

    async def _serve_later(self, exchange: Exchange, request: web.BaseRequest, api: ApiCall, key_id: str) -> None:
        body = await exchange.body(self._max_body)
        await self._serve_json(exchange, request, api, key_id, body)

    def _serve_json(
        self, exchange: Exchange, request: web.BaseRequest, api: ApiCall, key_id: str, body: bytes
    ) -> Coroutine[None, None, None]:
        try:
            named = bodies.read(body)
        except bodies.BodyProblem as problem:
            raise Refusal(errors.bad_request(problem.message, problem.param or None)) from None
        asking = None
        if named.stream:
            exchange.tally.stream = True
            if self._ask_usage and api.operation in _ASKED:
                asking = named.asking()
        model = named.model
        plan = self._table.find(model, api.operation)
        if not isinstance(plan, Plan):
            return self._serve_unknown(exchange, request, api, key_id, named, asking)
        exchange.tally.model = model
        return self._call(exchange, request, api, plan, named, asking).run()

    async def _serve_unknown(
        self, exchange: Exchange, request: web.BaseRequest, api: ApiCall, key_id: str, named: bodies.Named,
        asking: Content | None,
    ) -> None:  # fmt: skip
        plan = await self._plan(exchange, named.model, api, key_id)
        await self._call(exchange, request, api, plan, named, asking).run()

    async def _plan(self, exchange: Exchange, model: str, api: ApiCall, key_id: str) -> Plan:
        plan = self._table.find(model, api.operation)
        if not isinstance(plan, NotFound):
            exchange.tally.model = model
        if not isinstance(plan, Plan):
            plan = await self._look_further(model, api.operation, plan, key_id)
            exchange.tally.model = model
        return plan

    def _call(
        self, exchange: Exchange, request: web.BaseRequest, api: ApiCall, plan: Plan, content: Content,
        asking: Content | None,
    ) -> Call:  # fmt: skip
        try:
            headers = request_headers(request.raw_headers, exchange.request_id, exchange.hops)
        except Unaskable as error:
            raise Refusal(errors.bad_request(f"The request can't be passed on: {error}")) from error
        patience = self._patience[api.path]
        wants = None
        if type(content) is bodies.Named and len(content.body) > plan.carefree:
            wants = needs_of(content, plan, api, exchange)
        attempt = Attempt(
            content.model, api.operation, plan, self._balance, self._budget, patience.timeouts.first_byte, wants
        )
        if attempt.over and wants is not None and gates.nobody_is_left(plan, attempt.over):
            raise Refusal(self._unfit(content.model, api, plan, attempt.over, wants))
        exchange.tally.attempt = attempt
        return Call(self, exchange, attempt, content, api, headers, patience, asking)

    def _unfit(
        self, model: str, api: ApiCall, plan: Plan, over: Sequence[gates.PassedOver], wants: Needs
    ) -> errors.ApiError:
        """What to say where nobody who is there can serve what is asked for."""
        table = self._table
        away = [(u, found) for u in plan.unusable if (found := table.endpoint(f"endpoint/{u.name}")) is not None]
        # Who may not serve this name will not later, either.
        if any(gates.would_fit(e.asset, wants) for u, (e, upstream) in away if u.loading or not upstream.routable):
            out = tuple(Unusable(one.candidate.name, one.reason) for one in over)
            return errors.unserved(model, (), plan.unusable + out, None)
        candidate = gates.largest(over)
        if candidate is None:
            able = table.able(api.operation, [one.lacks for one in over if one.lacks is not None])
            return gates.not_taken(model, over, able, api.operation)
        found = table.endpoint(candidate.endpoint)
        runtime = found[1].runtime if found is not None else ""
        return gates.too_long(model, wants, candidate, runtime, api.operation, api.dialect)

    async def _look_further(
        self, model: str, operation: Operation, found: NotFound | OtherOperations | ChooseFrom, key_id: str
    ) -> Plan:
        """A plan that control knows of. Refusal, by what was `found` in the table, if there is none."""
        if not self._table.ready:
            raise Refusal(errors.not_ready())
        if isinstance(found, NotFound) and is_model_name(model):
            learned = await self._look_up(model, key_id)
            if learned is not None:
                known = learned.find(model, operation)
                if isinstance(known, Plan):
                    return known
                found = known
        raise Refusal(errors.unresolved(model, operation, found))
