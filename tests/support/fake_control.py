"""A control that answers what it is told to, on a real socket: for what calls it synchronously."""

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc

from geniehive.failures import Refused, to_status
from geniehive.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    registry_service_pb2,
    registry_service_pb2_grpc,
    routing_service_pb2,
    routing_service_pb2_grpc,
)

SERVICES = (
    (registry_service_pb2, "RegistryService", registry_service_pb2_grpc.add_RegistryServiceServicer_to_server),
    (routing_service_pb2, "RoutingService", routing_service_pb2_grpc.add_RoutingServiceServicer_to_server),
    (admin_service_pb2, "AdminService", admin_service_pb2_grpc.add_AdminServiceServicer_to_server),
)


class FakeControl:
    """`answers`: method name to response, to Refused, or to a function of the request. Others answer emptily."""

    def __init__(self) -> None:
        self.address = ""
        self.answers: dict[str, Any] = {}
        self.requests: list[Any] = []
        self.keys: list[str] = []

    def ask(self, name: str, response: type[Any], request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        given = dict(context.invocation_metadata())
        self.keys.append(str(given.get("authorization", "")))
        answer = self.answers.get(name, response())
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Refused):
            context.abort_with_status(to_status(answer))
        return answer


def servicer(control: FakeControl, module: Any, name: str) -> Any:
    """A servicer of every unary method of a service."""

    def method(method_name: str) -> Any:
        response = getattr(module, f"{method_name}Response")
        return lambda request, context: control.ask(method_name, response, request, context)

    made = type(name, (), {})()
    for described in module.DESCRIPTOR.services_by_name[name].methods:
        setattr(made, described.name, method(described.name))
    return made


@contextmanager
def fake_control(port: int = 0) -> Iterator[FakeControl]:
    control = FakeControl()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    for module, name, add in SERVICES:
        add(servicer(control, module, name), server)
    control.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    try:
        yield control
    finally:
        server.stop(None).wait()
