"""Certificates: which of them are good, and who is told."""

import pytest

from geniehive.rules.identity import PeerKind
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from geniehive_control.core.members import TELL_EVERY
from geniehive_control.core.records import Origin, StoredCertificate
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.trust import REMEMBERED, Certified, Trust
from tests.support.cluster import service
from tests.support.control_core import WALL, Driver, only, shown

NODE, GATEWAY = PeerKind.NODE, PeerKind.GATEWAY


def certificate(serial: str, issued: float = 0.0, life: float = 100.0, **fields: object) -> StoredCertificate:
    given = {"kind": NODE, "peer_id": "gpu-1", "origin": Origin.TOKEN, **fields}
    return StoredCertificate(serial=serial, issued=issued, expires=issued + life, **given)  # type: ignore[arg-type]


def why(trust: Trust, shown: Certified, wall: float) -> Why | None:
    try:
        trust.check(shown, wall)
    except Refusal as refusal:
        return refusal.why
    return None


def test_good_and_unknown_and_expired() -> None:
    kept = certificate("a")
    trust = Trust([kept])
    assert why(trust, shown(kept), 99.0) is None
    assert why(trust, shown(kept), 100.0) is Why.CREDENTIAL_REFUSED
    assert why(trust, shown(certificate("b")), 50.0) is Why.CREDENTIAL_REFUSED
    # Of the same serial, but for somebody else: it cannot be what was issued.
    assert why(trust, shown(certificate("a", peer_id="gpu-2")), 50.0) is Why.CREDENTIAL_REFUSED
    assert why(trust, shown(certificate("a", kind=GATEWAY)), 50.0) is Why.CREDENTIAL_REFUSED


def test_a_connection_outlives_its_certificate_if_there_is_a_newer_one() -> None:
    old = certificate("a")
    trust = Trust([old])
    trust.add(certificate("b", issued=60.0))
    assert why(trust, shown(old), 120.0) is None
    assert why(trust, shown(old), 160.0) is Why.CREDENTIAL_REFUSED
    # Long after it was forgotten.
    trust.add(certificate("c", issued=REMEMBERED + 200.0))
    assert trust.get(NODE, "gpu-1", "a") is None
    assert why(trust, shown(old), REMEMBERED + 250.0) is None
    trust.revoke(NODE, "gpu-1", REMEMBERED + 260.0)
    assert why(trust, shown(old), REMEMBERED + 270.0) is Why.CREDENTIAL_REFUSED


def test_clones_of_a_host() -> None:
    def clone(peer_id: str, origin: Origin = Origin.CLONE, kind: PeerKind = NODE) -> StoredCertificate:
        return certificate(f"{kind.value}-{peer_id}", peer_id=peer_id, origin=origin, kind=kind)

    long = "x" * 63
    trust = Trust(
        [
            *(clone(peer_id) for peer_id in ("gpu-1-2", "gpu-1-2-3", "gpu-1-7-2", "gpu-2", f"{long[:-2]}-2")),
            clone("gpu-1-7", Origin.TOKEN),
            clone("gpu-1-8", kind=GATEWAY),
        ]
    )
    assert trust.clones("gpu-1", 50.0) == ["gpu-1-2", "gpu-1-2-3"]
    assert trust.clones("gpu-1-7", 50.0) == ["gpu-1-7-2"]
    assert trust.clones(long, 50.0) == [f"{long[:-2]}-2"]
    assert trust.clones("gpu-1", 150.0) == []


def test_revocation_takes_all_that_a_peer_has() -> None:
    trust = Trust([certificate("b", issued=1.0), certificate("a"), certificate("c", kind=GATEWAY)])
    assert [c.serial for c in trust.live(NODE, "gpu-1", 50.0)] == ["a", "b"]
    assert trust.revoke(NODE, "gpu-1", 50.0)
    assert not trust.revoke(NODE, "gpu-1", 51.0)
    assert not trust.revoke(NODE, "gpu-2", 51.0)
    assert trust.live(NODE, "gpu-1", 50.0) == []
    assert why(trust, shown(certificate("a")), 60.0) is Why.CREDENTIAL_REVOKED
    assert why(trust, shown(certificate("a")), 160.0) is Why.CREDENTIAL_REVOKED
    assert why(trust, shown(certificate("c", kind=GATEWAY)), 60.0) is None
    assert trust.revoked(60.0) == ("a", "b")
    assert trust.revoked(100.5) == ("b",)
    assert Trust([certificate("a", revoked=3.0)]).revoked(60.0) == ("a",)


def test_everybody_is_told_of_revocations() -> None:
    driver = Driver(tls=True)
    first = driver.enrol("gpu-1")
    session, effects = driver.open("gpu-1", certificate=first)
    assert effects == [
        fx.Welcome(session_id=session, host_id="gpu-1"),
        fx.TellTrust(stream_id=session, revoked=()),
    ]
    second = driver.enrol("gpu-1")
    assert first.serial != second.serial
    assert only(driver.effects, fx.TellTrust)[-1] == fx.TellTrust(revoked=(first.serial,))
    effects = driver.feed(e.Subscribed(subscriber_id="g", gateway_id="gw"))
    assert [type(effect) for effect in effects] == [fx.Changed, fx.TellTrust, fx.Update]
    assert only(effects, fx.TellTrust) == [fx.TellTrust(stream_id="g", revoked=(first.serial,))]


def test_of_many_revocations_the_first_is_told_at_once_and_the_others_together() -> None:
    driver = Driver(tls=True)
    serials = [driver.enrol(f"gpu-{number}").serial for number in range(10)]
    effects = [effect for n in range(10) for effect in driver.feed(e.PeerRevoked(kind=NODE, peer_id=f"gpu-{n}"))]
    assert [effect.revoked for effect in only(effects, fx.TellTrust)] == [(serials[0],)]
    effects = driver.wait(TELL_EVERY)
    assert [effect.revoked for effect in only(effects, fx.TellTrust)] == [tuple(sorted(serials))]
    assert only(driver.wait(5.0), fx.TellTrust) == []


def test_without_tls_nobody_is_told_anything() -> None:
    driver = Driver(certificates=[certificate("a", issued=WALL, life=1e6)])
    driver.join("gpu-2")
    driver.feed(e.Subscribed(subscriber_id="g", gateway_id="gw"))
    driver.feed(e.PeerRevoked(kind=NODE, peer_id="gpu-1"))
    driver.wait(5.0)
    assert only(driver.effects, fx.TellTrust) == []


def test_a_revocation_ends_the_streams_of_that_peer_and_no_others() -> None:
    driver = Driver(tls=True)
    node, gateway = driver.enrol("gpu-1", "m1"), driver.enrol("gpu-1", "m1", GATEWAY)
    session = driver.join("gpu-1", service("gpu-1/ollama", "qwen3"), certificate=node, machine_id="m1")
    other = driver.join("gpu-2")
    driver.feed(e.Subscribed(subscriber_id="g", gateway_id="gpu-1", certificate=gateway))
    driver.feed(e.Subscribed(subscriber_id="local", gateway_id="gpu-1"))
    effects = driver.feed(e.PeerRevoked(kind=NODE, peer_id="gpu-1"))
    assert [(x.session_id, x.refusal.why) for x in only(effects, fx.EndSession)] == [(session, Why.CREDENTIAL_REVOKED)]
    assert only(effects, fx.EndSubscriber) == []
    assert not driver.routable("gpu-1/ollama")
    assert driver.registry.host("gpu-1") is not None
    assert driver.registry.grant(session, driver.now) is None
    assert driver.registry.grant(other, driver.now) is not None
    effects = driver.feed(e.PeerRevoked(kind=GATEWAY, peer_id="gpu-1"))
    assert [x.subscriber_id for x in only(effects, fx.EndSubscriber)] == ["g"]


def test_who_leaves_and_who_is_forgotten_is_told_so() -> None:
    for left, words in ((True, "has left"), (False, "an operator")):
        driver = Driver(tls=True)
        session = driver.join("gpu-1", certificate=driver.enrol("gpu-1"))
        effects = driver.feed(e.HostForgotten(host_id="gpu-1", left=left))
        (ending,) = only(effects, fx.EndSession)
        assert (ending.session_id, ending.refusal.why) == (session, Why.CREDENTIAL_REVOKED)
        assert words in ending.refusal.message
        assert len(only(effects, fx.TellTrust)) == 1


def test_a_gateway_speaks_for_itself() -> None:
    driver = Driver(tls=True)
    gateway = driver.enrol("gw", kind=GATEWAY)
    for gateway_id, why_not in (("other", Why.NOT_YOURS), ("gw", None)):
        effects = driver.feed(e.Subscribed(subscriber_id=gateway_id, gateway_id=gateway_id, certificate=gateway))
        assert [x.refusal.why for x in only(effects, fx.EndSubscriber)] == ([why_not] if why_not else [])
    assert [s.subscriber_id for s in driver.registry.subscribers] == ["gw"]
    driver.feed(e.PeerRevoked(kind=GATEWAY, peer_id="gw"))
    effects = driver.feed(e.Subscribed(subscriber_id="again", gateway_id="gw", certificate=gateway))
    assert [x.refusal.why for x in only(effects, fx.EndSubscriber)] == [Why.CREDENTIAL_REVOKED]


@pytest.mark.parametrize("kind", [NODE, GATEWAY])
def test_for_whom_a_renewed_certificate_is(kind: PeerKind) -> None:
    trust = Trust([certificate("a", kind=kind, machine_id="m1"), certificate("k", kind=kind, origin=Origin.KEY)])
    mine = Certified(kind, "gpu-1", "a", 100.0)
    assert trust.grant(kind, "gpu-1", None, mine) == (kind, "gpu-1", "m1", Origin.TOKEN)
    assert trust.grant(kind, "gpu-1", "m2", mine) == (kind, "gpu-1", "m2", Origin.TOKEN)
    assert trust.grant(kind, "gpu-1-2", "m2", mine) == (kind, "gpu-1-2", "m2", Origin.CLONE)
    assert trust.grant(kind, "gpu-1", "m2", None) == (kind, "gpu-1", "m2", Origin.KEY)
    assert trust.grant(kind, "gpu-1", None, Certified(kind, "gpu-1", "old", 1.0)).origin is Origin.TOKEN
