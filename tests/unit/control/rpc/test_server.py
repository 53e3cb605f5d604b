"""Listening, health checking, reflection, the guard before every service, and an orderly end."""

import asyncio
import logging
import socket
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from geniehive.kit import address
from geniehive.kit.errors import UserError
from geniehive.v1 import registry_service_pb2 as pb
from geniehive_control.rpc.auth import Required
from geniehive_control.rpc.server import SERVICES, check_free
from tests.support.control_server import Control, as_, refused, running_control, until


async def health(control: Control, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(control.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def test_health_is_open_to_all() -> None:
    async with running_control() as control:
        for service in ("", *SERVICES):
            assert await health(control, service) == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(control, "unknown")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_is_open_to_all() -> None:
    async with running_control() as control:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(control.channel)  # type: ignore[arg-type]
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await call.read()
        assert set(SERVICES) <= {service.name for service in answer.list_services_response.service}
        await call.done_writing()


async def test_who_watches_health_hears_of_the_stop_and_does_not_delay_it() -> None:
    async with running_control() as control:
        stub: Any = health_pb2_grpc.HealthStub(control.channel)
        call = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
        await control.server.stop(10.0)
        assert (await call.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_connection_that_asks_nothing_is_closed_and_one_with_a_stream_is_not() -> None:
    async with running_control(idle_ms=1000) as control:
        watch: Any = health_pb2_grpc.HealthStub(control.channel)  # type: ignore[no-untyped-call]
        call = watch.Watch(health_pb2.HealthCheckRequest())
        await call.read()
        reader, writer = await asyncio.open_connection(*address.split(control.address))
        # HTTP/2's preface and empty settings, and then nothing.
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        async with asyncio.timeout(20):
            await reader.read()
        writer.close()
        await control.server.stop(10.0)
        assert (await call.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_an_unknown_method() -> None:
    async with running_control() as control:
        call: Any = control.channel.unary_unary("/geniehive.v1.RegistryService/Nothing")
        assert (await refused(call(b"", metadata=as_("admin")))).code is grpc.StatusCode.UNIMPLEMENTED


async def test_an_error_that_nobody_expected_stays_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_control() as control:

        def broken() -> None:
            raise RuntimeError("a secret detail")

        with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
            patched.setattr(control.hub.registry, "hosts", broken)
            error = await refused(control.registry.ListHosts(pb.ListHostsRequest(), metadata=as_("read")))
            watch = control.stream(control.registry.WatchRegistry(pb.WatchRegistryRequest(), metadata=as_("read")))
            assert (await watch.ending()).code is grpc.StatusCode.INTERNAL
        assert error.code is grpc.StatusCode.INTERNAL
        assert "secret" not in error.message
        assert "a secret detail" in caplog.text
        await until(lambda: control.hub._watches == set())


async def test_authentication_off() -> None:
    async with running_control(required=Required(clients=False, nodes=False)) as control:
        node = control.session(())
        await node.hello("gpu-1")
        await node.register()
        answer = await control.registry.ListHosts(pb.ListHostsRequest())
        assert [view.host.host_id for view in answer.hosts] == ["gpu-1"]


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"cannot listen on {where}: .*in use.* --set listen=HOST:PORT"):
            check_free(where)
    check_free(where)
    check_free("[::1]:0")


def test_an_address_of_another_machine() -> None:
    with pytest.raises(UserError, match=r"cannot listen on 192\.0\.2\.1:1"):
        check_free("192.0.2.1:1")


async def test_a_port_that_is_taken_at_the_last_moment() -> None:
    async with running_control() as control, running_control() as other:
        with pytest.raises(UserError, match="in use"):
            await other.server.start(control.address)
