"""Under which id a machine goes, whatever others do at the same time."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from geniehive.rules.identity import PeerKind
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from geniehive_control.core.fencing import MOST_CLONES
from geniehive_control.core.records import Origin
from geniehive_control.core.refusal import Why
from geniehive_control.core.trust import Certified
from tests.support.cluster import inventory
from tests.support.control_core import Driver, only, restarted

NODE, GATEWAY = PeerKind.NODE, PeerKind.GATEWAY


def refusal(effects: list[fx.Effect]) -> Why:
    (ending,) = effects
    assert isinstance(ending, fx.EndSession)
    return ending.refusal.why


def goes_as(effects: list[fx.Effect]) -> str:
    (welcome,) = only(effects, fx.Welcome)
    return welcome.host_id


def test_a_certificate_speaks_for_its_own_host_only() -> None:
    driver = Driver(tls=True)
    certificate = driver.enrol("gpu-1")
    assert refusal(driver.open("gpu-2", certificate=certificate)[1]) is Why.NOT_YOURS
    assert goes_as(driver.open("gpu-1", certificate=certificate)[1]) == "gpu-1"


def test_a_revoked_certificate_opens_nothing_even_if_the_call_came_before() -> None:
    driver = Driver(tls=True)
    certificate = driver.enrol("gpu-1")
    driver.feed(e.PeerRevoked(kind=NODE, peer_id="gpu-1"))
    assert refusal(driver.open("gpu-1", certificate=certificate)[1]) is Why.CREDENTIAL_REVOKED


@pytest.mark.parametrize("machine", [{}, {"machine_id": "m1"}])
def test_another_kind_of_proof_is_refused(machine: dict[str, str]) -> None:
    driver = Driver(tls=True)
    certificate = driver.enrol("gpu-1", "m1")
    session = driver.join("gpu-1", certificate=certificate, machine_id="m1")
    assert refusal(driver.open("gpu-1", **machine)[1]) is Why.NOT_YOURS
    # Once it is gone, and nobody presumes otherwise, the node key is good for any host.
    driver.close(session)
    key = driver.join("gpu-1", **machine)
    assert refusal(driver.open("gpu-1", certificate=certificate, **machine)[1]) is Why.NOT_YOURS
    driver.close(key)
    assert goes_as(driver.open("gpu-1", certificate=certificate, **machine)[1]) == "gpu-1"


@pytest.mark.parametrize("by_certificate", [False, True])
def test_a_presumed_host_is_held_as_it_was(by_certificate: bool) -> None:
    driver = Driver(tls=True)
    certificate = driver.enrol("gpu-1", "m1")
    first = {"certificate": certificate} if by_certificate else {}
    second = {} if by_certificate else {"certificate": certificate}
    driver.join("gpu-1", machine_id="m1", **first)
    driver = restarted(driver)
    assert refusal(driver.open("gpu-1", machine_id="m1", **second)[1]) is Why.NOT_YOURS
    assert goes_as(driver.open("gpu-1", machine_id="m1", **first)[1]) == "gpu-1"


def test_a_newer_session_by_the_same_certificate_takes_over() -> None:
    driver = Driver(tls=True)
    certificate = driver.enrol("gpu-1", "m1")
    older = driver.join("gpu-1", certificate=certificate, machine_id="m1", instance_id="a")
    _, effects = driver.open("gpu-1", certificate=certificate, machine_id="m1", instance_id="b")
    (ending,) = only(effects, fx.EndSession)
    assert (ending.session_id, ending.refusal.why) == (older, Why.SESSION_SUPERSEDED)


def test_a_node_key_takes_no_id_that_another_machine_joined_by() -> None:
    driver = Driver(tls=True)
    certificate = driver.enrol("gpu-1", "m1")
    assert goes_as(driver.open("gpu-1", machine_id="m2")[1]) == "gpu-1-2"
    # One that is the same machine, or does not tell, may.
    session, effects = driver.open("gpu-1", machine_id="m1")
    assert goes_as(effects) == "gpu-1"
    driver.close(session)
    session, effects = driver.open("gpu-1")
    assert goes_as(effects) == "gpu-1"
    driver.close(session)
    assert goes_as(driver.open("gpu-1", certificate=certificate)[1]) == "gpu-1"


def test_a_clone_keeps_the_id_that_it_was_given() -> None:
    driver = Driver(tls=True)
    certificate = driver.enrol("gpu-1", "m1")
    driver.join("gpu-1", certificate=certificate, machine_id="m1")
    clone, effects = driver.open("gpu-1", certificate=certificate, machine_id="m2")
    assert goes_as(effects) == "gpu-1-2"
    own = driver.certify(clone)
    assert own is not None
    kept = driver.registry.trust.get(NODE, "gpu-1-2", own.serial)
    assert kept is not None
    assert (own.peer_id, kept.origin, kept.machine_id) == ("gpu-1-2", Origin.CLONE, "m2")
    driver.close(clone)
    # Before it said what it offers, so that control knows it by its certificate only.
    assert goes_as(driver.open("gpu-1", certificate=certificate, machine_id="m2")[1]) == "gpu-1-2"
    assert goes_as(driver.open("gpu-1", certificate=certificate, machine_id="m3")[1]) == "gpu-1-3"
    assert goes_as(driver.open("gpu-1-2", certificate=own, machine_id="m2")[1]) == "gpu-1-2"
    # What it got goes back to the other's certificate only as far as that goes.
    effects = driver.feed(e.PeerRevoked(kind=NODE, peer_id="gpu-1"))
    ended = {ending.session_id for ending in only(effects, fx.EndSession)}
    assert {s.host_id for s in driver.registry._sessions.live.values()} == {"gpu-1-2"}
    assert len(ended) == 2


def test_one_certificate_makes_no_endless_number_of_hosts() -> None:
    driver = Driver(tls=True)
    certificate = driver.enrol("gpu-1", "m1")
    driver.join("gpu-1", certificate=certificate, machine_id="m1")
    for number in range(2, MOST_CLONES + 1):
        assert goes_as(driver.open("gpu-1", certificate=certificate, machine_id=f"x{number}")[1]) == f"gpu-1-{number}"
    assert refusal(driver.open("gpu-1", certificate=certificate, machine_id="x")[1]) is Why.NOT_YOURS
    # Who brings a token, or the node key, is no copy.
    assert driver.enrol("gpu-1", "m2").peer_id == f"gpu-1-{MOST_CLONES + 1}"
    assert goes_as(driver.open("gpu-1", machine_id="m3")[1]) == f"gpu-1-{MOST_CLONES + 2}"


def test_a_clone_gets_nothing_that_joined_by_itself() -> None:
    driver = Driver(tls=True)
    certificate = driver.enrol("gpu-1", "m1")
    driver.enrol("gpu-1-2", "m2")
    driver.join("gpu-1", certificate=certificate, machine_id="m1")
    assert goes_as(driver.open("gpu-1", certificate=certificate, machine_id="m2")[1]) == "gpu-1-3"


def test_a_clone_gets_nothing_that_a_gateway_joined_by() -> None:
    driver = Driver(tls=True)
    certificate = driver.enrol("gpu-1", "m1")
    driver.enrol("gpu-1-2", "m2", GATEWAY)
    driver.join("gpu-1", certificate=certificate, machine_id="m1")
    assert goes_as(driver.open("gpu-1", certificate=certificate, machine_id="m3")[1]) == "gpu-1-3"
    assert goes_as(driver.open("gpu-1-2", machine_id="m3")[1]) == "gpu-1-2-2"


def test_long_ids() -> None:
    driver = Driver(tls=True)
    wanted = "a" * 63
    assert driver.enrol(wanted, "m1").peer_id == wanted
    assert driver.enrol(wanted, "m2").peer_id == "a" * 61 + "-2"


def test_joining_under_an_id_of_another_machine() -> None:
    driver = Driver(tls=True)
    assert driver.enrol("gpu-1", "m1").peer_id == "gpu-1"
    # Node and gateway of one machine go by one id.
    assert driver.enrol("gpu-1", "m1", GATEWAY).peer_id == "gpu-1"
    assert driver.enrol("gpu-1", "m2", GATEWAY).peer_id == "gpu-1-2"
    assert driver.enrol("gpu-1", None).peer_id == "gpu-1-3"
    assert driver.enrol("gpu-1-3", None).peer_id == "gpu-1-3"
    # What was revoked keeps nobody out, unless the host is known.
    driver.feed(e.PeerRevoked(kind=GATEWAY, peer_id="gpu-1-2"))
    assert driver.enrol("gpu-1-2", "m9").peer_id == "gpu-1-2"


def test_joining_under_the_id_of_a_host_that_is_known() -> None:
    driver = Driver(tls=True)
    session = driver.join("gpu-1", machine_id="m1")
    assert driver.enrol("gpu-1", "m1").peer_id == "gpu-1-2"
    driver.close(session)
    assert driver.enrol("gpu-1", "m2").peer_id == "gpu-1-3"
    # The machine that had a node key, and joins now.
    assert driver.enrol("gpu-1", "m1").peer_id == "gpu-1"


class Fencing(RuleBasedStateMachine):
    """Machines join, come, renew, are revoked and forgotten, in any order."""

    IDS = st.sampled_from(["a", "a-2"])
    MACHINES = st.sampled_from([None, "m1", "m2"])

    @initialize()
    def start(self) -> None:
        self.driver = Driver(tls=True, restart_grace=5.0)
        self.certificates: list[Certified] = []
        self.revision = 0
        self.number = 0

    @rule(peer_id=IDS, machine_id=MACHINES, kind=st.sampled_from([NODE, GATEWAY]))
    def enrol(self, peer_id: str, machine_id: str | None, kind: PeerKind) -> None:
        self.certificates.append(self.driver.enrol(peer_id, machine_id, kind))

    @rule(data=st.data(), machine_id=MACHINES)
    def hello(self, data: st.DataObject, machine_id: str | None) -> None:
        nodes = [certificate for certificate in self.certificates if certificate.kind is NODE]
        certificate = data.draw(st.sampled_from([None, *nodes]))
        host_id = certificate.peer_id if certificate and data.draw(st.booleans()) else data.draw(self.IDS)
        session, effects = self.driver.open(host_id, certificate=certificate, machine_id=machine_id)
        if not only(effects, fx.Welcome):
            assert only(effects, fx.EndSession)
            return
        if certificate is not None:
            assert certificate.peer_id == host_id
            if (given := goes_as(effects)) != host_id:
                # A clone gets nothing that another machine joined by.
                trust, now = self.driver.registry.trust, self.driver.now
                good = [c for kind in (NODE, GATEWAY) for c in trust.live(kind, given, now.wall)]
                assert {(c.origin, c.machine_id) for c in good} <= {(Origin.CLONE, machine_id)}
        if data.draw(st.booleans()):
            self.revision += 1
            self.driver.offer(session, inventory(goes_as(effects), [], self.revision))

    @rule(data=st.data())
    def subscribe(self, data: st.DataObject) -> None:
        gateways = [certificate for certificate in self.certificates if certificate.kind is GATEWAY]
        certificate = data.draw(st.sampled_from([None, *gateways]))
        gateway_id = certificate.peer_id if certificate and data.draw(st.booleans()) else data.draw(self.IDS)
        self.number += 1
        event = e.Subscribed(subscriber_id=f"w{self.number}", gateway_id=gateway_id, certificate=certificate)
        self.driver.feed(event)

    @precondition(lambda self: self.driver.registry._sessions.live)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        self.driver.close(data.draw(st.sampled_from(sorted(self.driver.registry._sessions.live))))

    @precondition(lambda self: self.driver.registry._sessions.live)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(sorted(self.driver.registry._sessions.live)))
        given = self.driver.certify(stream)
        assert given is not None
        assert given.peer_id == self.driver.registry._sessions.live[stream].host_id
        self.certificates.append(given)

    @rule(peer_id=IDS, kind=st.sampled_from([NODE, GATEWAY]))
    def revoke(self, peer_id: str, kind: PeerKind) -> None:
        effects = self.driver.feed(e.PeerRevoked(kind=kind, peer_id=peer_id))
        ended = {effect.subscriber_id for effect in only(effects, fx.EndSubscriber)}
        for subscriber in list(self.driver.registry.subscribers):
            shown = subscriber.certificate
            assert (subscriber.subscriber_id in ended) == (shown is not None and shown[:2] == (kind, peer_id))
            if subscriber.subscriber_id in ended:
                self.driver.feed(e.Unsubscribed(subscriber_id=subscriber.subscriber_id))

    @rule(peer_id=IDS)
    def forget(self, peer_id: str) -> None:
        self.driver.feed(e.HostForgotten(host_id=peer_id))

    @rule(seconds=st.sampled_from([0.1, 3.0, 600.0]))
    def wait(self, seconds: float) -> None:
        self.driver.wait(seconds)

    @rule()
    def restart(self) -> None:
        time = self.driver.time
        self.driver = restarted(self.driver, restart_grace=5.0)
        self.driver.time = time

    @invariant()
    def nobody_speaks_by_what_was_revoked(self) -> None:
        if not hasattr(self, "driver"):
            return
        registry = self.driver.registry
        revoked = {serial for serial in registry.trust._revoked}
        for session in registry._sessions.live.values():
            assert session.certificate is None or session.certificate.serial not in revoked


TestFencing = Fencing.TestCase
