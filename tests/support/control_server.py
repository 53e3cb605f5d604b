"""A control on a real socket, and peers to talk to it.

async with running_control() as control:
    node = await control.node("gpu-1")
    await node.register(service("gpu-1/ollama", "qwen3"))
    gateway = await control.gateway()
    await gateway.until(lambda: "route/qwen3" in gateway.table)

async with running_control(tls=True) as control:
    machine = await control.join("gpu-1", PeerKind.NODE, PeerKind.GATEWAY)
    node = machine[PeerKind.NODE].session()
    await node.hello("gpu-1")
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import grpc

from geniehive import convert, failures
from geniehive.channels import CLIENT_KEY_ID, NODE_KEY, Tls, aio_channel
from geniehive.kit import tls as certificates
from geniehive.kit.backoff import Backoff
from geniehive.kit.clock import SystemClock
from geniehive.rules.identity import Peer, PeerKind
from geniehive.rules.model import ClientKey, Inventory, Resource, Scope, Service
from geniehive.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    credential_pb2,
    load_pb2,
    node_service_pb2,
    node_service_pb2_grpc,
    registry_service_pb2_grpc,
    routing_service_pb2,
    routing_service_pb2_grpc,
)
from geniehive_control.authority import CertificateIssuer, OwnCertificate
from geniehive_control.core.events import CertificateIssued, Now
from geniehive_control.core.records import Origin, StoredCertificate
from geniehive_control.core.registry import Pace, Registry
from geniehive_control.hub import Hub
from geniehive_control.joining import Joining
from geniehive_control.loads import Loads
from geniehive_control.ports import Audit
from geniehive_control.rpc.auth import Authenticator, Required, digest
from geniehive_control.rpc.node_service import Intervals
from geniehive_control.rpc.server import Addresses, Server
from geniehive_control.rpc.server import Tls as Listeners
from geniehive_control.usage import Usage
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
    # The last that control told, and the last that it gave.
    trust: credential_pb2.Trust | None = None
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

    async def told(self, kind: str) -> Any:
        """The next message of this kind; trust that comes before it is kept."""
        while not (answer := await self.answer()).HasField(kind):
            assert answer is not None
            assert answer.HasField("trust"), answer
            self.trust = answer.trust
        if kind == "trust":
            self.trust = answer.trust
        return answer

    async def certificate(self, key: bytes, name: str = "test") -> credential_pb2.Certificate:
        """What control gives for this key."""
        csr = certificates.make_csr(key, name).decode()
        asked = credential_pb2.CertificateRequest(csr=csr)
        await self.send(node_service_pb2.SessionRequest(certificate_request=asked))
        found: credential_pb2.Certificate = (await self.told("certificate")).certificate
        return found

    async def offer(self, offered: Inventory) -> None:
        await self.send(node_service_pb2.SessionRequest(inventory=convert.inventory_to_proto(offered)))

    async def register(self, *services: Service, **fields: Any) -> node_service_pb2.InventoryResult:
        self.revision += 1
        await self.offer(inventory(self.host_id, services, self.revision, **fields))
        answer = await self.told("inventory_result")
        result: node_service_pb2.InventoryResult = answer.inventory_result
        return result

    async def beat(self) -> None:
        await self.send(node_service_pb2.SessionRequest(heartbeat=node_service_pb2.Heartbeat()))

    async def load(self, *services: load_pb2.ServiceLoad) -> None:
        await self.send(node_service_pb2.SessionRequest(load=node_service_pb2.Load(services=services)))

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
        self.trust: credential_pb2.Trust | None = None
        self.loads: list[routing_service_pb2.WatchRoutesResponse.LoadSample] = []
        self.table: dict[str, Resource] = {}
        self.updates = 0

    async def subscribe(self, held: dict[str, str] | None = None, gateway_id: str = "gw") -> None:
        subscribe = routing_service_pb2.WatchRoutesRequest.Subscribe(
            gateway_id=gateway_id, instance_id="1", gateway_version="1.0", base_url="http://gw", held_versions=held
        )
        await self.send(routing_service_pb2.WatchRoutesRequest(subscribe=subscribe))

    async def told(self, kind: str) -> Any:
        """The next message of this kind; trust and load that come before it are kept."""
        while not (answer := await self.answer()).HasField(kind):
            assert answer is not None
            if answer.HasField("load"):
                self.loads.append(answer.load)
                continue
            assert answer.HasField("trust"), answer
            self.trust = answer.trust
        if kind == "trust":
            self.trust = answer.trust
        return answer

    async def certificate(self, key: bytes, name: str = "test") -> credential_pb2.Certificate:
        """What control gives for this key."""
        csr = certificates.make_csr(key, name).decode()
        asked = credential_pb2.CertificateRequest(csr=csr)
        await self.send(routing_service_pb2.WatchRoutesRequest(certificate_request=asked))
        found: credential_pb2.Certificate = (await self.told("certificate")).certificate
        return found

    async def update(self) -> list[Any]:
        """The parts of the next update."""
        parts: list[Any] = []
        while not parts or parts[-1].more:
            parts.append((await self.told("update")).update)
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


class Member:
    """A daemon with a certificate, and its channel. `at`: another address; None: where joined daemons are served."""

    def __init__(
        self, control: "Control", kind: PeerKind, peer_id: str, key: bytes, chain: bytes, at: str | None = None
    ) -> None:
        self.kind = kind
        self.peer_id = peer_id
        self.key = key
        self.chain = chain
        self.serial = certificates.read_certificate(chain).serial
        self.link = Tls(control.ca, chain, key)
        self.channel = control.keep_channel(aio_channel(at or control.peers_address, self.link))
        self.nodes: Any = node_service_pb2_grpc.NodeServiceStub(self.channel)
        self.routing: Any = routing_service_pb2_grpc.RoutingServiceStub(self.channel)
        self.registry: Any = registry_service_pb2_grpc.RegistryServiceStub(self.channel)
        self._control = control

    def session(self) -> Node:
        return self._control.keep(Node(self.nodes.Session()))

    def watch(self) -> Gateway:
        return self._control.keep(Gateway(self.routing.WatchRoutes()))

    def reports(self) -> Stream:
        return self._control.keep(Stream(self.routing.ReportOutcomes()))


class Joined(NamedTuple):
    """What Enroll gave, and the daemons that have it now, by kind."""

    answer: node_service_pb2.EnrollResponse
    members: dict[PeerKind, Member]

    @property
    def host_id(self) -> str:
        return self.answer.host_id

    def __getitem__(self, kind: PeerKind) -> Member:  # type: ignore[override]
        return self.members[kind]


KINDS = {PeerKind.NODE: credential_pb2.PEER_KIND_NODE, PeerKind.GATEWAY: credential_pb2.PEER_KIND_GATEWAY}


class Control:
    """A running control with its parts. Peers that were made here are closed with it.

    With TLS: ca, the PEM to believe; authority, which issues; tls_address and peers_address; own, what it shows.
    """

    def __init__(
        self,
        hub: Hub,
        server: Server,
        store: FakeStore,
        addresses: Addresses,
        usage: Usage,
        loads: Loads,
        authority: certificates.Authority | None = None,
        own: OwnCertificate | None = None,
    ) -> None:
        self.hub = hub
        self.usage = usage
        self.loads = loads
        self.server = server
        self.store = store
        self.address = addresses.plain
        self.tls_address = addresses.tls or ""
        self.peers_address = addresses.peers or ""
        self.ca = authority.bundle if authority is not None else b""
        self._authority = authority
        self._own = own
        self._channels: list[grpc.aio.Channel] = []
        self.channel = self.keep_channel(aio_channel(self.address))
        self.nodes: Any = node_service_pb2_grpc.NodeServiceStub(self.channel)
        self.routing: Any = routing_service_pb2_grpc.RoutingServiceStub(self.channel)
        self.registry: Any = registry_service_pb2_grpc.RegistryServiceStub(self.channel)
        self.admin: Any = admin_service_pb2_grpc.AdminServiceStub(self.channel)
        self._streams: list[Stream] = []

    @property
    def authority(self) -> certificates.Authority:
        assert self._authority is not None
        return self._authority

    @property
    def own(self) -> OwnCertificate:
        assert self._own is not None
        return self._own

    async def token(self, uses: int = 1, ttl: float = 60.0, kinds: Iterable[PeerKind] = ()) -> str:
        """A new join token."""
        request = admin_service_pb2.CreateJoinTokenRequest(uses=uses, peer_kinds=[KINDS[kind] for kind in kinds])
        request.ttl.FromNanoseconds(round(ttl * 1e9))
        answer = await self.admin.CreateJoinToken(request, metadata=as_("admin"))
        return str(answer.token)

    async def enroll(self, request: node_service_pb2.EnrollRequest) -> node_service_pb2.EnrollResponse:
        """As a machine that joins: by TLS, without a certificate."""
        async with aio_channel(self.tls_address, Tls(self.ca)) as channel:
            stub: Any = node_service_pb2_grpc.NodeServiceStub(channel)
            answer: node_service_pb2.EnrollResponse = await stub.Enroll(request, timeout=DEADLINE)
            return answer

    async def join(
        self, host_id: str, *kinds: PeerKind, token: str | None = None, machine_id: str | None = None
    ) -> Joined:
        """A machine joins. kinds: its daemons; none: a node."""
        kinds = kinds or (PeerKind.NODE,)
        keys = [certificates.new_key() for _ in kinds]
        request = node_service_pb2.EnrollRequest(
            join_token=token or await self.token(), host_id=host_id, display_name=host_id, machine_id=machine_id
        )
        for kind, key in zip(kinds, keys, strict=True):
            csr = certificates.make_csr(key, host_id).decode()
            request.peers.add(kind=KINDS[kind], certificate_request=credential_pb2.CertificateRequest(csr=csr))
        answer = await self.enroll(request)
        chains = [given.chain.encode() for given in answer.certificates]
        members = {
            kind: Member(self, kind, answer.host_id, key, chain)
            for kind, key, chain in zip(kinds, keys, chains, strict=True)
        }
        return Joined(answer, members)

    async def member(
        self,
        kind: PeerKind,
        peer_id: str,
        *,
        seconds: float = 3600.0,
        age: float = 0.0,
        cluster_id: str = "c1",
        authority: certificates.Authority | None = None,
        known: bool = True,
        at: str | None = None,
    ) -> Member:
        """A daemon whose certificate was made past Enroll, so many seconds ago.

        known: whether control has it in its database.
        """
        key = certificates.new_key()
        public = certificates.read_csr(certificates.make_csr(key, peer_id))
        now = self.hub.now().wall - age
        issuer = CertificateIssuer(authority or self.authority)
        made = issuer.issue(public, Peer(cluster_id, kind, peer_id), now, seconds)
        if known:
            kept = StoredCertificate(
                serial=made.serial, kind=kind, peer_id=peer_id, issued=now, expires=made.not_after, origin=Origin.TOKEN
            )
            await self.store.add_certificates([kept], Audit(at=now, caller="test", action="certify", target=peer_id))
            self.hub.feed(CertificateIssued(certificate=kept))
        return Member(self, kind, peer_id, key, made.chain, at)

    def session(self, metadata: Iterable[tuple[str, str]] = AS_NODE) -> Node:
        return self.keep(Node(self.nodes.Session(metadata=tuple(metadata))))

    async def node(self, host_id: str, *services: Service, **hello: Any) -> Node:
        """A node that said hello and, given services, registered."""
        node = self.session()
        await node.hello(host_id, **hello)
        if services:
            await node.register(*services)
        return node

    def watch(self, metadata: Iterable[tuple[str, str]] = AS_NODE) -> Gateway:
        return self.keep(Gateway(self.routing.WatchRoutes(metadata=tuple(metadata))))

    async def gateway(self, held: dict[str, str] | None = None) -> Gateway:
        """A gateway that has applied its first update."""
        gateway = self.watch()
        await gateway.subscribe(held)
        await gateway.apply()
        return gateway

    def stream(self, call: Any) -> Stream:
        return self.keep(Stream(call))

    def keep(self, stream: T) -> T:
        self._streams.append(stream)  # type: ignore[arg-type]
        return stream

    def keep_channel(self, channel: grpc.aio.Channel) -> grpc.aio.Channel:
        self._channels.append(channel)
        return channel

    async def close(self) -> None:
        for stream in self._streams:
            await stream.close()
        await self.server.stop(1.0)
        await self.hub.close(1.0)
        for channel in self._channels:
            await channel.close()


@asynccontextmanager
async def running_control(
    store: FakeStore | None = None,
    *,
    lease_ttl: float = 5.0,
    restart_grace: float = 30.0,
    quiet: float = 10.0,
    required: Required | None = None,
    tls: bool | certificates.Authority = False,
    certificate_seconds: float = 3600.0,
    idle_ms: int = 300_000,
    report_interval: float = 5.0,
    load_interval: float = 1.0,
) -> AsyncIterator[Control]:
    """tls: with the listeners for other machines; an authority: by this CA, for a control that restarts."""
    store = store or FakeStore()
    clock = SystemClock()
    pace = Pace(lease_ttl=lease_ttl, restart_grace=restart_grace)
    now = Now(clock.now(), clock.wall())
    stored = await store.load()
    registry = Registry(stored, now, pace, configured(), tls=tls is not False)
    hub = Hub(registry, store, clock, Backoff(0.01, 0.02))
    required = required or Required(node_keys=(digest(NODE_SECRET),))
    intervals = Intervals(lease_ttl=lease_ttl, heartbeat=lease_ttl / 3, load=load_interval)
    authority = own = listeners = joining = None
    if tls is not False:
        authority = certificates.Authority(*certificates.make_authority("test", now.wall)) if tls is True else tls
        own = OwnCertificate(authority, clock, certificate_seconds)
        listeners = Listeners("127.0.0.1:0", 0, lambda: own.pair, authority.bundle)
        issuer = CertificateIssuer(authority)
        joining = Joining(hub, store, issuer, certificate_seconds, lambda port: [f"192.0.2.1:{port}"])
    authenticator = Authenticator(required, registry.keys, clock.wall, registry.trust, registry.cluster_id)
    usage = Usage(hub, store, clock, stored.reported, interval=report_interval)
    loads = Loads(hub, load_interval)
    server = Server(hub, authenticator, intervals, "control-1", usage, loads, quiet, joining, idle_ms)
    hub.start()
    usage.start()
    loads.start()
    addresses = await server.start("127.0.0.1:0", listeners)
    control = Control(hub, server, store, addresses, usage, loads, authority, own)
    try:
        yield control
        assert not hub.tasks.failed.done(), "a background task failed"
    finally:
        await control.close()
