"""A RoutingService in this process: a test plays control, message by message."""

import asyncio
from collections.abc import Callable
from typing import Any, Self

import grpc

from geniehive import failures
from geniehive.channels import SERVER_OPTIONS
from geniehive.convert import resource_to_proto
from geniehive.failures import Refused
from geniehive.rules.model import Resource
from geniehive.v1.credential_pb2 import Certificate, Trust
from geniehive.v1.routing_service_pb2 import (
    ReportOutcomesRequest,
    ReportOutcomesResponse,
    ResolveRequest,
    ResolveResponse,
    WatchRoutesRequest,
    WatchRoutesResponse,
)
from geniehive.v1.routing_service_pb2_grpc import RoutingServiceServicer, add_RoutingServiceServicer_to_server


def update(
    nonce: str, *changed: Resource, removed: tuple[str, ...] = (), more: bool = False, cluster_id: str = "c-1"
) -> WatchRoutesResponse:
    return WatchRoutesResponse(
        update=WatchRoutesResponse.Update(
            nonce=nonce,
            changed=map(resource_to_proto, changed),
            removed=removed,
            more=more,
            control_id="ctl",
            cluster_id=cluster_id,
        )
    )


def trust(ca_bundle: bytes, *revoked: str) -> WatchRoutesResponse:
    return WatchRoutesResponse(trust=Trust(ca_bundle=ca_bundle.decode(), revoked_serials=revoked))


def certificate(chain: bytes, renew_after: float = 3600.0) -> WatchRoutesResponse:
    made = WatchRoutesResponse(certificate=Certificate(chain=chain.decode()))
    made.certificate.renew_after.FromNanoseconds(int(renew_after * 1e9))
    return made


class Stream:
    """Control's side of one WatchRoutes."""

    def __init__(self, metadata: dict[str, str]) -> None:
        self.metadata = metadata
        self._in: asyncio.Queue[WatchRoutesRequest] = asyncio.Queue()
        self._out: asyncio.Queue[WatchRoutesResponse | Refused | None] = asyncio.Queue()

    async def heard(self) -> WatchRoutesRequest:
        async with asyncio.timeout(5):
            return await self._in.get()

    async def subscribed(self) -> WatchRoutesRequest.Subscribe:
        message = await self.heard()
        assert message.WhichOneof("message") == "subscribe"
        return message.subscribe

    async def acked(self, nonce: str) -> WatchRoutesRequest.Ack:
        message = await self.heard()
        assert message.WhichOneof("message") == "ack"
        assert message.ack.nonce == nonce
        return message.ack

    async def asked_for_certificate(self) -> bytes:
        """The request, in PEM."""
        message = await self.heard()
        assert message.WhichOneof("message") == "certificate_request"
        return message.certificate_request.csr.encode()

    def say(self, *messages: WatchRoutesResponse) -> None:
        for message in messages:
            self._out.put_nowait(message)

    def end(self, error: Refused | None = None) -> None:
        self._out.put_nowait(error)

    @property
    def silent(self) -> bool:
        return self._in.empty()


class ReportStream:
    """Control's side of one ReportOutcomes."""

    def __init__(self, metadata: dict[str, str]) -> None:
        self.metadata = metadata
        self._in: asyncio.Queue[ReportOutcomesRequest] = asyncio.Queue()
        self._out: asyncio.Queue[ReportOutcomesResponse | Refused | None] = asyncio.Queue()

    async def heard(self, seconds: float = 5.0) -> ReportOutcomesRequest:
        async with asyncio.timeout(seconds):
            return await self._in.get()

    def say(self, message: ReportOutcomesResponse) -> None:
        self._out.put_nowait(message)

    def end(self, error: Refused | None = None) -> None:
        self._out.put_nowait(error)


class FakeRouting(RoutingServiceServicer):
    """`async with FakeRouting() as control:`, then `await control.stream()` for each stream of routes that is opened,
    and `await control.reports()` for each of outcomes."""

    def __init__(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        self.port = port
        self._credentials = credentials
        self.resolve: Callable[[ResolveRequest], Any] | None = None
        self.resolved: list[tuple[str, dict[str, str]]] = []
        self._streams: asyncio.Queue[Stream] = asyncio.Queue()
        self._reports: asyncio.Queue[ReportStream] = asyncio.Queue()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        add_RoutingServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call,unused-ignore]
        if self._credentials is None:
            self.port = self._server.add_insecure_port(self.address)
        else:
            self.port = self._server.add_secure_port(self.address, self._credentials)
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    async def stream(self) -> Stream:
        async with asyncio.timeout(10):
            return await self._streams.get()

    @property
    def streams_waiting(self) -> int:
        return self._streams.qsize()

    async def WatchRoutes(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        stream = Stream(dict(context.invocation_metadata()))
        self._streams.put_nowait(stream)
        reader = asyncio.create_task(self._read(request_iterator, stream))
        try:
            while isinstance(message := await stream._out.get(), WatchRoutesResponse):
                await context.write(message)
            if message is not None:
                await failures.abort(context, message)
        finally:
            reader.cancel()

    async def reports(self) -> ReportStream:
        async with asyncio.timeout(10):
            return await self._reports.get()

    async def ReportOutcomes(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        stream = ReportStream(dict(context.invocation_metadata()))
        self._reports.put_nowait(stream)
        reader = asyncio.create_task(self._read(request_iterator, stream))
        try:
            while isinstance(message := await stream._out.get(), ReportOutcomesResponse):
                await context.write(message)
            if message is not None:
                await failures.abort(context, message)
        finally:
            reader.cancel()

    async def _read(self, requests: Any, stream: Stream | ReportStream) -> None:
        async for message in requests:
            stream._in.put_nowait(message)

    async def Resolve(self, request: ResolveRequest, context: Any) -> ResolveResponse:  # type: ignore[override]
        self.resolved.append((request.model, dict(context.invocation_metadata())))
        assert self.resolve is not None
        try:
            answer = self.resolve(request)
            answer = await answer if asyncio.iscoroutine(answer) else answer
        except Refused as error:
            await failures.abort(context, error)
        return ResolveResponse(resources=map(resource_to_proto, answer))
