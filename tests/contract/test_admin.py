"""AdminService on a real server: client keys, and forgetting hosts."""

import time
from typing import Any

import grpc

from geniehive import convert
from geniehive.rules.model import ClientKey, Scope
from geniehive.v1 import admin_service_pb2 as pb
from geniehive.v1 import credential_pb2, registry_service_pb2
from geniehive_control.rpc.auth import digest
from tests.support.cluster import service
from tests.support.control_server import Control, as_, bearer, for_client, refused, running_control

ADMIN = as_("admin")


async def create(
    control: Control, *scopes: int, name: str = "ci", expires: float | None = None
) -> pb.CreateClientKeyResponse:
    request = pb.CreateClientKeyRequest(display_name=name, scopes=scopes)  # type: ignore[arg-type]
    if expires is not None:
        request.expire_time.CopyFrom(convert.timestamp(expires))
    answer: pb.CreateClientKeyResponse = await control.admin.CreateClientKey(request, metadata=ADMIN)
    return answer


async def hosts_as(control: Control, key: str) -> object:
    return await control.registry.ListHosts(registry_service_pb2.ListHostsRequest(), metadata=bearer(key))


async def test_a_created_key_is_stored_and_at_gateways_at_once() -> None:
    async with running_control() as control:
        gateway = await control.gateway()
        made = await create(control, Scope.READ, Scope.INFER)
        key_id = made.client_key.key_id
        assert made.key.startswith("gh-")
        assert len(made.key) >= 40
        assert made.client_key.key_sha256 == b""
        await gateway.until(lambda: f"key/{key_id}" in gateway.table)
        assert gateway.table[f"key/{key_id}"].content == ClientKey(
            key_id=key_id, sha256=digest(made.key), display_name="ci", scopes=(Scope.INFER, Scope.READ)
        )
        assert await hosts_as(control, made.key) is not None
        assert made.key not in repr(control.store.keys)
        assert [(line.caller, line.action, line.target) for line in control.store.audit] == [
            ("admin", "create key", key_id)
        ]
        store = control.store
    async with running_control(store) as control:
        assert await hosts_as(control, made.key) is not None


async def test_a_revoked_key_stops_at_once() -> None:
    async with running_control() as control:
        gateway = await control.gateway()
        made = await create(control, Scope.READ)
        name = f"key/{made.client_key.key_id}"
        await gateway.until(lambda: name in gateway.table)
        await control.admin.RevokeClientKey(pb.RevokeClientKeyRequest(key_id=made.client_key.key_id), metadata=ADMIN)
        await gateway.until(lambda: name not in gateway.table)
        assert (await refused(hosts_as(control, made.key))).name == "CREDENTIAL_REVOKED"
        store = control.store
    async with running_control(store) as control:
        assert (await refused(hosts_as(control, made.key))).name == "CREDENTIAL_REVOKED"


async def test_a_key_that_is_revoked_before_the_request_came_is_no_good() -> None:
    async with running_control() as control:
        made = await create(control, Scope.ADMIN)
        request = pb.CreateClientKeyRequest(display_name="mine", scopes=[credential_pb2.SCOPE_ADMIN])
        # A caller that announces its call, and sends the request later.
        slow: Any = control.channel.stream_unary("/geniehive.v1.AdminService/CreateClientKey")
        call = slow(metadata=bearer(made.key))
        await call.wait_for_connection()
        await control.admin.RevokeClientKey(pb.RevokeClientKeyRequest(key_id=made.client_key.key_id), metadata=ADMIN)
        await call.write(request.SerializeToString())
        await call.done_writing()
        assert (await refused(call)).name == "CREDENTIAL_REVOKED"
        assert len(control.store.keys) == 1


async def test_an_expired_key_stops_by_itself() -> None:
    async with running_control() as control:
        gateway = await control.gateway()
        made = await create(control, Scope.READ, expires=time.time() + 0.5)
        name = f"key/{made.client_key.key_id}"
        await gateway.until(lambda: name in gateway.table)
        await gateway.until(lambda: name not in gateway.table)
        assert (await refused(hosts_as(control, made.key))).name == "CREDENTIAL_REFUSED"


async def test_what_cannot_be_revoked() -> None:
    async with running_control() as control:
        for key_id, name in (("infer", "OWNED_BY_FILE"), ("none", "OBJECT_NOT_FOUND")):
            call = control.admin.RevokeClientKey(pb.RevokeClientKeyRequest(key_id=key_id), metadata=ADMIN)
            assert (await refused(call)).name == name


async def test_wrong_fields() -> None:
    async with running_control() as control:
        beyond = pb.CreateClientKeyRequest(scopes=[credential_pb2.SCOPE_READ])
        beyond.expire_time.seconds = 10**15
        for call, field in (
            (create(control), "scopes"),
            (create(control, 0), "scopes"),
            (create(control, 99), "scopes"),
            (create(control, Scope.READ, name="a\nb"), "display_name"),
            (create(control, Scope.READ, name="x" * 300), "display_name"),
            (create(control, Scope.READ, expires=time.time() - 1), "expire_time"),
            (create(control, Scope.READ, expires=253402300799), "expire_time"),
            (control.admin.CreateClientKey(beyond, metadata=ADMIN), "expire_time"),
        ):
            error = await refused(call)
            assert (error.name, error.metadata) == ("FIELD_INVALID", {"field": field})
        assert control.store.keys == {}


async def test_keys_are_listed_oldest_first_without_hashes() -> None:
    async with running_control() as control:
        made = [(await create(control, Scope.READ, name=f"k{number}")).client_key.key_id for number in range(3)]
        listed: list[credential_pb2.ClientKey] = []
        token = ""
        while True:
            request = pb.ListClientKeysRequest(page_size=2, page_token=token)
            answer = await control.admin.ListClientKeys(request, metadata=ADMIN)
            listed += answer.client_keys
            if not (token := answer.next_page_token):
                break
        assert [key.key_id for key in listed] == ["admin", "infer", "operate", "read", *made]
        assert [key.configured for key in listed] == [True] * 4 + [False] * 3
        assert all(key.key_sha256 == b"" for key in listed)


async def test_a_database_that_fails_stores_nothing_and_changes_nothing() -> None:
    async with running_control() as control:
        made = await create(control, Scope.READ)
        await control.node("gpu-1", service("gpu-1/a", "m"))
        control.store.failing = "locked"
        for call in (
            create(control, Scope.READ),
            control.admin.RevokeClientKey(pb.RevokeClientKeyRequest(key_id=made.client_key.key_id), metadata=ADMIN),
            control.admin.ForgetHost(pb.ForgetHostRequest(host_id="gpu-1"), metadata=ADMIN),
        ):
            error = await refused(call)
            assert error.name == "STORE_UNAVAILABLE"
            assert "locked" in error.message
        assert len(control.hub.registry.keys.all()) == 5
        assert control.hub.registry.host("gpu-1") is not None
        assert await hosts_as(control, made.key) is not None


async def test_forgetting_a_host() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1", service("gpu-1/a", "m"))
        gateway = await control.gateway()
        await control.admin.ForgetHost(pb.ForgetHostRequest(host_id="gpu-1"), metadata=ADMIN)
        assert (await node.ending()).name == "CREDENTIAL_REVOKED"
        await gateway.until(lambda: not any("gpu-1" in name for name in gateway.table))
        assert control.store.hosts == {}
        assert control.store.audit[-1].action == "forget host"
        error = await refused(control.admin.ForgetHost(pb.ForgetHostRequest(host_id="gpu-1"), metadata=ADMIN))
        assert (error.name, error.metadata) == ("OBJECT_NOT_FOUND", {"name": "gpu-1"})
        again = await control.node("gpu-1", service("gpu-1/a", "m"))
        await again.beat()
        assert "gpu-1" in control.store.hosts


async def test_callers_need_scope_admin() -> None:
    async with running_control() as control:
        for metadata in (as_("operate"), as_("read"), for_client("infer"), for_client("admin")):
            call = control.admin.ListClientKeys(pb.ListClientKeysRequest(), metadata=metadata)
            error = await refused(call)
            assert (error.name, error.metadata) == ("SCOPE_MISSING", {"needs": "admin"})
        # Commands need operate; they stand in the contract, but are not served yet.
        for metadata, name in ((as_("read"), "SCOPE_MISSING"), (as_("operate"), "NOT_SERVED"), (ADMIN, "NOT_SERVED")):
            error = await control.stream(control.admin.RunCommand(pb.RunCommandRequest(), metadata=metadata)).ending()
            assert error.name == name
        assert (error.code, error.message[:12]) == (grpc.StatusCode.UNIMPLEMENTED, "this version")
