"""RoutingService.Resolve for a name that the table lacks: asked once, for all who ask meanwhile, and remembered.

A name that control does not know is not asked for again for some seconds, nor one for which it did not answer in time.
While control is away nothing is asked: the table alone decides, at once.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
import msgspec

from gateway.core.table import Rejected, Table
from geniehive.channels import CLIENT_KEY_ID
from geniehive.convert import resource_from_proto
from geniehive.failures import from_rpc_error
from geniehive.kit.clock import Clock
from geniehive.kit.tasks import Tasks
from geniehive.v1.failure_pb2 import FAILURE_REASON_ROUTE_NOT_FOUND
from geniehive.v1.routing_service_pb2 import ResolveRequest

if TYPE_CHECKING:  # the stub file alone has it
    from geniehive.v1.routing_service_pb2_grpc import RoutingServiceAsyncStub

log = logging.getLogger(__name__)

DEADLINE = 2.0
REMEMBERED_FOR = 5.0
_REMEMBERED = 1024
# Unknown names in flight at once; beyond that the table alone decides.
_AT_ONCE = 64


class _Known(msgspec.Struct, frozen=True):
    table: Table | None
    until: float


class NameLookUp:
    """stub: to ask control by; None while it is away. metadata: what proves this gateway. table: this gateway's."""

    def __init__(
        self,
        stub: "Callable[[], RoutingServiceAsyncStub | None]",
        metadata: tuple[tuple[str, str], ...],
        table: Table,
        clock: Clock,
        tasks: Tasks,
    ) -> None:
        self._stub = stub
        self._metadata = metadata
        self._table = table
        self._clock = clock
        self._tasks = tasks
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Table | None]] = {}

    async def __call__(self, model: str, key_id: str) -> Table | None:
        """A table with that name and all it leads to; None if control has none, or can't be asked.

        key_id: of the client for whom it is asked, "" where authentication is off.
        """
        known = self._known.get(model)
        if known is not None and self._clock.now() < known.until:
            return known.table
        task = self._asking.get(model)
        if task is None:
            stub = self._stub()
            if stub is None or len(self._asking) >= _AT_ONCE:
                return None
            task = self._tasks.start(self._ask(stub, model, key_id), f"look up {model!r}")
            self._asking[model] = task
            task.add_done_callback(lambda _: self._asking.pop(model, None))
        # One who leaves must not take the answer from the others.
        return await asyncio.shield(task)

    async def _ask(self, stub: "RoutingServiceAsyncStub", model: str, key_id: str) -> Table | None:
        metadata = (*self._metadata, (CLIENT_KEY_ID, key_id)) if key_id else self._metadata
        table: Table | None = self._table.blank()
        try:
            answer = await stub.Resolve(ResolveRequest(model=model), timeout=DEADLINE, metadata=metadata)
            assert table is not None
            table.apply(tuple(map(resource_from_proto, answer.resources)), (), self._table.cluster_id)
        except grpc.aio.AioRpcError as error:
            refused = from_rpc_error(error)
            if refused.reason != FAILURE_REASON_ROUTE_NOT_FOUND:
                log.warning("control could not be asked for the model %r: %s", model, refused.message)
            table = None
        except (Rejected, ValueError) as problem:
            log.error("control's answer for the model %r can't be used: %s", model, problem)
            table = None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            table = None  # so grpc says that the link was closed under the call
        self._known[model] = _Known(table, self._clock.now() + REMEMBERED_FOR)
        self._known.move_to_end(model)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return table
