"""Pretended nodes: real sessions with control over a connection each, of machines that do not exist.

To be cheap beside the control that is measured, a node's messages are made once, from templates, and sent as they are.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc

from geniehive import channels, convert, failures
from geniehive._version import __version__
from geniehive.channels import Tls
from geniehive.cli import enrol
from geniehive.kit import address, tls
from geniehive.kit.backoff import Backoff
from geniehive.kit.errors import EXIT_FAILED, UserError
from geniehive.kit.tasks import Tasks
from geniehive.rules import join_token
from geniehive.rules import model as m
from geniehive.rules.operations import Operation
from geniehive.v1 import credential_pb2, node_service_pb2_grpc
from geniehive.v1 import node_service_pb2 as pb

_SESSION = "/geniehive.v1.NodeService/Session"
_HEALTH = "/grpc.health.v1.Health/Check"
# Names that the models of all nodes are drawn from: many machines have the same ones.
_MODEL_NAMES = 100
_ENROLMENTS_AT_ONCE = 32
_ENROLMENT_SECONDS = 30.0
_SAMPLES_A_SECOND = 10


class Shape(NamedTuple):
    """nodes: how many. services: of each. models: of each service. interval: seconds between messages of a node."""

    nodes: int
    services: int = 8
    models: int = 3
    interval: float = 1.0


class Reach(NamedTuple):
    """How control is reached. papers: by host_id, for those who go by certificate."""

    target: str
    metadata: tuple[tuple[str, str], ...] = ()
    papers: "dict[str, Tls] | None" = None

    def __repr__(self) -> str:
        return f"Reach({self.target!r})"


def host_ids(nodes: int) -> list[str]:
    width = max(4, len(str(nodes)))
    return [f"sim-{number:0{width}}" for number in range(1, nodes + 1)]


class Messages:
    """What the nodes say. All host ids must be equally long: one stands in the templates for all."""

    def __init__(self, shape: Shape, host_id: str) -> None:
        self._host_id = host_id.encode()
        services = tuple(_service(shape, f"{host_id}/engine-{n}", n) for n in range(shape.services))
        host = m.Host(
            host_id=host_id,
            display_name=host_id,
            machine=m.Machine(os="linux", architecture="x86_64", cpu_threads=16, memory_bytes=64 << 30),
        )
        relay = m.Relay(host_id=host_id, base_urls=("http://127.0.0.1:9",), token="x" * 43)
        self._inventory = convert.inventory_to_proto(m.Inventory(revision=1, host=host, services=services, relay=relay))
        machine = m.MachineLoad(
            host_id=host_id,
            cpu_used_fraction=0.31,
            load_average=2.7,
            memory_used_bytes=21 << 30,
            disk_free_bytes=1 << 40,
        )
        loads = [_load(service, number) for number, service in enumerate(services)]
        load = pb.Load(
            machine=convert.machine_load_to_proto(machine), services=map(convert.service_load_to_proto, loads)
        )
        self._load = pb.SessionRequest(load=load).SerializeToString()
        self._offer = pb.SessionRequest(inventory=self._inventory).SerializeToString()

    @property
    def load_bytes(self) -> int:
        return len(self._load)

    def hello(self, host_id: str, instance_id: str) -> bytes:
        hello = pb.Hello(host_id=host_id, machine_id=f"machine of {host_id}", instance_id=instance_id)
        hello.agent_version = __version__
        return pb.SessionRequest(hello=hello).SerializeToString()

    def inventory(self, host_id: str) -> bytes:
        return self._offer.replace(self._host_id, host_id.encode())

    def load(self, host_id: str) -> bytes:
        return self._load.replace(self._host_id, host_id.encode())


def _service(shape: Shape, name: str, number: int) -> m.Service:
    assets = tuple(
        m.Asset(
            asset_id=f"model-{(number * shape.models + k) % _MODEL_NAMES}",
            upstream_name=f"model-{(number * shape.models + k) % _MODEL_NAMES}",
            operations=(Operation.CHAT,),
            context_tokens=32768,
            family="sim",
            quantization="Q4_K_M",
            load_state=m.LoadState.LOADED,
        )
        for k in range(shape.models)
    )
    healthy = m.Condition(health=m.Health.HEALTHY, availability=m.Availability.AVAILABLE)
    return m.Service(
        service=name,
        runtime="sim",
        runtime_version="1.0",
        operations=(Operation.CHAT,),
        assets=assets,
        ways=(m.Way(reason="it exists in a simulation only"),),
        slots=4,
        condition=healthy,
    )


def _load(service: m.Service, number: int) -> m.ServiceLoad:
    busy = tuple(
        m.AssetLoad(upstream_name=asset.upstream_name, running=number, memory_bytes=5 << 30, idle_seconds=12.5)
        for asset in service.assets[:1]
    )
    return m.ServiceLoad(
        service=service.service,
        assets=busy,
        age_seconds=0.25,
        running=number,
        queued=0,
        relayed=number // 2,
        tokens_per_second=41.5 + number,
        cache_used_fraction=0.4,
        latency_p50_seconds=1.8,
        latency_p95_seconds=6.1,
        first_token_p50_seconds=0.21,
    )


class Fleet:
    """Use as `async with`: at its end all nodes leave.

    registered: nodes whose offer control has stored, now. sent: loads, since the start.
    attempts: sessions begun. troubles: what sessions ended with, and how often.
    """

    def __init__(self, shape: Shape, reach: Reach) -> None:
        self.shape = shape
        self.reach = reach
        ids = host_ids(shape.nodes)
        self._messages = Messages(shape, ids[0])
        self._nodes = [_Node(self, host_id) for host_id in ids]
        self._tasks = Tasks()
        self._changed = asyncio.Event()
        self._leaving = False
        self.registered = 0
        self.welcomed = 0
        self.sent = 0
        self.attempts = 0
        self.troubles: Counter[str] = Counter()

    async def __aenter__(self) -> "Fleet":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leaving = True
        await self._tasks.close()

    @property
    def load_bytes(self) -> int:
        return self._messages.load_bytes

    @property
    def failed(self) -> "asyncio.Future[BaseException]":
        return self._tasks.failed

    def connect(self) -> None:
        """Lets all begin at once."""
        begun = time.monotonic()
        for number, node in enumerate(self._nodes):
            phase = begun + self.shape.interval * number / len(self._nodes)
            self._tasks.start(node.run(phase, self._messages), f"node {node.host_id}")

    async def until(self, registered: int, seconds: float) -> bool:
        """Until so many are registered. False if that takes longer."""
        try:
            async with asyncio.timeout(seconds):
                while self.registered != registered:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def note(self, registered: int = 0, welcomed: int = 0) -> None:
        self.registered += registered
        self.welcomed += welcomed
        self._changed.set()

    def trouble(self, what: str) -> None:
        if not self._leaving:
            self.troubles[what] += 1


class _Node:
    __slots__ = ("_backoff", "_fleet", "host_id")

    def __init__(self, fleet: Fleet, host_id: str) -> None:
        self._fleet = fleet
        self._backoff = Backoff()
        self.host_id = host_id

    async def run(self, phase: float, messages: Messages) -> None:
        """For ever: a session, and after its end the next. phase: when loads are sent, give or take intervals."""
        fleet, host_id = self._fleet, self.host_id
        papers = None if fleet.reach.papers is None else fleet.reach.papers[host_id]
        hello = messages.hello(host_id, f"{time.time():.3f}")
        inventory, load = messages.inventory(host_id), messages.load(host_id)
        while True:
            fleet.attempts += 1
            try:
                async with channels.aio_channel(fleet.reach.target, papers) as channel:
                    call: Any = channel.stream_stream(_SESSION)(metadata=fleet.reach.metadata)
                    await self._session(call, hello, inventory, load, phase)
                fleet.trouble("ended by control in good order")
            except grpc.RpcError as error:
                refused = failures.from_rpc_error(error)
                fleet.trouble(f"{refused.name or refused.code.name}: {refused.message}".replace(host_id, "HOST")[:200])
            except asyncio.InvalidStateError:
                fleet.trouble("the stream broke")
            await asyncio.sleep(self._backoff.next())

    async def _session(self, call: Any, hello: bytes, inventory: bytes, load: bytes, phase: float) -> None:
        """Until control ends it."""
        fleet = self._fleet
        sender: asyncio.Task[None] | None = None
        welcomed = registered = 0
        try:
            await call.write(hello)
            while (answer := await call.read()) is not grpc.aio.EOF:
                told = pb.SessionResponse.FromString(answer)
                kind = told.WhichOneof("message")
                if kind == "welcome":
                    if told.welcome.host_id != self.host_id:
                        raise _taken(self.host_id)
                    welcomed = 1
                    fleet.note(welcomed=1)
                    await call.write(inventory)
                    # As a node does: what it offers may take its time to be stored.
                    sender = asyncio.create_task(self._send(call, load, phase))
                elif kind == "inventory_result" and not registered:
                    registered = 1
                    fleet.note(registered=1)
                    self._backoff.reset()
        finally:
            fleet.note(-registered, -welcomed)
            if sender is not None:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, call: Any, load: bytes, phase: float) -> None:
        fleet, interval = self._fleet, self._fleet.shape.interval
        due = phase + interval * math.ceil((time.monotonic() - phase) / interval)
        try:
            while True:
                await asyncio.sleep(due - time.monotonic())
                await call.write(load)
                fleet.sent += 1
                due += interval
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the reader learns why


# Joining.


async def enroll(target: str, token: str, shape: Shape) -> Reach:
    """A certificate for each node. One key for all of them: keys cost the simulator time, and control none.

    UserError if control refuses, or is not the one of the token.
    """
    try:
        told = join_token.read(token)
    except ValueError as error:
        raise UserError(str(error)) from error
    ca = await enrol.authority(target, told)
    host, _ = address.split(target)
    key = tls.new_key()
    csr = tls.make_csr(key, "a fleet").decode()
    papers: dict[str, Tls] = {}
    peers = 0
    async with channels.aio_channel(target, Tls(ca)) as channel:
        stub = node_service_pb2_grpc.NodeServiceStub(channel)
        few = asyncio.Semaphore(_ENROLMENTS_AT_ONCE)

        async def one(host_id: str) -> None:
            nonlocal peers
            request = pb.EnrollRequest(
                join_token=token, host_id=host_id, display_name=host_id, machine_id=f"machine of {host_id}"
            )
            wanted = request.peers.add(kind=credential_pb2.PEER_KIND_NODE)
            wanted.certificate_request.csr = csr
            async with few:
                answer = await stub.Enroll(request, timeout=_ENROLMENT_SECONDS)
            if answer.host_id != host_id:
                raise _taken(host_id)
            papers[host_id] = Tls(answer.trust.ca_bundle.encode(), answer.certificates[0].chain.encode(), key)
            peers = answer.peer_port

        try:
            await _all(one(host_id) for host_id in host_ids(shape.nodes))
        except grpc.RpcError as error:
            raise UserError(f"control enrols nobody: {failures.from_rpc_error(error).message}", EXIT_FAILED) from error
    return Reach(address.join(host, peers), papers=papers)


def _taken(host_id: str) -> UserError:
    return UserError(
        f"control knows another machine by the name {host_id}. Forget it first: geniehive hosts forget {host_id}",
        EXIT_FAILED,
    )


async def _all(steps: Any) -> None:
    """Runs all; the first error ends them."""
    tasks = [asyncio.create_task(step) for step in steps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# How quick control answers meanwhile.


class Pulse:
    """answers: seconds that control took to answer whether it is well. lags: seconds by which our loop came late."""

    def __init__(self) -> None:
        self.answers: list[float] = []
        self.lags: list[float] = []


@asynccontextmanager
async def pulse(target: str, ca: Tls | None = None) -> AsyncIterator[Pulse]:
    """Feels it as long as the context lasts."""
    felt = Pulse()
    tasks = Tasks()

    async def feel(channel: grpc.aio.Channel) -> None:
        check: Any = channel.unary_unary(_HEALTH)
        while True:
            due = time.monotonic() + 1 / _SAMPLES_A_SECOND
            await asyncio.sleep(1 / _SAMPLES_A_SECOND)
            begun = time.monotonic()
            felt.lags.append(begun - due)
            try:
                await check(b"", timeout=5.0)
            except grpc.RpcError:
                continue
            felt.answers.append(time.monotonic() - begun)

    async with channels.aio_channel(target, ca) as channel:
        tasks.start(feel(channel), "pulse")
        try:
            yield felt
        finally:
            await tasks.close()


def quantile(values: Sequence[float], q: float) -> float | None:
    """None of no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None
