"""A scripted control on a real port, for tests of clients: unary calls by handlers, watches message by message.

async with ScriptedControl() as control:
    control.answer("ListHosts", lambda request: ListHostsResponse(...))      # or raises Refused
    stream = await control.stream()                                          # the next stream that a client opens
    stream.send(WatchRegistryResponse(...)); stream.fail(Refused(...)); stream.end()
    control.calls                                                            # what came, in order
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from geniehive import failures
from geniehive.client.calls import SERVICES
from geniehive.failures import Refused
from geniehive.v1.failure_pb2 import FailureReason


@dataclass
class Call:
    method: str
    request: Any
    metadata: dict[str, str]
    time_remaining: float | None


@dataclass(eq=False)
class ScriptedStream:
    """The server's side of a streaming call."""

    call: Call
    _orders: "asyncio.Queue[Any]" = field(default_factory=asyncio.Queue)
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # the client left, or it was ended

    def send(self, *messages: Any) -> None:
        for message in messages:
            self._orders.put_nowait(message)

    def fail(self, error: Refused) -> None:
        self._orders.put_nowait(error)

    def end(self) -> None:
        self._orders.put_nowait(None)

    async def order(self) -> Any:
        """What to do next: a message, a Refused, or None for the end."""
        return await self._orders.get()


class ScriptedControl:
    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.calls: list[Call] = []
        self._answers: dict[str, Callable[[Any], Any]] = {}
        self._streams: asyncio.Queue[ScriptedStream] = asyncio.Queue()
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def answer(self, method: str, handler: Callable[[Any], Any]) -> None:
        """From now on `handler(request)` answers this unary method."""
        self._answers[method] = handler

    async def stream(self, timeout: float = 10.0) -> ScriptedStream:
        """The next stream that a client opens."""
        async with asyncio.timeout(timeout):
            return await self._streams.get()

    async def start(self) -> None:
        """Starts; after `stop` on the port that it had."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        for _, service in SERVICES.values():
            handlers = {method.name: self._handler(method) for method in service.methods}
            generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
            self._server.add_generic_rpc_handlers((generic,))
        self.port = self._server.add_insecure_port(self.address)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.stop()

    def _handler(self, method: MethodDescriptor) -> "grpc.RpcMethodHandler[Any, Any]":
        kind = message_factory.GetMessageClass(method.input_type)
        output = message_factory.GetMessageClass(method.output_type)
        coders = {"request_deserializer": kind.FromString, "response_serializer": output.SerializeToString}

        def record(request: Any, context: Any) -> Call:
            metadata = {k: v for k, v in context.invocation_metadata() if isinstance(v, str)}
            call = Call(method.name, request, metadata, context.time_remaining())
            self.calls.append(call)
            return call

        async def unary(request: Any, context: Any) -> Any:
            record(request, context)
            handler = self._answers.get(method.name)
            try:
                if handler is None:
                    raise Refused(FailureReason.FAILURE_REASON_NOT_SERVED, f"{method.name} is not scripted")
                found = handler(request)
                return await found if asyncio.iscoroutine(found) else found
            except Refused as error:
                await failures.abort(context, error)

        async def streaming(request: Any, context: Any) -> Any:
            stream = ScriptedStream(record(request, context))
            self._streams.put_nowait(stream)
            try:
                while (order := await stream.order()) is not None:
                    if isinstance(order, Refused):
                        await failures.abort(context, order)
                    yield order
            finally:
                stream.gone.set()

        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(streaming, **coders)  # type: ignore[arg-type]
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(streaming, **coders)  # type: ignore[arg-type]
        return grpc.unary_unary_rpc_method_handler(unary, **coders)  # type: ignore[arg-type]
