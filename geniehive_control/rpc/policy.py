"""Who may call what: one table for every RPC of the contract. A test asserts that each stands in it.

Also which RPCs stand in the contract before they are served, with what to use instead.
"""

from typing import NamedTuple

from geniehive.rules.identity import PeerKind
from geniehive.rules.model import Scope
from geniehive_control.core.keys import allowed
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.trust import Certified

NODE = PeerKind.NODE.value
GATEWAY = PeerKind.GATEWAY.value

READ = frozenset({Scope.READ})
OPERATE = frozenset({Scope.OPERATE})
ADMIN = frozenset({Scope.ADMIN})
NONE: frozenset[Scope] = frozenset()


class Rule(NamedTuple):
    """Any of these daemons, or a key with any of these scopes. `anyone`: no proof is asked for."""

    scopes: frozenset[Scope] = NONE
    peers: frozenset[str] = frozenset()
    anyone: bool = False
    # Why it is not served, and what to use instead; empty: it is.
    not_served: str = ""

    @property
    def needs(self) -> str:
        """For SCOPE_MISSING."""
        return " or ".join([*sorted(self.peers), *(scope.word for scope in sorted(self.scopes))])


def _peers(*peers: str, scopes: frozenset[Scope] = NONE, not_served: str = "") -> Rule:
    return Rule(scopes, frozenset(peers), not_served=not_served)


_NO_COMMANDS = "this version sends no commands to nodes; ask the engine itself"

# What gateways show their clients, or take from them, lets gateways in, too.
POLICY: dict[str, Rule] = {
    "/geniehive.v1.NodeService/Enroll": Rule(anyone=True),
    "/geniehive.v1.NodeService/Leave": _peers(NODE, GATEWAY),
    "/geniehive.v1.NodeService/Session": _peers(NODE),
    "/geniehive.v1.RoutingService/WatchRoutes": _peers(GATEWAY),
    "/geniehive.v1.RoutingService/ReportOutcomes": _peers(GATEWAY),
    "/geniehive.v1.RoutingService/AwaitModel": _peers(GATEWAY, not_served=_NO_COMMANDS),
    "/geniehive.v1.RoutingService/Resolve": _peers(GATEWAY, scopes=frozenset({Scope.INFER, Scope.READ})),
    "/geniehive.v1.RoutingService/ListRoutes": Rule(READ),
    "/geniehive.v1.RoutingService/MatchRoutes": _peers(GATEWAY, scopes=READ),
    "/geniehive.v1.RoutingService/ExplainRoute": _peers(GATEWAY, scopes=READ),
    "/geniehive.v1.RegistryService/ListHosts": _peers(GATEWAY, scopes=READ),
    "/geniehive.v1.RegistryService/GetHost": Rule(READ),
    "/geniehive.v1.RegistryService/ListServices": _peers(GATEWAY, scopes=READ),
    "/geniehive.v1.RegistryService/GetService": Rule(READ),
    "/geniehive.v1.RegistryService/ListRoles": _peers(GATEWAY, scopes=READ),
    "/geniehive.v1.RegistryService/GetRole": Rule(READ),
    "/geniehive.v1.RegistryService/ListAliases": _peers(GATEWAY, scopes=READ),
    "/geniehive.v1.RegistryService/GetAlias": Rule(READ),
    "/geniehive.v1.RegistryService/ListBenchmarkSamples": _peers(GATEWAY, scopes=READ),
    "/geniehive.v1.RegistryService/GetClusterHealth": _peers(GATEWAY, scopes=READ),
    "/geniehive.v1.RegistryService/WatchRegistry": Rule(READ),
    "/geniehive.v1.RegistryService/WatchLoad": Rule(READ),
    "/geniehive.v1.RegistryService/QueryUsage": _peers(GATEWAY, scopes=READ),
    "/geniehive.v1.AdminService/CreateRole": Rule(OPERATE),
    "/geniehive.v1.AdminService/UpdateRole": Rule(OPERATE),
    "/geniehive.v1.AdminService/DeleteRole": Rule(OPERATE),
    "/geniehive.v1.AdminService/SetAlias": Rule(OPERATE),
    "/geniehive.v1.AdminService/DeleteAlias": Rule(OPERATE),
    "/geniehive.v1.AdminService/CreateClientKey": Rule(ADMIN),
    "/geniehive.v1.AdminService/ListClientKeys": Rule(ADMIN),
    "/geniehive.v1.AdminService/RevokeClientKey": Rule(ADMIN),
    "/geniehive.v1.AdminService/CreateJoinToken": Rule(ADMIN),
    "/geniehive.v1.AdminService/ListJoinTokens": Rule(ADMIN),
    "/geniehive.v1.AdminService/RevokeJoinToken": Rule(ADMIN),
    "/geniehive.v1.AdminService/ForgetHost": Rule(ADMIN),
    "/geniehive.v1.AdminService/RevokeCredential": Rule(ADMIN),
    "/geniehive.v1.AdminService/RecordBenchmarkSamples": _peers(GATEWAY, scopes=OPERATE),
    "/geniehive.v1.AdminService/RunCommand": Rule(OPERATE, not_served=_NO_COMMANDS),
    # Whether control is there, and what the contract is, are no secrets.
    "/grpc.health.v1.Health/Check": Rule(anyone=True),
    "/grpc.health.v1.Health/Watch": Rule(anyone=True),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(anyone=True),
}


class Caller(NamedTuple):
    """Who calls. `scopes` None: not by a key; a daemon, or anybody where authentication is off."""

    # A key_id, "node gpu-1", "peer" or "anyone"; for logs and the audit.
    name: str
    # A daemon: of the certificate's kind, or of any.
    peer: bool = False
    scopes: tuple[Scope, ...] | None = None
    key_id: str | None = None
    # Authentication is off.
    trusted: bool = False
    certificate: Certified | None = None


def check(rule: Rule, caller: Caller) -> None:
    """Refusal (SCOPE_MISSING) unless the rule lets this caller in."""
    if rule.anyone or caller.trusted:
        return
    needs = rule.needs
    if caller.scopes is not None:
        permitted = bool(rule.scopes & allowed(caller.scopes))
        if caller.peer and permitted and GATEWAY not in rule.peers:
            # It names a key and need not have it: it may be any, an administrator's too.
            raise Refusal(Why.SCOPE_MISSING, f"no gateway may do this for its clients; it needs {needs}", needs=needs)
    else:
        kinds = {NODE, GATEWAY} if caller.certificate is None else {caller.certificate.kind.value}
        permitted = caller.peer and bool(rule.peers & kinds)
    if not permitted:
        raise Refusal(Why.SCOPE_MISSING, f"{caller.name} may not do this; it needs {needs}", needs=needs)
