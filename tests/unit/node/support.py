"""A control and an engine that a test holds in its hand, on real sockets."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import grpc
from aiohttp import web
from google.protobuf.duration_pb2 import Duration

from geniehive import failures
from geniehive.channels import SERVER_OPTIONS
from geniehive.kit import tls
from geniehive.kit.http1 import Origin
from geniehive.membership import Cluster, Credential
from geniehive.rules.identity import CONTROL_NAME, Peer, PeerKind, relay_name
from geniehive.v1 import credential_pb2, node_service_pb2_grpc
from geniehive.v1 import node_service_pb2 as pb

DEADLINE = 10.0


def duration(seconds: float) -> Duration:
    made = Duration()
    made.FromNanoseconds(int(seconds * 1e9))
    return made


async def until(condition: Callable[[], Any]) -> None:
    """Until it holds; TimeoutError names it otherwise."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.005)


DAY = 86400.0


class Ca:
    """The CA of a cluster."""

    def __init__(self, cluster_id: str = "cluster-1") -> None:
        self.cluster_id = cluster_id
        certificate, key = tls.make_authority(f"GenieHive {cluster_id}", time.time())
        self.authority = tls.Authority(certificate, key)
        self.bundle = self.authority.bundle

    def issue(
        self,
        csr: bytes,
        kind: PeerKind,
        peer_id: str,
        *,
        seconds: float = 30 * DAY,
        ago: float = 0.0,
        cluster_id: str | None = None,
    ) -> tls.Issued:
        """ago: it was issued so many seconds ago; the certificate may have expired since."""
        peer = Peer(cluster_id or self.cluster_id, kind, peer_id)
        return self.authority.issue(
            tls.read_csr(csr),
            peer.words,
            now=time.time() - ago,
            seconds=seconds,
            uris=[peer.uri],
            dns=[relay_name(peer.cluster_id, peer_id)] if kind is PeerKind.NODE else [],
        )

    def credential(self, folder: Path, kind: PeerKind, peer_id: str, **more: Any) -> Credential:
        """As `geniehive join` leaves it in the state folder."""
        folder.mkdir(exist_ok=True, parents=True)
        made = Credential(folder, kind)
        csr = made.request(peer_id)
        made.believe(self.bundle)
        assert made.accept(self.issue(csr, kind, peer_id, **more).chain)
        return made

    def join(self, folder: Path, host_id: str, control: str, **more: Any) -> Credential:
        """Makes a node's state folder that of a machine that joined."""
        made = self.credential(folder, PeerKind.NODE, host_id, **more)
        Cluster(self.cluster_id, host_id, control, control).save(folder)
        return made

    def serve(self, seconds: float = 30 * DAY, ago: float = 0.0, name: str = CONTROL_NAME) -> grpc.ServerCredentials:
        """Of control, for nodes with a certificate."""
        key = tls.new_key()
        public = tls.read_csr(tls.make_csr(key, "control"))
        issued = self.authority.issue(public, "control", now=time.time() - ago, seconds=seconds, dns=[name])
        return grpc.ssl_server_credentials([(key, issued.chain)], self.bundle, require_client_auth=True)


class FakeControl(node_service_pb2_grpc.NodeServiceServicer):
    """Welcomes every node and answers its inventories, unless told otherwise.

    ca: gives certificates and says whom to believe. credentials: serves by TLS.
    """

    def __init__(self, ca: Ca | None = None, credentials: grpc.ServerCredentials | None = None) -> None:
        self.ca = ca
        self.credentials = credentials
        self.issuer = ca
        self.renew_after = 10 * DAY
        self.revoked: list[str] = []
        self.proofs: list[str] = []
        self.received: list[pb.SessionRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.sessions = 0
        self.closed_by_node = 0
        self.answers = True
        self.welcomes = True
        self.rename: str | None = None
        self.refuses: failures.Refused | None = None
        self.heartbeat_interval = 0.1
        self.load_interval = 0.2
        self._kick: asyncio.Future[failures.Refused | None] | None = None
        self._context: Any = None
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        node_service_pb2_grpc.add_NodeServiceServicer_to_server(self, self._server)
        where = f"127.0.0.1:{self.port}"
        self.port = (
            self._server.add_secure_port(where, self.credentials)
            if self.credentials is not None
            else self._server.add_insecure_port(where)
        )
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def kick(self, refused: failures.Refused | None = None) -> None:
        """Ends the open stream: with an error, or in good order."""
        assert self._kick is not None
        self._kick.set_result(refused)

    async def send(self, message: pb.SessionResponse) -> None:
        await self._context.write(message)

    async def tell_trust(self, *revoked: str) -> None:
        assert self.ca is not None
        self.revoked += revoked
        trust = credential_pb2.Trust(ca_bundle=self.ca.bundle.decode(), revoked_serials=self.revoked)
        await self.send(pb.SessionResponse(trust=trust))

    async def certify(self, request: credential_pb2.CertificateRequest, host_id: str) -> None:
        assert self.issuer is not None
        issued = self.issuer.issue(request.csr.encode(), PeerKind.NODE, host_id)
        certificate = credential_pb2.Certificate(chain=issued.chain.decode(), renew_after=duration(self.renew_after))
        await self.send(pb.SessionResponse(certificate=certificate))

    async def Enroll(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def Leave(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def Session(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        self.sessions += 1
        self.metadata.append(dict(context.invocation_metadata()))
        self.proofs += [uri.decode() for uri in context.auth_context().get("peer_spiffe_id", [])]
        if self.refuses is not None:
            await failures.abort(context, self.refuses)
        self._context = context
        self._kick = kick = asyncio.get_running_loop().create_future()
        reader = asyncio.create_task(self._read(context))
        # A read ends with an error of its own when the call is aborted.
        reader.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait([reader, kick], return_when=asyncio.FIRST_COMPLETED)
            if kick.done() and (refused := kick.result()) is not None:
                await failures.abort(context, refused)
        finally:
            reader.cancel()

    async def _read(self, context: Any) -> None:
        while True:
            message = await context.read()
            if message is grpc.aio.EOF:
                self.closed_by_node += 1
                return
            self.received.append(message)
            kind = message.WhichOneof("message")
            if kind == "hello":
                host_id = self.rename or message.hello.host_id
            if kind == "hello" and self.welcomes:
                welcome = pb.Welcome(
                    session_id=f"s{self.sessions}",
                    cluster_id="cluster-1",
                    host_id=host_id,
                    lease_ttl=duration(2.5),
                    heartbeat_interval=duration(self.heartbeat_interval),
                    load_interval=duration(self.load_interval),
                )
                await context.write(pb.SessionResponse(welcome=welcome))
                if self.ca is not None:
                    await self.tell_trust()
            elif kind == "certificate_request":
                await self.certify(message.certificate_request, host_id)
            elif kind == "inventory" and self.answers:
                result = pb.InventoryResult(revision=message.inventory.revision)
                await context.write(pb.SessionResponse(inventory_result=result))

    def kinds(self) -> list[str]:
        return [str(m.WhichOneof("message")) for m in self.received]

    def of(self, kind: str) -> list[Any]:
        return [getattr(m, kind) for m in self.received if m.WhichOneof("message") == kind]


class Wire:
    """A server that answers by a table of paths, as engines were seen to do, and writes down what it was asked."""

    def __init__(self, answers: dict[str, Any] | None = None, server: str = "uvicorn", **more: Any) -> None:
        # "GET /v1/models" -> bytes or str as it is, anything else as JSON, or (status, body).
        self.answers: dict[str, Any] = answers or {}
        self.server = server
        self.headers: dict[str, str] = dict(more)
        self.asked: list[str] = []
        self.keys: list[str | None] = []
        self.connections = 0
        self._runner: web.ServerRunner | None = None
        self.origin = Origin("http", "127.0.0.1", 0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        made = web.Server(self._handle, access_log=None)
        connect = made.connection_made

        def counted(handler: Any, transport: Any) -> None:
            self.connections += 1
            connect(handler, transport)

        made.connection_made = counted  # type: ignore[method-assign]
        self._runner = web.ServerRunner(made, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.origin.port).start()
        self.origin = Origin("http", "127.0.0.1", self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = f"{request.method} {request.path}"
        self.asked.append(asked)
        self.keys.append(request.headers.get("authorization"))
        found = self.answers.get(asked, (404, {"detail": "Not Found"}))
        status, body = found if isinstance(found, tuple) else (200, found)
        headers = {"server": self.server, **self.headers}
        if callable(body):
            made: web.StreamResponse = await body(request)
            return made
        if isinstance(body, Path):
            kind = "text/html" if body.suffix == ".html" else "application/json"
            return web.Response(status=status, body=body.read_bytes(), content_type=kind, headers=headers)
        if isinstance(body, str):
            return web.Response(status=status, text=body, headers=headers)
        return web.json_response(body, status=status, headers=headers)


def capture(name: str) -> Path:
    """An answer of a real engine."""
    return Path(__file__).resolve().parents[2] / "data" / "engines" / name
