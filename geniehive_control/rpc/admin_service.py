"""AdminService: roles, aliases, keys, join tokens, who is no member any more.

An answer without error means stored and in force.
"""

import secrets
from typing import Any

import msgspec

from geniehive import convert
from geniehive.kit import state
from geniehive.rules.model import ClientKey, Scope
from geniehive.v1 import admin_service_pb2 as pb
from geniehive.v1 import admin_service_pb2_grpc, credential_pb2
from geniehive_control.core.inventory import END_OF_TIME
from geniehive_control.core.refusal import field_invalid
from geniehive_control.hub import Hub
from geniehive_control.profiles import ProfileChanges
from geniehive_control.rpc import profiles
from geniehive_control.rpc.auth import digest
from geniehive_control.rpc.benchmarks import record_samples
from geniehive_control.rpc.certificates import Certificates, peer_kind, token_view
from geniehive_control.rpc.guard import caller
from geniehive_control.rpc.paging import page

_LONGEST_NAME = 200


class AdminService(admin_service_pb2_grpc.AdminServiceServicer):
    def __init__(self, hub: Hub, certificates: Certificates) -> None:
        self._hub = hub
        self._certificates = certificates
        self._profiles = ProfileChanges(hub, hub.store)

    async def CreateRole(self, request: pb.CreateRoleRequest, context: Any) -> pb.CreateRoleResponse:
        return await profiles.create_role(request, self._profiles, caller().name)

    async def UpdateRole(self, request: pb.UpdateRoleRequest, context: Any) -> pb.UpdateRoleResponse:
        return await profiles.update_role(request, self._profiles, caller().name)

    async def DeleteRole(self, request: pb.DeleteRoleRequest, context: Any) -> pb.DeleteRoleResponse:
        await self._profiles.delete_role(request.role_id, request.etag, caller().name)
        return pb.DeleteRoleResponse()

    async def SetAlias(self, request: pb.SetAliasRequest, context: Any) -> pb.SetAliasResponse:
        return await profiles.set_alias(request, self._profiles, caller().name)

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, context: Any) -> pb.DeleteAliasResponse:
        await self._profiles.delete_alias(request.alias, request.etag, caller().name)
        return pb.DeleteAliasResponse()

    async def CreateClientKey(self, request: pb.CreateClientKeyRequest, context: Any) -> pb.CreateClientKeyResponse:
        name = request.display_name.strip()
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise field_invalid("display_name", f"must be printable and at most {_LONGEST_NAME} characters long")
        expires = convert.seconds(request.expire_time) if request.HasField("expire_time") else None
        if expires is not None and expires <= self._hub.now().wall:
            raise field_invalid("expire_time", "is past")
        if expires is not None and expires >= END_OF_TIME:
            raise field_invalid("expire_time", "is after the year 9999; leave it out for a key that never expires")
        secret = state.new_secret("gh")
        key = ClientKey(
            key_id=f"k{secrets.token_hex(5)}",
            sha256=digest(secret),
            display_name=name,
            scopes=_scopes(request.scopes),
            expires=expires,
        )
        await self._hub.create_key(key, caller().name)
        return pb.CreateClientKeyResponse(client_key=_shown(key), key=secret)

    async def ListClientKeys(self, request: pb.ListClientKeysRequest, context: Any) -> pb.ListClientKeysResponse:
        found = ((_order(*known.order), known) for known in self._hub.registry.keys.all())
        keys, token = page(request, found, lambda known: _shown(known.key))
        return pb.ListClientKeysResponse(client_keys=keys, next_page_token=token)

    async def RevokeClientKey(self, request: pb.RevokeClientKeyRequest, context: Any) -> pb.RevokeClientKeyResponse:
        await self._hub.revoke_key(request.key_id, caller().name)
        return pb.RevokeClientKeyResponse()

    async def CreateJoinToken(self, request: pb.CreateJoinTokenRequest, context: Any) -> pb.CreateJoinTokenResponse:
        return await self._certificates.create_token(request, caller().name)

    async def ListJoinTokens(self, request: pb.ListJoinTokensRequest, context: Any) -> pb.ListJoinTokensResponse:
        usable = self._hub.registry.tokens.usable(self._hub.now().wall)
        found = ((_order(token.created, token.token_id), token) for token in usable)
        tokens, next_token = page(request, found, token_view)
        return pb.ListJoinTokensResponse(join_tokens=tokens, next_page_token=next_token)

    async def RevokeJoinToken(self, request: pb.RevokeJoinTokenRequest, context: Any) -> pb.RevokeJoinTokenResponse:
        await self._hub.revoke_token(request.token_id, caller().name)
        return pb.RevokeJoinTokenResponse()

    async def RevokeCredential(self, request: pb.RevokeCredentialRequest, context: Any) -> pb.RevokeCredentialResponse:
        await self._hub.revoke_peer(peer_kind(request.kind, "kind"), request.peer_id, caller().name)
        return pb.RevokeCredentialResponse()

    async def RecordBenchmarkSamples(
        self, request: pb.RecordBenchmarkSamplesRequest, context: Any
    ) -> pb.RecordBenchmarkSamplesResponse:
        return await record_samples(request, self._hub, caller().name)

    async def ForgetHost(self, request: pb.ForgetHostRequest, context: Any) -> pb.ForgetHostResponse:
        await self._hub.forget_host(request.host_id, caller().name)
        return pb.ForgetHostResponse()


def _scopes(numbers: Any) -> tuple[Scope, ...]:
    if not numbers:
        raise field_invalid("scopes", "at least one of infer, read, operate, admin is needed")
    try:
        return tuple(sorted({Scope(number) for number in numbers}))
    except ValueError as error:
        raise field_invalid("scopes", "allowed are infer, read, operate, admin") from error


def _shown(key: ClientKey) -> credential_pb2.ClientKey:
    """Without its hash, which only gateways see."""
    return convert.client_key_to_proto(msgspec.structs.replace(key, sha256=b""))


def _order(created: float, name: str) -> str:
    """Oldest first, as text that sorts alike."""
    return f"{int(created * 1e6):020d} {name}"
