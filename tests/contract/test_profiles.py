"""Roles and aliases on a real server: AdminService changes them, RegistryService tells them, they outlive control."""

from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from geniehive.failures import Refused
from geniehive.v1 import admin_service_pb2 as pb
from geniehive.v1 import registry_service_pb2, request_pb2, role_pb2
from geniehive_control.core import events as e
from geniehive_control.core.refusal import Why
from tests.support.cluster import service
from tests.support.control_server import Control, as_, for_client, refused, running_control

OPERATE, READ = as_("operate"), as_("read")
CHAT = request_pb2.OPERATION_CHAT


def role(role_id: str, **fields: Any) -> role_pb2.Role:
    return role_pb2.Role(role_id=role_id, operation=CHAT, **fields)


def falls_back(*role_ids: str) -> role_pb2.RoutingPolicy:
    return role_pb2.RoutingPolicy(fallback_role_ids=role_ids)


def policy_of(defaults_json: str) -> request_pb2.RequestPolicy:
    return request_pb2.RequestPolicy(defaults_json=defaults_json)


async def create(control: Control, given: role_pb2.Role, metadata: Any = OPERATE) -> role_pb2.Role:
    made: role_pb2.Role = (await control.admin.CreateRole(pb.CreateRoleRequest(role=given), metadata=metadata)).role
    return made


async def update(control: Control, given: role_pb2.Role, *paths: str) -> role_pb2.Role:
    request = pb.UpdateRoleRequest(role=given, update_mask=FieldMask(paths=paths))
    made: role_pb2.Role = (await control.admin.UpdateRole(request, metadata=OPERATE)).role
    return made


async def delete(control: Control, role_id: str, etag: str = "") -> None:
    await control.admin.DeleteRole(pb.DeleteRoleRequest(role_id=role_id, etag=etag), metadata=OPERATE)


async def set_alias(control: Control, alias: str, target: str, etag: str = "") -> role_pb2.Alias:
    given = role_pb2.Alias(alias=alias, target=target, etag=etag)
    made: role_pb2.Alias = (await control.admin.SetAlias(pb.SetAliasRequest(alias=given), metadata=OPERATE)).alias
    return made


async def listed(control: Control) -> list[str]:
    answer = await control.registry.ListRoles(registry_service_pb2.ListRolesRequest(), metadata=READ)
    return [found.role_id for found in answer.roles]


async def aliases(control: Control) -> dict[str, str]:
    answer = await control.registry.ListAliases(registry_service_pb2.ListAliasesRequest(), metadata=READ)
    return {found.alias: found.target for found in answer.aliases}


async def invalid(call: Any) -> str:
    error: Refused = await refused(call)
    assert error.name == "FIELD_INVALID"
    return error.metadata["field"]


async def test_a_role_from_its_creation_to_its_end() -> None:
    async with running_control() as control:
        made = await create(control, role("coder", display_name="Coder", etag="x", owner=role_pb2.OWNER_FILE))
        assert (made.owner, made.display_name) == (role_pb2.OWNER_API, "Coder")
        assert made.etag not in ("", "x")
        request = registry_service_pb2.GetRoleRequest(role_id="coder")
        assert (await control.registry.GetRole(request, metadata=READ)).role == made
        error = await refused(create(control, role("coder")))
        assert (error.code, error.name) == (grpc.StatusCode.ALREADY_EXISTS, "UNSPECIFIED")
        await create(control, role("writer", routing_policy=falls_back("coder")))
        assert await listed(control) == ["coder", "writer"]
        error = await refused(delete(control, "coder"))
        assert (error.name, error.metadata) == ("STILL_REFERENCED", {"names": "role writer"})
        await delete(control, "writer")
        store = control.store
    async with running_control(store) as control:
        assert (await control.registry.GetRole(request, metadata=READ)).role == made
        assert (await refused(delete(control, "coder", "old"))).name == "ETAG_STALE"
        await delete(control, "coder", made.etag)
        assert (await refused(delete(control, "coder"))).metadata == {"name": "coder"}
        assert (await refused(control.registry.GetRole(request, metadata=READ))).name == "OBJECT_NOT_FOUND"
        assert [(line.caller, line.action, line.target) for line in store.audit] == [
            ("operate", "create role", "coder"),
            ("operate", "create role", "writer"),
            ("operate", "delete role", "writer"),
            ("operate", "delete role", "coder"),
        ]


async def test_an_update_takes_what_its_mask_names() -> None:
    async with running_control() as control:
        routing = role_pb2.RoutingPolicy(
            preferred_families=["a", "b"], preferred_labels={"x": "1"}, min_context_tokens=10, allow_hosted=False
        )
        policy = request_pb2.RequestPolicy(
            defaults_json='{"n": 4096}', system_prompt=request_pb2.SystemPrompt(prepend="before")
        )
        first = await create(control, role("a", description="d", routing_policy=routing, request_policy=policy))
        # What the mask does not name is left as it is, what it names is taken also if it is unset.
        given = role("a", display_name="A", routing_policy=role_pb2.RoutingPolicy(preferred_families=["c"]))
        given.request_policy.system_prompt.append = "after"
        paths = [
            "display_name",
            "routing_policy.preferred_families",
            "routing_policy.min_context_tokens",
            "request_policy.system_prompt.append",
            "etag",
        ]
        second = await update(control, given, *paths)
        wanted = role("a", display_name="A", description="d", routing_policy=routing, request_policy=policy)
        wanted.routing_policy.preferred_families[:] = ["c"]
        wanted.routing_policy.ClearField("min_context_tokens")
        wanted.request_policy.system_prompt.append = "after"
        wanted.owner, wanted.etag = role_pb2.OWNER_API, second.etag
        assert second == wanted
        given.etag = first.etag
        assert (await refused(update(control, given, "*"))).name == "ETAG_STALE"
        given.etag = second.etag
        third = await update(control, given, "*")
        assert third.description == ""
        assert not third.routing_policy.preferred_labels
        assert third.request_policy.defaults_json == ""
        assert (await refused(update(control, role("b"), "*"))).name == "OBJECT_NOT_FOUND"


@pytest.mark.parametrize(
    ("paths", "field"),
    [
        ([], "update_mask"),
        (["*", "display_name"], "update_mask.paths[0]"),
        (["display_name", "colour"], "update_mask.paths[1]"),
        (["routing_policy.preferred_labels.x"], "update_mask.paths[0]"),
        (["display_name.x"], "update_mask.paths[0]"),
        ([""], "update_mask.paths[0]"),
    ],
)
async def test_a_mask_that_names_nothing(paths: list[str], field: str) -> None:
    async with running_control() as control:
        await create(control, role("a"))
        assert await invalid(update(control, role("a"), *paths)) == field


async def test_what_makes_no_sense_is_not_stored() -> None:
    policy = role_pb2.RoutingPolicy
    async with running_control() as control:
        for bad, field in (
            (role_pb2.Role(role_id="a"), "role.operation"),
            (role_pb2.Role(role_id="a", operation=99), "role.operation"),  # type: ignore[arg-type]
            (role("a", routing_policy=policy(strategy=99)), "role.routing_policy.strategy"),  # type: ignore[arg-type]
            (
                role("a", routing_policy=policy(required_abilities=[1, 99])),  # type: ignore[list-item]
                "role.routing_policy.required_abilities[1]",
            ),
            (role("a", request_policy=request_pb2.RequestPolicy(operations=[CHAT])), "role.request_policy.operations"),
            (role("a", request_policy=policy_of("NaN")), "role.request_policy.defaults_json"),
            (role("A"), "role.role_id"),
            (role("a", routing_policy=falls_back("a")), "role.routing_policy.fallback_role_ids[0]"),
        ):  # fmt: skip
            assert await invalid(create(control, bad)) == field
        await create(control, role("a"))
        await create(control, role("b", routing_policy=falls_back("a")))
        circle = update(control, role("a", routing_policy=falls_back("b")), "routing_policy")
        assert await invalid(circle) == "role.routing_policy.fallback_role_ids[0]"
        assert await listed(control) == ["a", "b"]
        assert len(control.store.audit) == 2


async def test_aliases() -> None:
    async with running_control() as control:
        await control.node("gpu-1", service("gpu-1/ollama", "qwen3"))
        await create(control, role("coder"))
        first = await set_alias(control, "gpt-4o", "qwen3")
        assert first.owner == role_pb2.OWNER_API
        await set_alias(control, "claude-*", "coder")
        await set_alias(control, "box", "gpu-1/ollama")
        assert await invalid(set_alias(control, "x", "nobody")) == "alias.target"
        assert await invalid(set_alias(control, "x", "gpt-4o")) == "alias.target"
        assert await invalid(set_alias(control, "qwen3", "coder")) == "alias.alias"
        assert (await refused(set_alias(control, "gpt-4o", "coder"))).name == "ETAG_STALE"
        second = await set_alias(control, "gpt-4o", "coder", first.etag)
        assert (await refused(set_alias(control, "gpt-4o", "qwen3", first.etag))).name == "ETAG_STALE"
        assert (await refused(delete(control, "coder"))).metadata == {"names": "alias claude-*\nalias gpt-4o"}
        request = registry_service_pb2.GetAliasRequest(alias="gpt-4o")
        assert (await control.registry.GetAlias(request, metadata=READ)).alias == second
        store = control.store
    async with running_control(store) as control:
        assert await aliases(control) == {"box": "gpu-1/ollama", "claude-*": "coder", "gpt-4o": "coder"}
        gone = pb.DeleteAliasRequest(alias="gpt-4o", etag=first.etag)
        assert (await refused(control.admin.DeleteAlias(gone, metadata=OPERATE))).name == "ETAG_STALE"
        gone.etag = second.etag
        await control.admin.DeleteAlias(gone, metadata=OPERATE)
        assert (await refused(control.admin.DeleteAlias(gone, metadata=OPERATE))).metadata == {"name": "gpt-4o"}
        assert (await refused(control.registry.GetAlias(request, metadata=READ))).name == "OBJECT_NOT_FOUND"


async def test_what_the_file_owns_is_changed_there() -> None:
    async with running_control() as control:
        made = await create(control, role("a"))
        theirs = control.hub.registry.catalogue.roles["a"]
        control.hub.feed(e.CatalogueRead(file="/etc/roles.yaml", roles=(theirs,)))
        for call in (update(control, role("a"), "*"), delete(control, "a", made.etag)):
            error = await refused(call)
            assert (error.name, error.metadata) == (Why.OWNED_BY_FILE.name, {"file": "/etc/roles.yaml"})
        answer = await control.registry.ListRoles(registry_service_pb2.ListRolesRequest(), metadata=READ)
        assert [found.owner for found in answer.roles] == [role_pb2.OWNER_FILE]
        request = registry_service_pb2.GetClusterHealthRequest()
        health = (await control.registry.GetClusterHealth(request, metadata=READ)).health
        assert any("hidden by that of /etc/roles.yaml" in warning for warning in health.warnings)


async def test_a_database_that_fails_changes_nothing() -> None:
    async with running_control() as control:
        made = await create(control, role("a"))
        control.store.failing = "disk full"
        for call in (
            create(control, role("b")),
            update(control, role("a", display_name="A"), "*"),
            delete(control, "a"),
            set_alias(control, "x", "a"),
        ):
            assert (await refused(call)).name == "STORE_UNAVAILABLE"
        control.store.failing = None
        assert await listed(control) == ["a"]
        assert await aliases(control) == {}
        assert control.hub.registry.catalogue.roles["a"].etag == made.etag


async def test_pages() -> None:
    async with running_control() as control:
        for number in range(5):
            await create(control, role(f"r{number}"))
        request = registry_service_pb2.ListRolesRequest(page_size=2)
        found = []
        while True:
            page = await control.registry.ListRoles(request, metadata=READ)
            found += [entry.role_id for entry in page.roles]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert found == [f"r{number}" for number in range(5)]


async def test_who_watches_is_told() -> None:
    kinds = [registry_service_pb2.OBJECT_KIND_ROLE, registry_service_pb2.OBJECT_KIND_ALIAS]
    async with running_control() as control:
        await create(control, role("a"))
        request = registry_service_pb2.WatchRegistryRequest(kinds=kinds)
        watch = control.stream(control.registry.WatchRegistry(request, metadata=READ))
        first = await watch.answer()
        assert first is not None
        assert first.changed.role.role_id == "a"
        assert (await watch.answer()).HasField("synced")
        await set_alias(control, "x", "a")
        assert (await watch.answer()).changed.alias.target == "a"
        await update(control, role("a", display_name="A"), "display_name")
        assert (await watch.answer()).changed.role.display_name == "A"
        await control.admin.DeleteAlias(pb.DeleteAliasRequest(alias="x"), metadata=OPERATE)
        removed = (await watch.answer()).removed
        assert (removed.kind, removed.name) == (kinds[1], "x")
        await delete(control, "a")
        removed = (await watch.answer()).removed
        assert (removed.kind, removed.name) == (kinds[0], "a")


async def test_callers() -> None:
    async with running_control() as control:
        for metadata in (READ, as_("infer"), for_client("operate")):
            assert (await refused(create(control, role("a"), metadata))).name == "SCOPE_MISSING"
        await create(control, role("a"), as_("admin"))
        for metadata in (READ, for_client("read")):
            answer = await control.registry.ListRoles(registry_service_pb2.ListRolesRequest(), metadata=metadata)
            assert len(answer.roles) == 1


async def test_names_that_are_found_are_listed_and_watched() -> None:
    async with running_control() as control:
        kinds = [registry_service_pb2.OBJECT_KIND_ALIAS]
        request = registry_service_pb2.WatchRegistryRequest(kinds=kinds)
        watch = control.stream(control.registry.WatchRegistry(request, metadata=READ))
        assert (await watch.answer()).HasField("synced")
        await control.node("a", service("a/x", "gpt-oss:120b"))
        other = await control.node("b", service("b/x", "openai/gpt-oss-120b"))
        found = (await watch.answer()).changed.alias
        assert (found.alias, found.owner) == ("gpt-oss-120b", role_pb2.OWNER_FOUND)
        assert await aliases(control) == {found.alias: found.target}
        assert await invalid(set_alias(control, "big", found.alias)) == "alias.target"
        # An operator's word takes its place.
        await set_alias(control, found.alias, "gpt-oss:120b")
        assert (await watch.answer()).changed.alias.owner == role_pb2.OWNER_API
        gone = pb.DeleteAliasRequest(alias=found.alias)
        await control.admin.DeleteAlias(gone, metadata=OPERATE)
        assert (await watch.answer()).changed.alias == found
        await other.register(service("b/x", "m"))
        assert (await watch.answer()).removed.name == found.alias
