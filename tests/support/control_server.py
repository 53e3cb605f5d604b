"""A control on a real socket, and peers to talk to it.

async with running_control() as control:
    node = await control.node("gpu-1")
    await node.register(service("gpu-1/ollama", "qwen3"))
    gateway = await control.gateway()
    await gateway.until(lambda: "route/qwen3" in gateway.table)
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc

from geniehive import convert, failures
from geniehive.channels import CLIENT_KEY_ID, NODE_KEY, aio_channel
from geniehive.kit.backoff import Backoff
from geniehive.kit.clock import SystemClock
from geniehive.rules.model import ClientKey, Inventory, Resource, Scope, Service
from geniehive.v1 import (
    admin_service_pb2_grpc,
    node_service_pb2,
    node_service_pb2_grpc,
    registry_service_pb2_grpc,
    routing_service_pb2,
    routing_service_pb2_grpc,
)
from geniehive_control.core.events import Now
from geniehive_control.core.registry import Pace, Registry
from geniehive_control.hub import Hub
from geniehive_control.rpc.auth import Authenticator, Required, digest
from geniehive_control.rpc.node_service import Intervals
from geniehive_control.rpc.server import Server
from tests.support.cluster import inventory
from tests.support.fake_store import FakeStore

T = TypeVar("T")

DEADLINE = 5.0
SECRETS = {"infer": "ghc-infer", "read": "ghc-read", "operate": "gho-operate", "admin": "gha-admin"}
NODE_SECRET = "ghn-node"
AS_NODE = ((NODE_KEY, NODE_SECRET),)


def bearer(secret: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret}"),)


def as_(scope: str) -> tuple[tuple[str, str], ...]:
    """Metadata of a tool whose key has this scope."""
    return bearer(SECRETS[scope])


def for_client(key_id: str) -> tuple[tuple[str, str], ...]:
    """Metadata of a gateway that asks for its client."""
    return (*AS_NODE, (CLIENT_KEY_ID, key_id))


def configured() -> list[ClientKey]:
    return [
        ClientKey(key_id=word, sha256=digest(secret), scopes=(Scope[word.upper()],), configured=True)
        for word, secret in SECRETS.items()
    ]


async def refused(call: Awaitable[Any]) -> failures.Refused:
    """The refusal that a call ends with."""
    try:
        async with asyncio.timeout(DEADLINE):
            answer = await call
    except grpc.RpcError as error:
        return failures.from_rpc_error(error)
    raise AssertionError(f"not refused, but answered {answer}")


async def until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


class Stream:
    """A bidirectional call whose answers are read all the time, so that a test may wait for one with a deadline."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while (answer := await self.call.read()) is not grpc.aio.EOF:
                self._answers.put_nowait(answer)
            code = await self.call.code()
            self._answers.put_nowait(None if code is grpc.StatusCode.OK else code)
        except grpc.RpcError as error:
            self._answers.put_nowait(failures.from_rpc_error(error))

    async def send(self, message: Any) -> None:
        await self.call.write(message)

    async def answer(self, seconds: float = DEADLINE) -> Any:
        """The next message; None at a good end. Raises what the stream ended with."""
        async with asyncio.timeout(seconds):
            answer = await self._answers.get()
        if isinstance(answer, failures.Refused):
            raise answer
        return answer

    async def ending(self, seconds: float = DEADLINE) -> failures.Refused:
        """What the stream is ended with; messages before it are passed over."""
        try:
            async with asyncio.timeout(seconds):
                while await self.answer() is not None:
                    pass
        except failures.Refused as error:
            return error
        raise AssertionError("the stream ended without an error")

    @property
    def silent(self) -> bool:
        return self._answers.empty()

    async def done(self) -> None:
        """Closes this side."""
        await self.call.done_writing()

    async def close(self) -> None:
        self.call.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


class Node(Stream):
    """A node's session. `welcome` is None until it came."""

    welcome: node_service_pb2.Welcome | None = None
    revision = 0
    _beating: "asyncio.Task[None] | None" = None

    @property
    def host_id(self) -> str:
        assert self.welcome is not None
        return self.welcome.host_id

    async def hello(self, host_id: str, **fields: Any) -> None:
        await self.send(node_service_pb2.SessionRequest(hello=node_service_pb2.Hello(host_id=host_id, **fields)))
        answer = await self.answer()
        assert answer.HasField("welcome")
        self.welcome = answer.welcome

    async def offer(self, offered: Inventory) -> None:
        await self.send(node_service_pb2.SessionRequest(inventory=convert.inventory_to_proto(offered)))

    async def register(self, *services: Service, **fields: Any) -> node_service_pb2.InventoryResult:
        self.revision += 1
        await self.offer(inventory(self.host_id, services, self.revision, **fields))
        answer = await self.answer()
        assert answer.HasField("inventory_result"), answer
        result: node_service_pb2.InventoryResult = answer.inventory_result
        return result

    async def beat(self) -> None:
        await self.send(node_service_pb2.SessionRequest(heartbeat=node_service_pb2.Heartbeat()))

    def keep_alive(self, interval: float = 0.1) -> None:
        async def beat() -> None:
            while True:
                await asyncio.sleep(interval)
                await self.beat()

        self._beating = asyncio.create_task(beat())

    async def close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        await super().close()


class Gateway(Stream):
    """A gateway that applies and acknowledges updates only when it is told to."""

    def __init__(self, call: Any) -> None:
        super().__init__(call)
        self.table: dict[str, Resource] = {}
        self.updates = 0

    async def subscribe(self, held: dict[str, str] | None = None, gateway_id: str = "gw") -> None:
        subscribe = routing_service_pb2.WatchRoutesRequest.Subscribe(
            gateway_id=gateway_id, instance_id="1", gateway_version="1.0", base_url="http://gw", held_versions=held
        )
        await self.send(routing_service_pb2.WatchRoutesRequest(subscribe=subscribe))

    async def update(self) -> list[Any]:
        """The parts of the next update."""
        parts: list[Any] = []
        while not parts or parts[-1].more:
            answer = await self.answer()
            assert answer.HasField("update"), answer
            parts.append(answer.update)
        self.updates += 1
        return parts

    async def ack(self, nonce: str, rejected: str | None = None) -> None:
        ack = routing_service_pb2.WatchRoutesRequest.Ack(nonce=nonce)
        if rejected is not None:
            ack.rejected.message = rejected
        await self.send(routing_service_pb2.WatchRoutesRequest(ack=ack))

    async def apply(self) -> list[Any]:
        """Takes the next update and acknowledges it."""
        parts = await self.update()
        for part in parts:
            for resource in part.changed:
                self.table[resource.name] = convert.resource_from_proto(resource)
            for name in part.removed:
                self.table.pop(name, None)
        await self.ack(parts[-1].nonce)
        return parts

    async def until(self, condition: Callable[[], bool]) -> None:
        """Applies updates until the table is so."""
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await self.apply()


class Control:
    """A running control with its parts. Peers that were made here are closed with it."""

    def __init__(self, hub: Hub, server: Server, store: FakeStore, address: str) -> None:
        self.hub = hub
        self.server = server
        self.store = store
        self.address = address
        self.channel = aio_channel(address)
        self.nodes: Any = node_service_pb2_grpc.NodeServiceStub(self.channel)
        self.routing: Any = routing_service_pb2_grpc.RoutingServiceStub(self.channel)
        self.registry: Any = registry_service_pb2_grpc.RegistryServiceStub(self.channel)
        self.admin: Any = admin_service_pb2_grpc.AdminServiceStub(self.channel)
        self._streams: list[Stream] = []

    def session(self, metadata: Iterable[tuple[str, str]] = AS_NODE) -> Node:
        return self._kept(Node(self.nodes.Session(metadata=tuple(metadata))))

    async def node(self, host_id: str, *services: Service, **hello: Any) -> Node:
        """A node that said hello and, given services, registered."""
        node = self.session()
        await node.hello(host_id, **hello)
        if services:
            await node.register(*services)
        return node

    def watch(self, metadata: Iterable[tuple[str, str]] = AS_NODE) -> Gateway:
        return self._kept(Gateway(self.routing.WatchRoutes(metadata=tuple(metadata))))

    async def gateway(self, held: dict[str, str] | None = None) -> Gateway:
        """A gateway that has applied its first update."""
        gateway = self.watch()
        await gateway.subscribe(held)
        await gateway.apply()
        return gateway

    def stream(self, call: Any) -> Stream:
        return self._kept(Stream(call))

    def _kept(self, stream: T) -> T:
        self._streams.append(stream)  # type: ignore[arg-type]
        return stream

    async def close(self) -> None:
        for stream in self._streams:
            await stream.close()
        await self.server.stop(1.0)
        await self.hub.close(1.0)
        await self.channel.close()


@asynccontextmanager
async def running_control(
    store: FakeStore | None = None,
    *,
    lease_ttl: float = 5.0,
    restart_grace: float = 30.0,
    quiet: float = 10.0,
    required: Required | None = None,
) -> AsyncIterator[Control]:
    store = store or FakeStore()
    clock = SystemClock()
    pace = Pace(lease_ttl=lease_ttl, restart_grace=restart_grace)
    registry = Registry(await store.load(), Now(clock.now(), clock.wall()), pace, configured())
    hub = Hub(registry, store, clock, Backoff(0.01, 0.02))
    required = required or Required(node_keys=(digest(NODE_SECRET),))
    intervals = Intervals(lease_ttl=lease_ttl, heartbeat=lease_ttl / 3, load=1.0)
    server = Server(hub, Authenticator(required, registry.keys, clock.wall), intervals, "control-1", quiet)
    hub.start()
    address = await server.start("127.0.0.1:0")
    control = Control(hub, server, store, address)
    try:
        yield control
        assert not hub.tasks.failed.done(), "a background task failed"
    finally:
        await control.close()
