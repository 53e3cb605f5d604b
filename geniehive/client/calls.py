"""Deadlines, attempts and errors of calls, for the asynchronous and the synchronous client.

`Facade` and `SyncFacade` stand where the generated stub would, method by method.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from geniehive import failures
from geniehive.failures import Refused
from geniehive.kit.backoff import Backoff
from geniehive.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    node_service_pb2,
    node_service_pb2_grpc,
    registry_service_pb2,
    registry_service_pb2_grpc,
    routing_service_pb2,
    routing_service_pb2_grpc,
)
from geniehive.v1.failure_pb2 import FailureReason

Metadata = Sequence[tuple[str, str]]

# What a client calls them -> stub, description.
SERVICES: dict[str, tuple[Callable[[Any], object], ServiceDescriptor]] = {
    "registry": (
        registry_service_pb2_grpc.RegistryServiceStub,
        registry_service_pb2.DESCRIPTOR.services_by_name["RegistryService"],
    ),
    "routing": (
        routing_service_pb2_grpc.RoutingServiceStub,
        routing_service_pb2.DESCRIPTOR.services_by_name["RoutingService"],
    ),
    "admin": (
        admin_service_pb2_grpc.AdminServiceStub,
        admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
    ),
    "nodes": (
        node_service_pb2_grpc.NodeServiceStub,
        node_service_pb2.DESCRIPTOR.services_by_name["NodeService"],
    ),
}

# Seconds; the contract's own figures, to which a test holds these.
UNARY_DEADLINE = 10.0
DEADLINES = {"geniehive.v1.RoutingService.Resolve": 2.0}

_READ_VERBS = ("List", "Get", "Resolve", "Match", "Explain", "Query")
_AGAIN_CODES = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED})
# Other reasons with these codes speak of what was asked for, and asking again changes nothing.
_AGAIN_REASONS = frozenset(
    {
        FailureReason.FAILURE_REASON_UNSPECIFIED,
        FailureReason.FAILURE_REASON_CONTROL_UNAVAILABLE,
        FailureReason.FAILURE_REASON_STORE_UNAVAILABLE,
    }
)


def deadline(method: MethodDescriptor) -> float | None:
    """Seconds that a call has unless its caller says otherwise. None for streams, which last."""
    if _streams(method):
        return None
    return DEADLINES.get(method.full_name, UNARY_DEADLINE)


def is_read(method: MethodDescriptor) -> bool:
    """Whether a call changes nothing, so that it may be made again."""
    return not _streams(method) and method.name.startswith(_READ_VERBS)


def _streams(method: MethodDescriptor) -> bool:
    return method.client_streaming or method.server_streaming


class Unreachable(Refused):
    """Control was not reached, and a look at it by TLS has told why: the message says it, for people."""

    def __init__(self, why: str) -> None:
        super().__init__(FailureReason.FAILURE_REASON_UNSPECIFIED, why, code=grpc.StatusCode.UNAVAILABLE)


def _may_be_tls(error: Refused) -> bool:
    """gRPC says little of why a handshake failed, and not that it was one."""
    return error.code is grpc.StatusCode.UNAVAILABLE and error.reason == FailureReason.FAILURE_REASON_UNSPECIFIED


class Attempts:
    """The attempts of one call, which share its deadline. Times are of a clock that only grows."""

    def __init__(self, seconds: float, retries: int, now: float, backoff: Backoff | None = None) -> None:
        self._end = now + seconds
        self._left = retries
        self._backoff = backoff or Backoff(first=0.1, longest=2.0)

    def remaining(self, now: float) -> float:
        return max(0.0, self._end - now)

    def delay(self, error: Refused, now: float) -> float | None:
        """Seconds to wait before the next attempt. None: the error is the answer."""
        if self._left <= 0 or error.code not in _AGAIN_CODES or error.reason not in _AGAIN_REASONS:
            return None
        self._left -= 1
        delay = max(self._backoff.next(), error.retry_after or 0.0)
        return delay if now + delay < self._end else None


class Facade:
    """A service's methods as coroutines, and as streams whose errors are Refused.

    why_not: says why a call did not get through, if that is for TLS.
    """

    def __init__(
        self,
        stub: object,
        service: ServiceDescriptor,
        metadata: Metadata,
        retries: int,
        why_not: Callable[[], Awaitable[str | None]],
    ) -> None:
        for method in service.methods:
            call = getattr(stub, method.name)
            given = tuple(metadata)
            wrapped = (
                _stream(call, given)
                if _streams(method)
                else _unary(call, given, method, retries * is_read(method), why_not)
            )
            setattr(self, method.name, wrapped)


def _unary(
    call: Callable[..., Any],
    common: Metadata,
    method: MethodDescriptor,
    retries: int,
    why_not: Callable[[], Awaitable[str | None]],
) -> Callable[..., Any]:
    async def ask(request: object, *, timeout: float | None = None, metadata: Metadata = ()) -> object:
        attempts = Attempts(_seconds(method, timeout), retries, time.monotonic())
        while True:
            try:
                remaining = attempts.remaining(time.monotonic())
                return await call(request, timeout=remaining, metadata=(*common, *metadata))
            except grpc.aio.AioRpcError as failed:
                error = failures.from_rpc_error(failed)
                delay = attempts.delay(error, time.monotonic())
                if delay is None:
                    if _may_be_tls(error) and (why := await why_not()):
                        error = Unreachable(why)
                    raise error from None
            await asyncio.sleep(delay)

    return ask


def _seconds(method: MethodDescriptor, timeout: float | None) -> float:
    return timeout if timeout is not None else deadline(method) or UNARY_DEADLINE


def _stream(call: Callable[..., Any], common: Metadata) -> Callable[..., Any]:
    def open_stream(*request: object, timeout: float | None = None, metadata: Metadata = ()) -> Stream:
        return Stream(call(*request, timeout=timeout, metadata=(*common, *metadata)))

    return open_stream


class Stream:
    """A streaming call. `async for`, `read`, `write`, `done_writing`, `cancel` as grpc.aio has them."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF. Cancelling it cancels the call."""
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise failures.from_rpc_error(error) from None

    async def write(self, message: object) -> None:
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise failures.from_rpc_error(error) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class SyncFacade:
    """A service's methods as plain calls, and as iterators whose errors are Refused. why_not: as for Facade."""

    def __init__(
        self,
        stub: object,
        service: ServiceDescriptor,
        metadata: Metadata,
        retries: int,
        why_not: Callable[[], str | None],
    ) -> None:
        for method in service.methods:
            call = getattr(stub, method.name)
            given = tuple(metadata)
            wrapped = (
                _sync_stream(call, given)
                if _streams(method)
                else _sync_unary(call, given, method, retries * is_read(method), why_not)
            )
            setattr(self, method.name, wrapped)


def _sync_unary(
    call: Callable[..., Any],
    common: Metadata,
    method: MethodDescriptor,
    retries: int,
    why_not: Callable[[], str | None],
) -> Callable[..., Any]:
    def ask(request: object, *, timeout: float | None = None, metadata: Metadata = ()) -> object:
        attempts = Attempts(_seconds(method, timeout), retries, time.monotonic())
        while True:
            try:
                remaining = attempts.remaining(time.monotonic())
                return call(request, timeout=remaining, metadata=(*common, *metadata))
            except grpc.RpcError as failed:
                error = failures.from_rpc_error(failed)
                delay = attempts.delay(error, time.monotonic())
                if delay is None:
                    if _may_be_tls(error) and (why := why_not()):
                        error = Unreachable(why)
                    raise error from None
            time.sleep(delay)

    return ask


def _sync_stream(call: Callable[..., Any], common: Metadata) -> Callable[..., Any]:
    def open_stream(request: object, *, timeout: float | None = None, metadata: Metadata = ()) -> SyncStream:
        return SyncStream(call(request, timeout=timeout, metadata=(*common, *metadata)))

    return open_stream


class SyncStream:
    """A streaming call. Iterate it; `cancel` as grpc has it."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise failures.from_rpc_error(error) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)
