"""Listens, with health checking and reflection, and stops in order."""

import logging
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from geniehive.channels import SERVER_OPTIONS
from geniehive.kit import address
from geniehive.kit.errors import UserError
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
from geniehive_control.hub import Hub
from geniehive_control.joining import Joining
from geniehive_control.loads import Loads
from geniehive_control.rpc.admin_service import AdminService
from geniehive_control.rpc.auth import Authenticator
from geniehive_control.rpc.certificates import Certificates
from geniehive_control.rpc.guard import Guard
from geniehive_control.rpc.node_service import Intervals, NodeService
from geniehive_control.rpc.registry_service import QUIET, RegistryService
from geniehive_control.rpc.routing_service import RoutingService
from geniehive_control.usage import Usage

log = logging.getLogger(__name__)

# Who connects and asks nothing does not stay for ever.
_HANDSHAKE_MS, _IDLE_MS = 20_000, 300_000

SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (node_service_pb2, "NodeService"),
        (routing_service_pb2, "RoutingService"),
        (registry_service_pb2, "RegistryService"),
        (admin_service_pb2, "AdminService"),
    )
)


class Tls(NamedTuple):
    """listen: for tools, and for machines that join. peers_port: for those that joined; on the same host.

    own: gives control's key and chain, in PEM, for each new connection. bundle: whom control believes, in PEM.
    """

    listen: str
    peers_port: int
    own: Callable[[], tuple[bytes, bytes]]
    bundle: bytes


class Addresses(NamedTuple):
    """What is listened on: plain, and by TLS without and with certificates of callers; None: not."""

    plain: str
    tls: str | None = None
    peers: str | None = None


def check_free(listen: str, setting: str = "listen=HOST:PORT") -> None:
    """UserError if control can't listen there; gRPC itself would not say why. setting: how another is chosen."""
    host, port = address.split(listen)
    try:
        (family, kind, _, _, where), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise _cannot_listen(listen, error.strerror or str(error), setting) from error


def _cannot_listen(listen: str, why: str, setting: str = "listen=HOST:PORT") -> UserError:
    return UserError(
        f"control cannot listen on {listen}: {why}. Stop what uses it (another control?), "
        f"or choose another: --set {setting}"
    )


def _credentials(tls: Tls, *, demand: bool) -> grpc.ServerCredentials:
    """demand: whether callers must show a certificate. gRPC can demand one or not ask, and nothing in between."""
    shown = tls.own()

    def configure(pair: tuple[bytes, bytes]) -> Any:
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=tls.bundle)

    # Called on a thread of gRPC's, for every connection.
    def renewed() -> Any:
        nonlocal shown
        if (now := tls.own()) == shown:
            return None
        shown = now
        return configure(now)

    return grpc.dynamic_ssl_server_credentials(configure(shown), renewed, demand)


class Server:
    def __init__(
        self,
        hub: Hub,
        authenticator: Authenticator,
        intervals: Intervals,
        control_id: str,
        usage: Usage,
        loads: Loads,
        quiet: float = QUIET,
        joining: Joining | None = None,
        idle_ms: int = _IDLE_MS,
    ) -> None:
        """idle_ms: after so long without a call a connection is closed; its owner opens another when it needs one."""
        self._hub = hub
        self._joining = joining
        certificates = Certificates(hub, joining)
        options = [
            *SERVER_OPTIONS,
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
            ("grpc.max_connection_idle_ms", idle_ms),
        ]
        self._server = grpc.aio.server(interceptors=[Guard(authenticator)], options=options)
        # Abstract: the guard answers for the methods that stand in the contract before they are served.
        nodes = NodeService(hub, intervals, certificates)
        routing = RoutingService(hub, control_id, certificates, usage, loads)  # type: ignore[abstract]
        registry = RegistryService(hub, control_id, usage, quiet)
        admin = AdminService(hub, certificates)  # type: ignore[abstract]
        node_service_pb2_grpc.add_NodeServiceServicer_to_server(nodes, self._server)
        routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(routing, self._server)
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(registry, self._server)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self, listen: str, tls: Tls | None = None) -> Addresses:
        """Gives the addresses that are listened on. UserError if that can't be."""
        found = Addresses(self._listen(listen, "listen=HOST:PORT", None))
        if tls is not None:
            host, _ = address.split(tls.listen)
            peers = address.join(host, tls.peers_port)
            found = found._replace(
                tls=self._listen(tls.listen, "tls.listen=HOST:PORT", _credentials(tls, demand=False)),
                peers=self._listen(peers, "tls.peers_port=PORT", _credentials(tls, demand=True)),
            )
            if self._joining is not None:
                self._joining.tls_port = address.split(found.tls or "")[1]
                self._joining.peers_port = address.split(found.peers or "")[1]
        await self._server.start()
        for name in SERVICES:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return found

    def _listen(self, where: str, setting: str, credentials: grpc.ServerCredentials | None) -> str:
        host, _ = address.split(where)
        try:
            if credentials is None:
                port = self._server.add_insecure_port(where)
            else:
                port = self._server.add_secure_port(where, credentials)
        except RuntimeError as error:
            raise _cannot_listen(where, "it is in use", setting) from error
        return address.join(host, port)

    async def stop(self, seconds: float) -> None:
        """Ends every stream with its last words, for at most so long."""
        await self._health.enter_graceful_shutdown()
        self._hub.end_streams()
        await self._hub.until_idle(seconds)
        # What is left are watchers of health and reflection, which would stay for ever.
        await self._server.stop(0.1)
