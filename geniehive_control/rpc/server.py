"""Listens, with health checking and reflection, and stops in order."""

import logging
import socket

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
from geniehive_control.rpc.admin_service import AdminService
from geniehive_control.rpc.auth import Authenticator
from geniehive_control.rpc.guard import Guard
from geniehive_control.rpc.node_service import Intervals, NodeService
from geniehive_control.rpc.registry_service import QUIET, RegistryService
from geniehive_control.rpc.routing_service import RoutingService

log = logging.getLogger(__name__)

SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (node_service_pb2, "NodeService"),
        (routing_service_pb2, "RoutingService"),
        (registry_service_pb2, "RegistryService"),
        (admin_service_pb2, "AdminService"),
    )
)


def check_free(listen: str) -> None:
    """UserError if control can't listen there; gRPC itself would not say why."""
    host, port = address.split(listen)
    try:
        (family, kind, _, _, where), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise _cannot_listen(listen, error.strerror or str(error)) from error


def _cannot_listen(listen: str, why: str) -> UserError:
    return UserError(
        f"control cannot listen on {listen}: {why}. Stop what uses it (another control?), "
        "or choose another address: --set listen=HOST:PORT"
    )


class Server:
    def __init__(
        self,
        hub: Hub,
        authenticator: Authenticator,
        intervals: Intervals,
        control_id: str,
        quiet: float = QUIET,
    ) -> None:
        self._hub = hub
        self._server = grpc.aio.server(interceptors=[Guard(authenticator)], options=SERVER_OPTIONS)
        # Abstract: the guard answers for the methods that stand in the contract before they are served.
        nodes = NodeService(hub, intervals)  # type: ignore[abstract]
        routing = RoutingService(hub, control_id)  # type: ignore[abstract]
        registry = RegistryService(hub, control_id, quiet)  # type: ignore[abstract]
        admin = AdminService(hub)  # type: ignore[abstract]
        node_service_pb2_grpc.add_NodeServiceServicer_to_server(nodes, self._server)
        routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(routing, self._server)
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(registry, self._server)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self, listen: str) -> str:
        """Gives the address that is listened on. UserError if that can't be."""
        host, _ = address.split(listen)
        try:
            port = self._server.add_insecure_port(listen)
        except RuntimeError as error:
            raise _cannot_listen(listen, "it is in use") from error
        await self._server.start()
        for name in SERVICES:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return address.join(host, port)

    async def stop(self, seconds: float) -> None:
        """Ends every stream with its last words, for at most so long."""
        await self._health.enter_graceful_shutdown()
        self._hub.end_streams()
        await self._hub.until_idle(seconds)
        # What is left are watchers of health and reflection, which would stay for ever.
        await self._server.stop(0.1)
