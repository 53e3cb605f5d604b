"""Who calls."""

import pytest

from geniehive.channels import CLIENT_KEY_ID, NODE_KEY
from geniehive.rules.model import ClientKey, Scope
from geniehive_control.core.keys import Keys
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.rpc.auth import Authenticator, Required, digest
from geniehive_control.rpc.policy import Caller

KEYS = Keys(
    [
        ClientKey(key_id="k", sha256=digest("secret"), scopes=(Scope.READ,)),
        ClientKey(key_id="old", sha256=digest("older"), scopes=(Scope.READ,), expires=5.0),
    ],
    [],
)
ON = Required(node_keys=(digest("one"), digest("two")))


def caller(*metadata: tuple[str, str | bytes], required: Required = ON) -> Caller:
    return Authenticator(required, KEYS, lambda: 10.0).caller(metadata)


def why(*metadata: tuple[str, str | bytes], required: Required = ON) -> Why:
    with pytest.raises(Refusal) as caught:
        caller(*metadata, required=required)
    assert "secret" not in caught.value.message
    return caught.value.why


def test_by_node_key() -> None:
    for key in ("one", "two"):
        assert caller((NODE_KEY, key)) == Caller("peer", peer=True)
    assert why((NODE_KEY, "three")) is Why.CREDENTIAL_REFUSED
    assert why((NODE_KEY, "")) is Why.CREDENTIAL_REFUSED
    assert why((NODE_KEY, "three"), required=Required(node_keys=())) is Why.CREDENTIAL_REFUSED


@pytest.mark.parametrize("header", ["Bearer secret", "bearer secret", "BEARER  secret "])
def test_by_client_key(header: str) -> None:
    assert caller(("authorization", header)) == Caller("k", scopes=(Scope.READ,), key_id="k")


@pytest.mark.parametrize("header", ["Bearer wrong", "Basic secret", "secret", "Bearer", "", "Bearer older"])
def test_wrong_client_keys(header: str) -> None:
    assert why(("authorization", header)) is Why.CREDENTIAL_REFUSED


def test_without_any_key() -> None:
    assert why() is Why.CREDENTIAL_REFUSED
    assert why(("authorization", b"Bearer secret")) is Why.CREDENTIAL_REFUSED


def test_a_gateway_for_its_client() -> None:
    found = caller((NODE_KEY, "one"), (CLIENT_KEY_ID, "k"))
    assert found == Caller("k", peer=True, scopes=(Scope.READ,), key_id="k")
    assert why((NODE_KEY, "one"), (CLIENT_KEY_ID, "unknown")) is Why.CREDENTIAL_REFUSED
    assert why((NODE_KEY, "one"), (CLIENT_KEY_ID, "old")) is Why.CREDENTIAL_REFUSED
    assert why((CLIENT_KEY_ID, "k")) is Why.CREDENTIAL_REFUSED
    assert why(("authorization", "Bearer secret"), (CLIENT_KEY_ID, "k")) is Why.CREDENTIAL_REFUSED


def test_authentication_of_clients_off() -> None:
    off = Required(clients=False, node_keys=(digest("one"),))
    assert caller(required=off) == Caller("anyone", trusted=True)
    assert caller(("authorization", "Bearer wrong"), required=off).trusted
    known = caller(("authorization", "Bearer secret"), required=off)
    assert (known.name, known.trusted) == ("k", True)
    assert why((NODE_KEY, "wrong"), required=off) is Why.CREDENTIAL_REFUSED
    assert caller((NODE_KEY, "one"), (CLIENT_KEY_ID, "unknown"), required=off).trusted


def test_authentication_of_nodes_off() -> None:
    off = Required(nodes=False)
    assert caller(required=off) == Caller("anyone", peer=True)
    assert caller((NODE_KEY, "whatever"), required=off).peer
    assert caller((CLIENT_KEY_ID, "k"), required=off).scopes == (Scope.READ,)
    assert why(("authorization", "Bearer wrong"), required=off) is Why.CREDENTIAL_REFUSED


def test_all_authentication_off() -> None:
    assert caller(required=Required(clients=False, nodes=False)) == Caller("anyone", peer=True, trusted=True)
