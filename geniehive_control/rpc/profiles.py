"""Roles and aliases between messages and `geniehive_control.profiles`."""

from collections.abc import Iterable

import msgspec
from google.protobuf.message import Message

from geniehive import convert
from geniehive.rules.model import Alias, Owner, Role, Strategy
from geniehive.rules.operations import Ability, Operation
from geniehive.v1 import admin_service_pb2, registry_service_pb2, role_pb2
from geniehive_control.core.refusal import Refusal, Why, field_invalid
from geniehive_control.core.registry import Registry
from geniehive_control.profiles import ProfileChanges
from geniehive_control.rpc.paging import page

# Said by control alone.
_OUTPUT_ONLY = frozenset({"owner", "etag"})
# The numbers that this version knows.
_OPERATIONS, _STRATEGIES, _ABILITIES = (frozenset(map(int, kind)) for kind in (Operation, Strategy, Ability))


async def create_role(
    request: admin_service_pb2.CreateRoleRequest, changes: ProfileChanges, caller: str
) -> admin_service_pb2.CreateRoleResponse:
    made = await changes.create_role(_role(request.role), caller)
    return admin_service_pb2.CreateRoleResponse(role=convert.role_to_proto(made))


async def update_role(
    request: admin_service_pb2.UpdateRoleRequest, changes: ProfileChanges, caller: str
) -> admin_service_pb2.UpdateRoleResponse:
    given = request.role
    paths = _paths(request.update_mask.paths)

    def change(before: Role) -> Role:
        merged = convert.role_to_proto(before)
        for path in paths:
            _take(path, given, merged)
        return _role(merged)

    made = await changes.update_role(given.role_id, given.etag, change, caller)
    return admin_service_pb2.UpdateRoleResponse(role=convert.role_to_proto(made))


async def set_alias(
    request: admin_service_pb2.SetAliasRequest, changes: ProfileChanges, caller: str
) -> admin_service_pb2.SetAliasResponse:
    given = msgspec.structs.replace(convert.alias_from_proto(request.alias), owner=Owner.UNSPECIFIED)
    made = await changes.set_alias(given, caller)
    return admin_service_pb2.SetAliasResponse(alias=convert.alias_to_proto(made))


def list_roles(
    request: registry_service_pb2.ListRolesRequest, registry: Registry
) -> registry_service_pb2.ListRolesResponse:
    roles, token = page(request, registry.catalogue.roles.items(), convert.role_to_proto)
    return registry_service_pb2.ListRolesResponse(roles=roles, next_page_token=token)


def get_role(request: registry_service_pb2.GetRoleRequest, registry: Registry) -> registry_service_pb2.GetRoleResponse:
    role = registry.catalogue.roles.get(request.role_id)
    if role is None:
        raise _not_found("role", request.role_id)
    return registry_service_pb2.GetRoleResponse(role=convert.role_to_proto(role))


def list_aliases(
    request: registry_service_pb2.ListAliasesRequest, registry: Registry
) -> registry_service_pb2.ListAliasesResponse:
    found = sorted(all_aliases(registry).items())
    aliases, token = page(request, found, convert.alias_to_proto)
    return registry_service_pb2.ListAliasesResponse(aliases=aliases, next_page_token=token)


def get_alias(
    request: registry_service_pb2.GetAliasRequest, registry: Registry
) -> registry_service_pb2.GetAliasResponse:
    alias = all_aliases(registry).get(request.alias)
    if alias is None:
        raise _not_found("alias", request.alias)
    return registry_service_pb2.GetAliasResponse(alias=convert.alias_to_proto(alias))


def all_aliases(registry: Registry) -> dict[str, Alias]:
    """With those that control found, which an alias of the same name hides."""
    return {**registry.table.found_aliases(), **registry.catalogue.aliases}


def _not_found(kind: str, name: str) -> Refusal:
    return Refusal(Why.OBJECT_NOT_FOUND, f"there is no {kind} {name!r}", name=name)


def _role(message: role_pb2.Role) -> Role:
    """Refusal (FIELD_INVALID) for what a conversion would leave out or take for something else."""
    policy = message.routing_policy
    if message.operation not in _OPERATIONS:
        words = ", ".join(operation.word for operation in Operation)
        raise field_invalid("role.operation", f"one is needed; allowed: {words}")
    if policy.strategy not in _STRATEGIES:
        raise field_invalid("role.routing_policy.strategy", f"{policy.strategy} is no strategy that this version knows")
    for index, ability in enumerate(policy.required_abilities):
        if ability not in _ABILITIES:
            at = f"role.routing_policy.required_abilities[{index}]"
            raise field_invalid(at, f"{ability} is no ability that this version knows")
    if message.request_policy.operations:
        raise field_invalid(
            "role.request_policy.operations", "stays empty: a role has one operation, and it stands there"
        )
    role = convert.role_from_proto(message)
    nothing = message.request_policy.ByteSize() == 0
    return msgspec.structs.replace(
        role, request_policy=None if nothing else role.request_policy, owner=Owner.UNSPECIFIED, etag=""
    )


def _paths(given: Iterable[str]) -> list[str]:
    """Refusal: FIELD_INVALID."""
    paths = list(given)
    if paths == ["*"]:
        return [name for name in role_pb2.Role.DESCRIPTOR.fields_by_name if name not in _OUTPUT_ONLY]
    if not paths:
        raise field_invalid("update_mask", 'is empty; name the fields to change, or "*"')
    for index, path in enumerate(paths):
        if not _is_known(path):
            raise field_invalid(f"update_mask.paths[{index}]", f"a role has no field {path!r}")
    return [path for path in paths if path not in _OUTPUT_ONLY]


def _is_known(path: str) -> bool:
    *outer, last = path.split(".")
    here = role_pb2.Role.DESCRIPTOR
    for name in outer:
        field = here.fields_by_name.get(name)
        # Lists and maps have no presence.
        if field is None or field.message_type is None or not field.has_presence:
            return False
        here = field.message_type
    return last in here.fields_by_name


def _take(path: str, source: Message, into: Message) -> None:
    """One field from `source`, also if it is unset there."""
    *outer, last = path.split(".")
    for name in outer:
        source, into = getattr(source, name), getattr(into, name)
    field = source.DESCRIPTOR.fields_by_name[last]
    into.ClearField(last)
    value = getattr(source, last)
    if field.has_presence and not source.HasField(last):
        return
    if isinstance(value, Message) or hasattr(value, "MergeFrom"):
        getattr(into, last).MergeFrom(value)
    else:
        setattr(into, last, value)
