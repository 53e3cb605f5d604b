"""The one table of who may call what."""

import pytest

from geniehive.rules.identity import PeerKind
from geniehive.rules.model import Scope
from geniehive.v1 import admin_service_pb2, node_service_pb2, registry_service_pb2, routing_service_pb2
from geniehive_control.core.refusal import Refusal
from geniehive_control.core.trust import Certified
from geniehive_control.rpc.admin_service import AdminService
from geniehive_control.rpc.node_service import NodeService
from geniehive_control.rpc.policy import GATEWAY, NODE, POLICY, Caller, Rule, check
from geniehive_control.rpc.registry_service import RegistryService
from geniehive_control.rpc.routing_service import RoutingService

SERVICES = (
    (node_service_pb2, "NodeService", NodeService),
    (routing_service_pb2, "RoutingService", RoutingService),
    (registry_service_pb2, "RegistryService", RegistryService),
    (admin_service_pb2, "AdminService", AdminService),
)
METHODS = {
    f"/geniehive.v1.{name}/{method.name}": (servicer, method.name)
    for module, name, servicer in SERVICES
    for method in module.DESCRIPTOR.services_by_name[name].methods
}


def test_every_rpc_of_the_contract_stands_in_it_and_nothing_else() -> None:
    assert {name for name in POLICY if name.startswith("/geniehive.")} == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_an_rpc_is_served_or_says_why_not(method: str) -> None:
    servicer, name = METHODS[method]
    assert (name in vars(servicer)) is not bool(POLICY[method].not_served)


@pytest.mark.parametrize("method", METHODS)
def test_each_rule_lets_in_whom_the_comment_names(method: str) -> None:
    rule = POLICY[method]
    assert rule.anyone or rule.scopes or rule.peers
    if "AdminService" in method:
        assert rule.scopes in ({Scope.ADMIN}, {Scope.OPERATE})
    if "RegistryService" in method:
        assert rule.scopes == {Scope.READ}


def allows(rule: Rule, caller: Caller) -> bool:
    try:
        check(rule, caller)
    except Refusal as refusal:
        return refusal.details != {"needs": rule.needs}
    return True


def test_callers() -> None:
    node = Rule(peers=frozenset({NODE}))
    gateway = Rule(frozenset({Scope.INFER, Scope.READ}), frozenset({GATEWAY}))
    admin = Rule(frozenset({Scope.ADMIN}))
    peer = Caller("peer", peer=True)
    assert allows(node, peer)
    assert allows(gateway, peer)
    assert not allows(admin, peer)
    for kind, own, other in ((PeerKind.NODE, node, gateway), (PeerKind.GATEWAY, gateway, node)):
        certified = Caller("peer", peer=True, certificate=Certified(kind, "gpu-1", "a", 0.0))
        assert (allows(own, certified), allows(other, certified), allows(admin, certified)) == (True, False, False)
    tool = Caller("k", scopes=(Scope.ADMIN,))
    assert not allows(node, tool)
    assert allows(gateway, tool)
    assert allows(admin, tool)
    acting = Caller("k", peer=True, scopes=(Scope.OPERATE,))
    assert not allows(node, acting), "the key's scopes take the place of the gateway's rights"
    assert allows(gateway, acting)
    assert not allows(admin, acting)
    # It names a key that it need not have.
    for scope in Scope:
        acting = Caller("k", peer=True, scopes=(scope,))
        assert not allows(admin, acting)
        assert not allows(Rule(frozenset({Scope.READ})), acting)
    nobody = Caller("anyone")
    assert not allows(node, nobody)
    assert allows(Rule(anyone=True), nobody)
    assert allows(admin, Caller("anyone", trusted=True))


def test_what_is_needed_is_named() -> None:
    assert Rule(frozenset({Scope.INFER, Scope.READ}), frozenset({GATEWAY})).needs == "gateway or infer or read"
