"""Who calls."""

from hashlib import sha256

import pytest

from geniehive.channels import CLIENT_KEY_ID, NODE_KEY
from geniehive.kit import tls
from geniehive.rules.identity import Peer, PeerKind
from geniehive.rules.model import ClientKey, Scope
from geniehive_control.core.keys import Keys
from geniehive_control.core.records import Origin, StoredCertificate
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.trust import Certified, Trust
from geniehive_control.rpc import auth
from geniehive_control.rpc.auth import Authenticator, Link, Required, digest, link_of
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


NOW = 1_700_000_000.0
CA = tls.Authority(*tls.make_authority("test", NOW))


def certificate(*uris: str, seconds: float = 100.0) -> tuple[Link, str]:
    """How a call by it comes, and its serial."""
    key = tls.read_csr(tls.make_csr(tls.new_key(), "x"))
    made = CA.issue(key, "x", now=NOW, seconds=seconds, uris=uris)
    return Link(True, made.chain), made.serial


def by(link: Link, trust: Trust, *metadata: tuple[str, str], wall: float = NOW) -> Caller:
    return Authenticator(ON, KEYS, lambda: wall, trust, "c1").caller(metadata, link)


def known(serial: str, kind: PeerKind, peer_id: str) -> Trust:
    kept = StoredCertificate(
        serial=serial, kind=kind, peer_id=peer_id, issued=NOW, expires=NOW + 100, origin=Origin.TOKEN
    )
    return Trust([kept])


def test_by_certificate() -> None:
    link, serial = certificate("https://elsewhere", Peer("c1", PeerKind.NODE, "gpu-1").uri)
    trust = known(serial, PeerKind.NODE, "gpu-1")
    found = by(link, trust)
    assert (found.name, found.peer, found.scopes, found.trusted) == ("node gpu-1", True, None, False)
    assert found.certificate == Certified(PeerKind.NODE, "gpu-1", serial, NOW + 100)
    # Whatever keys are sent as well.
    assert by(link, trust, (NODE_KEY, "wrong"), ("authorization", "Bearer secret")) == found
    with pytest.raises(Refusal, match="is for gateways, and this is node gpu-1"):
        by(link, trust, (CLIENT_KEY_ID, "k"))
    with pytest.raises(Refusal, match="does not know"):
        by(link, Trust([]))
    trust.revoke(PeerKind.NODE, "gpu-1", NOW)
    with pytest.raises(Refusal) as caught:
        by(link, trust)
    assert caught.value.why is Why.CREDENTIAL_REVOKED


def test_a_gateway_for_its_client_by_certificate() -> None:
    link, serial = certificate(Peer("c1", PeerKind.GATEWAY, "gw").uri)
    found = by(link, known(serial, PeerKind.GATEWAY, "gw"), (CLIENT_KEY_ID, "k"), wall=NOW)
    assert (found.name, found.peer, found.scopes, found.key_id) == ("k", True, (Scope.READ,), "k")


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("https://c1/node/gpu-1",),
        ("spiffe://c2/node/gpu-1",),
        ("spiffe://c1/control/gpu-1",),
        ("spiffe://c1/node/gpu-1", "spiffe://c1/node/gpu-2"),
    ],
)
def test_certificates_of_nobody(uris: tuple[str, ...]) -> None:
    link, serial = certificate(*uris)
    with pytest.raises(Refusal, match="no node and no gateway of this cluster"):
        by(link, known(serial, PeerKind.NODE, "gpu-1"))
    with pytest.raises(Refusal, match="cannot be read"):
        by(Link(True, b"nothing"), Trust([]))


def test_without_a_certificate_off_this_machine() -> None:
    encrypted = Link(True)
    found = by(encrypted, Trust([]), ("authorization", "Bearer secret"))
    assert (found.name, found.peer, found.scopes) == ("k", False, (Scope.READ,))
    for metadata in ((NODE_KEY, "one"), (CLIENT_KEY_ID, "k")):
        with pytest.raises(Refusal, match="geniehive join"):
            by(encrypted, Trust([]), metadata)


def test_certificates_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_MOST_READ", 2)
    authenticator = Authenticator(ON, KEYS, lambda: NOW, Trust([]), "c1")
    links = [certificate(Peer("c1", PeerKind.NODE, f"gpu-{n}").uri)[0] for n in range(3)]
    for link in (*links, links[2]):
        with pytest.raises(Refusal, match="does not know"):
            authenticator.caller((), link)
    assert list(authenticator._read) == [sha256(link.certificate or b"").digest() for link in links[1:]]


def test_how_a_call_came() -> None:
    assert link_of({}) == Link()
    assert link_of({"transport_security_type": [b"ssl"]}) == Link(True)
    assert link_of({"transport_security_type": [b"ssl"], "x509_pem_cert": [b"pem"]}) == Link(True, b"pem")


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
