"""Pretended nodes against a control on a real socket."""

import asyncio

import pytest

from geniehive import convert
from geniehive.channels import MAX_MESSAGE_BYTES
from geniehive.cli import fleet
from geniehive.cli.fleet import Fleet, Messages, Reach, Shape
from geniehive.kit.errors import UserError
from geniehive.rules import join_token
from geniehive.v1.node_service_pb2 import SessionRequest
from tests.support.control_server import AS_NODE, DEADLINE, Control, running_control, until

SHAPE = Shape(nodes=3, services=2, models=2, interval=0.05)


def registered(control: Control) -> list[str]:
    return [host.host_id for host in control.hub.registry.hosts() if host.session is not None]


def test_what_a_node_says_is_of_its_own_host() -> None:
    messages = Messages(Shape(nodes=20_000), "sim-00001")
    inventory = SessionRequest.FromString(messages.inventory("sim-20000")).inventory
    assert inventory.host.host_id == "sim-20000"
    assert {service.service.partition("/")[0] for service in inventory.services} == {"sim-20000"}
    assert inventory.relay.host_id == "sim-20000"
    load = convert.load_from_proto(SessionRequest.FromString(messages.load("sim-20000")).load)
    assert {figures.service for figures in load.services} == {service.service for service in inventory.services}
    assert load.machine is not None
    assert load.machine.host_id == "sim-20000"
    # As large as those of a real node with eight engines.
    assert 700 < messages.load_bytes < 1100
    assert len(messages.inventory("sim-00001")) < MAX_MESSAGE_BYTES


@pytest.mark.parametrize("nodes", [1, 9999, 10_000])
def test_host_ids_are_equally_long(nodes: int) -> None:
    ids = fleet.host_ids(nodes)
    assert len(set(ids)) == nodes
    assert len({len(host_id) for host_id in ids}) == 1


async def test_all_register_and_send_their_load() -> None:
    async with running_control() as control, Fleet(SHAPE, Reach(control.address, AS_NODE)) as made:
        made.connect()
        assert await made.until(3, DEADLINE)
        assert registered(control) == fleet.host_ids(3)
        service = control.hub.registry.service("sim-0002/engine-1")
        assert service is not None
        host, _ = service
        await until(lambda: host.load_of("sim-0002/engine-1", control.hub.now()) is not None)
        sent = made.sent
        await until(lambda: made.sent >= sent + 6)
        assert (made.attempts, made.troubles) == (3, {})


async def test_they_leave_at_the_end() -> None:
    async with running_control() as control:
        async with Fleet(SHAPE, Reach(control.address, AS_NODE)) as made:
            made.connect()
            assert await made.until(3, DEADLINE)
        await until(lambda: not registered(control))
        assert not made.troubles


async def test_what_sessions_end_with_is_counted() -> None:
    async with (
        running_control() as control,
        Fleet(SHAPE, Reach(control.address, (("x-geniehive-node-key", "wrong"),))) as made,
    ):
        made.connect()
        await until(lambda: made.troubles.total() >= 3)
        assert all(what.startswith("CREDENTIAL_REFUSED") for what in made.troubles)
        assert not await made.until(3, 0.01)


async def test_they_come_back_after_control_ended_their_sessions() -> None:
    async with running_control() as control, Fleet(SHAPE, Reach(control.address, AS_NODE)) as made:
        made.connect()
        assert await made.until(3, DEADLINE)
        control.hub.end_streams()
        await until(lambda: made.registered == 0)
        control.hub.stopping = False
        assert await made.until(3, DEADLINE)
        assert made.attempts >= 6


async def test_a_host_id_that_another_machine_has_ends_the_simulation() -> None:
    async with running_control() as control:
        await control.node("sim-0002", machine_id="a real one")
        async with Fleet(SHAPE, Reach(control.address, AS_NODE)) as made:
            made.connect()
            async with asyncio.timeout(DEADLINE):
                error = await made.failed
    assert isinstance(error, UserError)
    assert "hosts forget sim-0002" in str(error)


async def test_with_a_token_all_go_by_certificates_of_their_own() -> None:
    async with running_control(tls=True) as control:
        token = await control.token(uses=3)
        reach = await fleet.enroll(control.tls_address, token, SHAPE)
        assert reach.target == control.peers_address
        assert token not in repr(reach)
        async with Fleet(SHAPE, reach) as made:
            made.connect()
            assert await made.until(3, DEADLINE)
            hosts = list(control.hub.registry.hosts())
            assert [
                host.session.certificate.peer_id for host in hosts if host.session and host.session.certificate
            ] == (fleet.host_ids(3))


async def test_too_few_uses_of_a_token_are_told() -> None:
    async with running_control(tls=True) as control:
        with pytest.raises(UserError, match="enrols nobody"):
            await fleet.enroll(control.tls_address, await control.token(uses=2), SHAPE)


async def test_a_control_that_is_not_the_tokens_is_told_nothing() -> None:
    async with running_control(tls=True) as control:
        token = join_token.read(await control.token(uses=3))
        other = token._replace(ca_sha256=bytes(32))
        with pytest.raises(UserError, match="nothing was sent"):
            await fleet.enroll(control.tls_address, other.text, SHAPE)
        with pytest.raises(UserError, match="no join token"):
            await fleet.enroll(control.tls_address, "x", SHAPE)


async def test_the_pulse_is_felt() -> None:
    async with running_control() as control, fleet.pulse(control.address) as felt:
        await until(lambda: len(felt.answers) >= 2)
        assert all(0 < seconds < DEADLINE for seconds in felt.answers)


def test_quantiles() -> None:
    assert fleet.quantile([], 0.5) is None
    assert fleet.quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert fleet.quantile([3.0, 1.0, 2.0], 0.99) == 3.0
