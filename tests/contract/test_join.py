"""Machines that join, on a real server: Enroll, mutual TLS, and what comes over the streams afterwards."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from geniehive.channels import CLIENT_KEY_ID, Tls, aio_channel
from geniehive.kit import tls, tls_probe
from geniehive.rules.identity import Peer, PeerKind, read_uri, relay_name
from geniehive.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    credential_pb2,
    node_service_pb2,
    node_service_pb2_grpc,
    registry_service_pb2,
    routing_service_pb2,
)
from tests.support.cluster import service
from tests.support.control_server import (
    AS_NODE,
    DEADLINE,
    KINDS,
    Control,
    Member,
    as_,
    refused,
    running_control,
    until,
)
from tests.support.fake_store import FakeStore

NODE, GATEWAY = PeerKind.NODE, PeerKind.GATEWAY
OLLAMA = service("gpu-1/ollama", "qwen3")
ADMIN = as_("admin")


def request(token: str, *kinds: PeerKind, **fields: Any) -> node_service_pb2.EnrollRequest:
    made = node_service_pb2.EnrollRequest(join_token=token, display_name="GPU 1", **fields)
    for kind in kinds or (NODE,):
        csr = tls.make_csr(tls.new_key(), "test").decode()
        made.peers.add(kind=KINDS[kind], certificate_request=credential_pb2.CertificateRequest(csr=csr))
    return made


async def no_entry(call: Any) -> grpc.StatusCode:
    """What a stream that cannot even be opened ends with."""
    try:
        async with asyncio.timeout(DEADLINE):
            answer = await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    raise AssertionError(f"answered {answer}")


async def revoke(control: Control, kind: PeerKind, peer_id: str) -> None:
    asked = admin_service_pb2.RevokeCredentialRequest(kind=KINDS[kind], peer_id=peer_id)
    await control.admin.RevokeCredential(asked, metadata=ADMIN)


# Enroll.


async def test_a_machine_joins_and_is_served() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", NODE, GATEWAY, machine_id="m1")
        answer = joined.answer
        assert (answer.host_id, answer.cluster_id) == ("gpu-1", "c1")
        assert answer.peer_port == int(control.peers_address.rpartition(":")[2])
        assert answer.trust.ca_bundle.encode() == control.ca
        assert [given.renew_after.seconds for given in answer.certificates] == [1200, 1200]
        node = joined[NODE].session()
        await node.hello("gpu-1")
        await node.register(OLLAMA)
        gateway = joined[GATEWAY].watch()
        await gateway.subscribe(gateway_id="gpu-1")
        await gateway.until(lambda: "route/qwen3" in gateway.table)
        for told in (node.trust, gateway.trust):
            assert told is not None
            assert (told.ca_bundle.encode(), list(told.revoked_serials)) == (control.ca, [])
        views = await control.registry.ListHosts(registry_service_pb2.ListHostsRequest(), metadata=as_("read"))
        assert [view.host.host_id for view in views.hosts] == ["gpu-1"]


async def test_a_certificate_says_who_it_is_for() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", NODE, GATEWAY)
        node, gateway = (tls.read_certificate(joined[kind].chain) for kind in (NODE, GATEWAY))
        assert [read_uri(uri) for uri in node.uris] == [Peer("c1", NODE, "gpu-1")]
        assert node.dns == (relay_name("c1", "gpu-1"),)
        assert [read_uri(uri) for uri in gateway.uris] == [Peer("c1", GATEWAY, "gpu-1")]
        assert gateway.dns == ()
        # The joiner finds the CA of its token in what a server shows, and control's is told by its whole chain.
        assert joined[NODE].chain.endswith(control.ca)


async def test_an_id_is_made_from_the_name() -> None:
    async with running_control(tls=True) as control:
        answer = await control.enroll(request(await control.token()))
        assert answer.host_id == "gpu-1"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("host_id", lambda asked: setattr(asked, "host_id", "A B")),
        ("display_name", lambda asked: setattr(asked, "display_name", "x" * 201)),
        ("display_name", lambda asked: setattr(asked, "display_name", "a\nb")),
        ("machine_id", lambda asked: setattr(asked, "machine_id", "x" * 129)),
        ("peers", lambda asked: asked.ClearField("peers")),
        ("peers", lambda asked: asked.peers.extend([asked.peers[0]] * 8)),
        ("peers[0].kind", lambda asked: setattr(asked.peers[0], "kind", 0)),
        ("peers[0].kind", lambda asked: setattr(asked.peers[0], "kind", 9)),
        ("peers[0].certificate_request.csr", lambda asked: asked.peers[0].ClearField("certificate_request")),
        (
            "peers[0].certificate_request.csr",
            lambda asked: setattr(asked.peers[0].certificate_request, "csr", "-----BEGIN CERTIFICATE REQUEST-----"),
        ),
    ],
)
async def test_fields_of_enroll(field: str, change: Callable[[Any], None]) -> None:
    async with running_control(tls=True) as control:
        token = await control.token()
        asked = request(token)
        change(asked)
        error = await refused(control.enroll(asked))
        assert (error.name, error.metadata) == ("FIELD_INVALID", {"field": field})
        # It is not used up by that.
        await control.join("gpu-1", token=token)


# Tokens.


async def test_a_token_that_was_used_too_often() -> None:
    async with running_control(tls=True) as control:
        token = await control.token(uses=2)
        await control.join("gpu-1", NODE, GATEWAY, token=token)
        await control.join("gpu-2", token=token)
        error = await refused(control.join("gpu-3", token=token))
        assert (error.name, error.code) == ("JOIN_TOKEN_REFUSED", grpc.StatusCode.UNAUTHENTICATED)
        assert "was used as often as it may be" in error.message


async def test_a_token_that_comes_too_late() -> None:
    async with running_control(tls=True) as control:
        token = await control.token(ttl=0.01)
        end = control.hub.now().wall + 0.01
        await until(lambda: control.hub.now().wall > end)
        error = await refused(control.join("gpu-1", token=token))
        assert (error.name, "has expired" in error.message) == ("JOIN_TOKEN_REFUSED", True)


@pytest.mark.parametrize("alter", [lambda t: "", lambda t: "gh-1", lambda t: t[:-4], lambda t: t[:-4] + "AAAA"])
async def test_a_token_that_was_altered(alter: Callable[[str], str]) -> None:
    async with running_control(tls=True) as control:
        token = alter(await control.token())
        # Before anything else is looked at.
        error = await refused(control.enroll(node_service_pb2.EnrollRequest(join_token=token, host_id="A B")))
        assert error.name == "JOIN_TOKEN_REFUSED"
        assert "join token" in error.message
        assert not token or token not in error.message


async def test_a_token_of_another_cluster() -> None:
    async with running_control(tls=True) as control, running_control(tls=True) as other:
        error = await refused(control.join("gpu-1", token=await other.token()))
        assert (error.name, "another cluster" in error.message) == ("JOIN_TOKEN_REFUSED", True)


async def test_a_token_for_another_kind() -> None:
    async with running_control(tls=True) as control:
        token = await control.token(uses=2, kinds=[GATEWAY])
        for kinds in ((NODE,), (GATEWAY, NODE)):
            error = await refused(control.join("gpu-1", *kinds, token=token))
            assert (error.name, "lets no node join" in error.message) == ("JOIN_TOKEN_REFUSED", True)
        await control.join("gpu-1", GATEWAY, token=token)


async def test_tokens_are_listed_and_revoked() -> None:
    async with running_control(tls=True) as control:
        asked = admin_service_pb2.CreateJoinTokenRequest()
        made = await control.admin.CreateJoinToken(asked, metadata=ADMIN)
        token = made.join_token
        assert list(made.addresses) == [f"192.0.2.1:{control.tls_address.rpartition(':')[2]}"]
        assert (token.uses_left, list(token.peer_kinds)) == (1, [KINDS[GATEWAY], KINDS[NODE]])
        assert token.expire_time.seconds == pytest.approx(control.hub.now().wall + 3600, abs=5)
        for _ in range(3):
            await control.token()
        listing = admin_service_pb2.ListJoinTokensRequest(page_size=3)
        first = await control.admin.ListJoinTokens(listing, metadata=ADMIN)
        listing.page_token = first.next_page_token
        second = await control.admin.ListJoinTokens(listing, metadata=ADMIN)
        assert [len(page.join_tokens) for page in (first, second)] == [3, 1]
        assert first.join_tokens[0] == token
        revoking = admin_service_pb2.RevokeJoinTokenRequest(token_id=token.token_id)
        await control.admin.RevokeJoinToken(revoking, metadata=ADMIN)
        error = await refused(control.join("gpu-1", token=made.token))
        assert (error.name, "was revoked" in error.message) == ("JOIN_TOKEN_REFUSED", True)
        again = await refused(control.admin.RevokeJoinToken(revoking, metadata=ADMIN))
        assert (again.name, again.metadata) == ("OBJECT_NOT_FOUND", {"name": token.token_id})
        left = await control.admin.ListJoinTokens(admin_service_pb2.ListJoinTokensRequest(), metadata=ADMIN)
        assert len(left.join_tokens) == 3


async def test_fields_of_a_token() -> None:
    async with running_control(tls=True) as control:
        for field, asked in (
            ("ttl", admin_service_pb2.CreateJoinTokenRequest(ttl={"seconds": 30 * 86400 + 1})),  # type: ignore[arg-type]
            ("ttl", admin_service_pb2.CreateJoinTokenRequest(ttl={"seconds": 0})),  # type: ignore[arg-type]
            ("ttl", admin_service_pb2.CreateJoinTokenRequest(ttl={"seconds": -5})),  # type: ignore[arg-type]
            ("uses", admin_service_pb2.CreateJoinTokenRequest(uses=10_001)),
            ("peer_kinds", admin_service_pb2.CreateJoinTokenRequest(peer_kinds=[9])),  # type: ignore[list-item]
        ):
            error = await refused(control.admin.CreateJoinToken(asked, metadata=ADMIN))
            assert (error.name, error.metadata) == ("FIELD_INVALID", {"field": field})


async def test_without_tls_nobody_can_join() -> None:
    async with running_control() as control:
        for call in (
            control.admin.CreateJoinToken(admin_service_pb2.CreateJoinTokenRequest(), metadata=ADMIN),
            control.nodes.Enroll(request("x")),
        ):
            error = await refused(call)
            assert (error.code, "tls.listen" in error.message) == (grpc.StatusCode.FAILED_PRECONDITION, True)
        answer = await control.admin.ListJoinTokens(admin_service_pb2.ListJoinTokensRequest(), metadata=ADMIN)
        assert len(answer.join_tokens) == 0
        node = await control.node("gpu-1")
        await node.send(node_service_pb2.SessionRequest(certificate_request=credential_pb2.CertificateRequest(csr="x")))
        await node.register()
        assert node.trust is None


async def test_what_cannot_be_stored_is_not_given() -> None:
    async with running_control(tls=True) as control:
        token = await control.token()
        control.store.failing = "disk full"
        assert (await refused(control.join("gpu-1", token=token))).name == "STORE_UNAVAILABLE"
        control.store.failing = None
        await control.join("gpu-1", token=token)


async def test_too_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geniehive_control.joining.MOST_AT_ONCE", 0)
    async with running_control(tls=True) as control:
        error = await refused(control.join("gpu-1"))
        assert (error.name, error.retry_after) == ("TOO_MUCH", 1.0)


# Whose id it is.


async def test_an_id_of_another_machine() -> None:
    async with running_control(tls=True) as control:
        first = await control.join("gpu-1", machine_id="m1")
        assert (await control.join("gpu-1", GATEWAY, machine_id="m2")).host_id == "gpu-1-2"
        assert (await control.join("gpu-1", machine_id="m3")).host_id == "gpu-1-3"
        # One that does not tell which machine it is counts as another.
        assert (await control.join("gpu-1")).host_id == "gpu-1-4"
        assert (await control.join("gpu-1", machine_id="m2")).host_id == "gpu-1-2"
        assert (await control.join("gpu-1", machine_id="m1")).host_id == "gpu-1"
        assert first.host_id == "gpu-1"


async def test_an_id_of_control_s_own_machine() -> None:
    async with running_control(tls=True) as control:
        await control.node("gpu-1", machine_id="m1")
        gateway = control.watch()
        await gateway.subscribe(gateway_id="gw")
        await gateway.apply()
        assert (await control.join("gpu-1", machine_id="m1")).host_id == "gpu-1-2"
        assert (await control.join("gw", GATEWAY, machine_id="m1")).host_id == "gw-2"


async def test_who_joins_anew_ends_what_it_had() -> None:
    async with running_control(tls=True) as control:
        old = await control.join("gpu-1", NODE, GATEWAY, machine_id="m1")
        node = old[NODE].session()
        await node.hello("gpu-1")
        await node.register(OLLAMA)
        gateway = old[GATEWAY].watch()
        await gateway.subscribe(gateway_id="gpu-1")
        await gateway.apply()
        new = await control.join("gpu-1", NODE, machine_id="m1")
        error = await node.ending()
        assert (error.name, "joined anew" in error.message) == ("CREDENTIAL_REVOKED", True)
        assert list(new.answer.trust.revoked_serials) == [old[NODE].serial]
        assert list((await gateway.told("trust")).trust.revoked_serials) == [old[NODE].serial]
        again = old[NODE].session()
        await again.send(node_service_pb2.SessionRequest(hello=node_service_pb2.Hello(host_id="gpu-1")))
        assert (await again.ending()).name == "CREDENTIAL_REVOKED"
        node = new[NODE].session()
        await node.hello("gpu-1", machine_id="m1")
        await node.register(OLLAMA)


# Who may do what by a certificate.


async def test_a_certificate_speaks_for_its_own_host() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", NODE, GATEWAY)
        node = joined[NODE].session()
        await node.send(node_service_pb2.SessionRequest(hello=node_service_pb2.Hello(host_id="gpu-2")))
        assert (await node.ending()).name == "NOT_YOURS"
        gateway = joined[GATEWAY].watch()
        await gateway.subscribe(gateway_id="gw")
        assert (await gateway.ending()).name == "NOT_YOURS"
        node = joined[NODE].session()
        await node.hello("gpu-1")
        result = await node.register(OLLAMA, service("gpu-2/ollama", "qwen3"))
        assert [item.service for item in result.refused] == ["gpu-2/ollama"]
        assert [item.failure.reason for item in result.refused] == [4]
        assert control.hub.registry.service("gpu-2/ollama") is None


async def test_a_certificate_is_good_for_its_own_kind() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", NODE, GATEWAY)
        node = control.stream(joined[GATEWAY].nodes.Session())
        error = await node.ending()
        assert (error.name, error.metadata) == ("SCOPE_MISSING", {"needs": "node"})
        gateway = control.stream(joined[NODE].routing.WatchRoutes())
        error = await gateway.ending()
        assert (error.name, error.metadata) == ("SCOPE_MISSING", {"needs": "gateway"})
        listing = registry_service_pb2.ListHostsRequest()
        assert (await refused(joined[NODE].registry.ListHosts(listing))).name == "SCOPE_MISSING"
        # A key that is sent as well changes nothing: by a certificate one is who it says.
        assert (await refused(joined[NODE].registry.ListHosts(listing, metadata=ADMIN))).name == "SCOPE_MISSING"


async def test_a_gateway_asks_for_its_client_by_certificate() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", NODE, GATEWAY)
        node = await control.node("gpu-2", service("gpu-2/ollama", "qwen3"))
        asked = routing_service_pb2.ResolveRequest(model="qwen3")
        answer = await joined[GATEWAY].routing.Resolve(asked)
        assert "relay/gpu-2" in {resource.name for resource in answer.resources}
        for_client = ((CLIENT_KEY_ID, "infer"),)
        answer = await joined[GATEWAY].routing.Resolve(asked, metadata=for_client)
        assert "route/qwen3" in {resource.name for resource in answer.resources}
        error = await refused(joined[NODE].routing.Resolve(asked, metadata=for_client))
        assert error.name == "CREDENTIAL_REFUSED"
        await node.done()


async def test_off_this_machine_a_node_key_is_no_proof() -> None:
    async with running_control(tls=True) as control:
        async with aio_channel(control.tls_address, Tls(control.ca)) as channel:
            nodes: Any = node_service_pb2_grpc.NodeServiceStub(channel)
            error = await control.stream(nodes.Session(metadata=AS_NODE)).ending()
            assert (error.name, "geniehive join" in error.message) == ("CREDENTIAL_REFUSED", True)
            assert (await control.stream(nodes.Session()).ending()).name == "CREDENTIAL_REFUSED"
            admin: Any = admin_service_pb2_grpc.AdminServiceStub(channel)
            listing = admin_service_pb2.ListJoinTokensRequest()
            await admin.ListJoinTokens(listing, metadata=ADMIN)
            error = await refused(admin.ListJoinTokens(listing, metadata=((CLIENT_KEY_ID, "admin"),)))
            assert error.name == "CREDENTIAL_REFUSED"
            assert (await refused(nodes.Leave(node_service_pb2.LeaveRequest()))).name == "CREDENTIAL_REFUSED"
        # Where certificates are demanded none comes in without.
        async with aio_channel(control.peers_address, Tls(control.ca)) as channel:
            admin = admin_service_pb2_grpc.AdminServiceStub(channel)
            assert await no_entry(admin.ListJoinTokens(listing, metadata=ADMIN)) is grpc.StatusCode.UNAVAILABLE


async def test_certificates_that_do_not_let_in() -> None:
    async with running_control(tls=True) as control:
        other = tls.Authority(*tls.make_authority("other", control.hub.now().wall))
        leave = node_service_pb2.LeaveRequest()
        for member in (
            await control.member(NODE, "gpu-1", authority=other),
            await control.member(NODE, "gpu-1", age=100.0, seconds=50.0),
            # From a control whose clock is days ahead.
            await control.member(NODE, "gpu-1", age=-3 * 86400.0),
        ):
            assert await no_entry(member.nodes.Leave(leave)) is grpc.StatusCode.UNAVAILABLE
        for member, words in (
            (await control.member(NODE, "gpu-1", cluster_id="c2"), "of this cluster"),
            (await control.member(NODE, "gpu-1", known=False), "does not know"),
        ):
            error = await refused(member.nodes.Leave(leave))
            assert (error.name, words in error.message) == ("CREDENTIAL_REFUSED", True)


@pytest.mark.parametrize("hours", [-47, 47])
async def test_a_clock_that_is_wrong_by_hours_matters_to_nobody(hours: float) -> None:
    async with running_control(tls=True) as control:
        member = await control.member(NODE, "gpu-1", age=hours * 3600.0, seconds=50 * 3600.0)
        await member.session().hello("gpu-1")


async def test_a_node_key_and_a_certificate_do_not_share_a_host() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1")
        node = joined[NODE].session()
        await node.hello("gpu-1")
        await node.register(OLLAMA)
        other = control.session()
        await other.send(node_service_pb2.SessionRequest(hello=node_service_pb2.Hello(host_id="gpu-1")))
        error = await other.ending()
        assert (error.name, "node key" in error.message) == ("NOT_YOURS", True)
        local = await control.node("gpu-2")
        await local.register()
        member = await control.member(NODE, "gpu-2")
        session = member.session()
        await session.send(node_service_pb2.SessionRequest(hello=node_service_pb2.Hello(host_id="gpu-2")))
        assert (await session.ending()).name == "NOT_YOURS"
        await node.register(OLLAMA)
        authority, store = control.authority, FakeStore()
        # As after a kill, which says goodbye to nobody.
        store.hosts = dict(control.store.hosts)
    # Also while control only presumes that it is there.
    async with running_control(store, tls=authority) as control:
        other = control.session()
        await other.send(node_service_pb2.SessionRequest(hello=node_service_pb2.Hello(host_id="gpu-1")))
        assert (await other.ending()).name == "NOT_YOURS"
        again = await control.member(NODE, "gpu-1")
        await again.session().hello("gpu-1")


# Renewal.


async def test_certificates_are_renewed_over_the_streams() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", NODE, GATEWAY)
        node = joined[NODE].session()
        await node.hello("gpu-1")
        gateway = joined[GATEWAY].watch()
        await gateway.subscribe(gateway_id="gpu-1")
        await gateway.apply()
        for stream, kind in ((node, NODE), (gateway, GATEWAY)):
            key = tls.new_key()
            given = await stream.certificate(key)
            chain = given.chain.encode()
            assert tls.fits(chain, key, control.ca)
            assert given.renew_after.seconds == 1200
            assert given.expire_time.seconds == pytest.approx(control.hub.now().wall + 3600, abs=5)
            seen = tls.read_certificate(chain)
            assert [read_uri(uri) for uri in seen.uris] == [Peer("c1", kind, "gpu-1")]
            assert seen.serial in control.store.certificates
        # The older ones are good until they expire.
        await node.register(OLLAMA)
        await joined[NODE].session().hello("gpu-1")


async def test_daemons_of_control_s_own_machine_get_certificates_too() -> None:
    async with running_control(tls=True) as control:
        node = await control.node("gpu-1")
        await node.told("trust")
        gateway = control.watch()
        await gateway.subscribe(gateway_id="gpu-1")
        await gateway.apply()
        assert gateway.trust is not None
        for stream, kind in ((node, NODE), (gateway, GATEWAY)):
            chain = (await stream.certificate(tls.new_key())).chain.encode()
            assert [read_uri(uri) for uri in tls.read_certificate(chain).uris] == [Peer("c1", kind, "gpu-1")]


async def test_who_asks_again_and_again_gets_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("geniehive_control.joining.MOST_OF_A_PEER", 2)
    async with running_control(tls=True) as control:
        node = await control.node("gpu-1")
        for _ in range(2):
            await node.certificate(tls.new_key())
        csr = tls.make_csr(tls.new_key(), "test").decode()
        asked = node_service_pb2.SessionRequest(certificate_request=credential_pb2.CertificateRequest(csr=csr))
        await node.send(asked)
        await node.register(OLLAMA)
        await until(lambda: "again and again" in caplog.text)
        assert node.silent


async def test_a_gateway_s_name_that_no_certificate_may_have() -> None:
    async with running_control(tls=True) as control:
        gateway = control.watch()
        await gateway.subscribe(gateway_id="My Gateway/1")
        await gateway.apply()
        csr = tls.make_csr(tls.new_key(), "test").decode()
        asked = credential_pb2.CertificateRequest(csr=csr)
        await gateway.send(routing_service_pb2.WatchRoutesRequest(certificate_request=asked))
        error = await gateway.ending()
        assert (error.name, error.metadata) == ("FIELD_INVALID", {"field": "gateway_id"})


async def test_a_request_that_is_none_ends_its_stream() -> None:
    async with running_control(tls=True) as control:
        node = await control.node("gpu-1")
        await node.send(node_service_pb2.SessionRequest(certificate_request=credential_pb2.CertificateRequest(csr="x")))
        error = await node.ending()
        assert (error.name, error.metadata) == ("FIELD_INVALID", {"field": "certificate_request.csr"})


async def test_a_certificate_that_cannot_be_stored_is_not_given() -> None:
    async with running_control(tls=True) as control:
        node = await control.node("gpu-1", OLLAMA)
        control.store.failing = "disk full"
        csr = tls.make_csr(tls.new_key(), "test").decode()
        asked = node_service_pb2.SessionRequest(certificate_request=credential_pb2.CertificateRequest(csr=csr))
        await node.send(asked)
        await until(lambda: control.hub.registry.store_failure is not None)
        assert node.silent
        control.store.failing = None
        key = tls.new_key()
        chain = (await node.certificate(key)).chain.encode()
        assert tls.fits(chain, key, control.ca)


async def test_a_cloned_image_gets_a_certificate_of_its_own() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", machine_id="m1")
        node = joined[NODE].session()
        await node.hello("gpu-1", machine_id="m1", instance_id="a")
        await node.register(OLLAMA)
        clone = joined[NODE].session()
        await clone.hello("gpu-1", machine_id="m2", instance_id="b")
        assert clone.host_id == "gpu-1-2"
        await clone.register(service("gpu-1-2/ollama", "qwen3"))
        key = tls.new_key()
        chain = (await clone.certificate(key)).chain.encode()
        seen = tls.read_certificate(chain)
        assert [read_uri(uri) for uri in seen.uris] == [Peer("c1", NODE, "gpu-1-2")]
        # Until it has put that in place it may come again by the old one.
        again = joined[NODE].session()
        await again.hello("gpu-1", machine_id="m2", instance_id="b")
        assert again.host_id == "gpu-1-2"
        own = Member(control, NODE, "gpu-1-2", key, chain).session()
        await own.hello("gpu-1-2", machine_id="m2", instance_id="b")
        assert own.host_id == "gpu-1-2"
        await own.register(service("gpu-1-2/ollama", "qwen3"))
        # The original has seen nothing of it.
        await node.register(OLLAMA)


@pytest.mark.parametrize("how", ["forgotten", "revoked", "left"])
async def test_what_a_clone_was_given_goes_with_the_certificate_that_gave_it(how: str) -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", NODE, machine_id="m1")
        node = joined[NODE].session()
        await node.hello("gpu-1", machine_id="m1")
        await node.register(OLLAMA)
        # Nobody sees it: it never says what it offers.
        clone = joined[NODE].session()
        await clone.hello("gpu-1", machine_id="m2")
        key = tls.new_key()
        chain = (await clone.certificate(key)).chain.encode()
        member = Member(control, NODE, clone.host_id, key, chain)
        session = member.session()
        await session.hello("gpu-1-2", machine_id="m2")
        if how == "forgotten":
            await control.admin.ForgetHost(admin_service_pb2.ForgetHostRequest(host_id="gpu-1"), metadata=ADMIN)
        elif how == "revoked":
            await revoke(control, NODE, "gpu-1")
        else:
            await joined[NODE].nodes.Leave(node_service_pb2.LeaveRequest())
            await session.beat()
            assert control.hub.registry.trust.live(NODE, "gpu-1-2", control.hub.now().wall)
            return
        assert (await session.ending()).name == "CREDENTIAL_REVOKED"
        again = member.session()
        await again.send(node_service_pb2.SessionRequest(hello=node_service_pb2.Hello(host_id="gpu-1-2")))
        assert (await again.ending()).name == "CREDENTIAL_REVOKED"
        assert control.store.certificates[member.serial].revoked is not None
        assert "node gpu-1-2, a copy of gpu-1" in [line.target for line in control.store.audit]


async def test_a_gateway_has_no_rights_but_its_own_whatever_key_it_names() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", GATEWAY)
        named = ((CLIENT_KEY_ID, "admin"),)
        admin: Any = admin_service_pb2_grpc.AdminServiceStub(joined[GATEWAY].channel)
        for call in (
            admin.CreateClientKey(admin_service_pb2.CreateClientKeyRequest(scopes=[4]), metadata=named),
            admin.CreateJoinToken(admin_service_pb2.CreateJoinTokenRequest(), metadata=named),
            admin.ForgetHost(admin_service_pb2.ForgetHostRequest(host_id="gpu-1"), metadata=named),
            joined[GATEWAY].registry.GetHost(registry_service_pb2.GetHostRequest(host_id="gpu-1"), metadata=named),
        ):
            assert (await refused(call)).name == "SCOPE_MISSING"
        asked = routing_service_pb2.ResolveRequest(model="none")
        call = joined[GATEWAY].routing.Resolve(asked, metadata=named)
        assert (await refused(call)).name == "ROUTE_NOT_FOUND"


async def test_a_clone_gets_no_id_that_joined_by_itself() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", machine_id="m1")
        await control.join("gpu-1-2", machine_id="m2")
        await joined[NODE].session().hello("gpu-1", machine_id="m1")
        clone = joined[NODE].session()
        await clone.hello("gpu-1", machine_id="m2")
        assert clone.host_id == "gpu-1-3"


# Revocation.


async def test_a_revoked_certificate() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", NODE, GATEWAY)
        other = await control.join("gpu-2", NODE, GATEWAY)
        node, bystander = joined[NODE].session(), other[NODE].session()
        await node.hello("gpu-1")
        await node.register(OLLAMA)
        await bystander.hello("gpu-2")
        await bystander.told("trust")
        gateway, watcher = joined[GATEWAY].watch(), other[GATEWAY].watch()
        await gateway.subscribe(gateway_id="gpu-1")
        await gateway.apply()
        await watcher.subscribe(gateway_id="gpu-2")
        await watcher.apply()
        key = tls.new_key()
        newer = tls.read_certificate((await node.certificate(key)).chain.encode()).serial

        await revoke(control, NODE, "gpu-1")
        error = await node.ending()
        assert (error.name, "join again" in error.message) == ("CREDENTIAL_REVOKED", True)
        assert list((await bystander.told("trust")).trust.revoked_serials) == sorted([joined[NODE].serial, newer])
        await watcher.until(lambda: not watcher.table["upstream/gpu-1/ollama"].content.routable)  # type: ignore[union-attr]
        again = joined[NODE].session()
        assert (await again.ending()).name == "CREDENTIAL_REVOKED"
        # Its host stays known, and its gateway is another matter.
        assert control.hub.registry.host("gpu-1") is not None
        assert not gateway.silent

        await revoke(control, GATEWAY, "gpu-1")
        assert (await gateway.ending()).name == "CREDENTIAL_REVOKED"
        error = await refused(joined[GATEWAY].routing.Resolve(routing_service_pb2.ResolveRequest(model="qwen3")))
        assert error.name == "CREDENTIAL_REVOKED"
        await until(lambda: watcher.trust is not None and joined[NODE].serial in watcher.trust.revoked_serials)
        for kind, peer_id in ((NODE, "gpu-1"), (NODE, "gpu-9")):
            asked = admin_service_pb2.RevokeCredentialRequest(kind=KINDS[kind], peer_id=peer_id)
            error = await refused(control.admin.RevokeCredential(asked, metadata=ADMIN))
            assert (error.name, error.metadata) == ("OBJECT_NOT_FOUND", {"name": peer_id})
        authority, store = control.authority, control.store
    async with running_control(store, tls=authority) as control:
        # What a restart does not forget.
        member = Member(control, NODE, "gpu-1", joined[NODE].key, joined[NODE].chain)
        assert (await member.session().ending()).name == "CREDENTIAL_REVOKED"
        node = await control.node("gpu-3")
        assert joined[NODE].serial in (await node.told("trust")).trust.revoked_serials


async def test_a_certificate_that_is_revoked_before_the_hello_came() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", NODE, GATEWAY)
        node, gateway = joined[NODE].session(), joined[GATEWAY].watch()
        for stream in (node, gateway):
            await stream.call.wait_for_connection()
        await revoke(control, NODE, "gpu-1")
        await revoke(control, GATEWAY, "gpu-1")
        await node.send(node_service_pb2.SessionRequest(hello=node_service_pb2.Hello(host_id="gpu-1")))
        assert (await node.ending()).name == "CREDENTIAL_REVOKED"
        await gateway.subscribe(gateway_id="gpu-1")
        assert (await gateway.ending()).name == "CREDENTIAL_REVOKED"


async def test_a_forgotten_host_must_join_again() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", machine_id="m1")
        node = joined[NODE].session()
        await node.hello("gpu-1", machine_id="m1")
        await node.register(OLLAMA)
        await control.admin.ForgetHost(admin_service_pb2.ForgetHostRequest(host_id="gpu-1"), metadata=ADMIN)
        assert (await node.ending()).name == "CREDENTIAL_REVOKED"
        assert (await joined[NODE].session().ending()).name == "CREDENTIAL_REVOKED"
        # The id is free again, for any machine.
        assert (await control.join("gpu-1", machine_id="m2")).host_id == "gpu-1"


async def test_a_host_that_joined_and_never_came_can_be_forgotten() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1")
        forget = admin_service_pb2.ForgetHostRequest(host_id="gpu-1")
        await control.admin.ForgetHost(forget, metadata=ADMIN)
        assert (await joined[NODE].session().ending()).name == "CREDENTIAL_REVOKED"
        assert (await refused(control.admin.ForgetHost(forget, metadata=ADMIN))).name == "OBJECT_NOT_FOUND"


async def test_leaving() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1", NODE, GATEWAY)
        node = joined[NODE].session()
        await node.hello("gpu-1")
        await node.register(OLLAMA)
        gateway = joined[GATEWAY].watch()
        await gateway.subscribe(gateway_id="gpu-1")
        await gateway.apply()
        leave = node_service_pb2.LeaveRequest()
        await joined[GATEWAY].nodes.Leave(leave)
        assert (await gateway.ending()).name == "CREDENTIAL_REVOKED"
        assert control.hub.registry.host("gpu-1") is not None
        await joined[NODE].nodes.Leave(leave)
        assert (await node.ending()).name == "CREDENTIAL_REVOKED"
        assert control.hub.registry.host("gpu-1") is None
        assert (await refused(joined[NODE].nodes.Leave(leave))).name == "CREDENTIAL_REVOKED"
        # On control's own machine there is nothing to leave.
        assert (await refused(control.nodes.Leave(leave, metadata=AS_NODE))).name == "CREDENTIAL_REFUSED"


# The rest.


async def test_control_s_certificate_is_renewed_without_breaking_anything() -> None:
    async with running_control(tls=True) as control:
        joined = await control.join("gpu-1")
        node = joined[NODE].session()
        await node.hello("gpu-1")
        host, port = control.tls_address.split(":")
        before = await tls_probe.fetch_chain(host, int(port), DEADLINE)
        control.own.renew()
        after = await tls_probe.fetch_chain(host, int(port), DEADLINE)
        assert before[0] != after[0]
        assert before[1:] == after[1:]
        assert tls.sha256(after[1]) == control.authority.sha256
        await node.register(OLLAMA)
        newcomer = (await control.join("gpu-2"))[NODE].session()
        await newcomer.hello("gpu-2")


async def test_tokens_outlive_a_restart() -> None:
    store = FakeStore()
    async with running_control(store, tls=True) as control:
        token, used = await control.token(uses=2), await control.token()
        await control.join("gpu-1", token=token)
        await control.join("gpu-2", token=used)
        authority = control.authority
    async with running_control(store, tls=authority) as control:
        await control.join("gpu-3", token=token)
        for spent in (token, used):
            error = await refused(control.join("gpu-4", token=spent))
            assert "was used as often as it may be" in error.message


async def test_secrets_stay_out_of_logs_audit_and_store(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with running_control(tls=True) as control:
            token = await control.token(uses=2)
            joined = await control.join("gpu-1", NODE, GATEWAY, token=token, machine_id="m1")
            node = joined[NODE].session()
            await node.hello("gpu-1")
            await node.certificate(tls.new_key())
            await revoke(control, NODE, "gpu-1")
            await refused(control.join("gpu-2", token=token[:-4] + "AAAA"))
            store = control.store
    seen = caplog.text + repr(store.audit) + repr(store.tokens) + repr(store.certificates)
    assert token not in seen
    assert token[-20:] not in seen
    assert "PRIVATE KEY" not in seen
    (token_id,) = store.tokens
    assert [(line.caller, line.action, line.target) for line in store.audit] == [
        ("admin", "create join token", token_id),
        (f"join token {token_id}", "join", "node gpu-1, gateway gpu-1"),
        ("node gpu-1", "certify", "node gpu-1"),
        ("admin", "revoke certificates", "node gpu-1"),
    ]
