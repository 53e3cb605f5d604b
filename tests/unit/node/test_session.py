import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from geniehive.failures import Refused
from geniehive.kit.clock import SystemClock
from geniehive.kit.errors import EXIT_REFUSED, EXIT_SUPERSEDED, UserError
from geniehive.kit.state import default_folder
from geniehive.membership import Credential
from geniehive.rules.identity import PeerKind
from geniehive.rules.model import Host, Inventory, MachineLoad, ServiceLoad
from geniehive.v1 import command_pb2, failure_pb2
from geniehive.v1 import node_service_pb2 as pb
from geniehive_node.session import Hooks, Identity, Link, Load
from tests.unit.node.support import DEADLINE, FakeControl, duration, until

OFFER = Inventory(revision=0, host=Host(host_id="h", display_name="one"))
OTHER = Inventory(revision=0, host=Host(host_id="h", display_name="two"))


@pytest.fixture
async def control() -> AsyncIterator[FakeControl]:
    async with FakeControl() as made:
        yield made


class Owner:
    """What a node does for its link, written down."""

    def __init__(self, target: str, credential: Credential | None = None, certify: bool = False) -> None:
        self.met: list[tuple[str, str, bool]] = []
        self.registered: list[str] = []
        self.less = 0
        hooks = Hooks(self._met, self.registered.append, self._send_less, self._load)
        far = credential is not None and not certify
        identity = Identity("h", "machine", "instance", None if far else "ghn-secret")
        self.credential = credential or Credential(default_folder(), PeerKind.NODE)
        self.link = Link(target, identity, hooks, SystemClock(), self.credential, certify or far)

    async def _met(self, cluster_id: str, host_id: str, renamed: bool) -> None:
        self.met.append((cluster_id, host_id, renamed))
        if renamed:
            self.link.offer(Inventory(revision=0, host=Host(host_id=host_id)))

    def _send_less(self) -> None:
        self.less += 1

    async def _load(self) -> Load:
        return MachineLoad(host_id="h", cpu_used_fraction=0.5), [ServiceLoad(service="h/ollama", relayed=2)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.link.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_registers_and_keeps_the_pace_of_the_welcome(control: FakeControl) -> None:
    owner = Owner(control.address)
    async with owner.running():
        owner.link.offer(OFFER)
        await until(lambda: len(control.of("load")) >= 2 and len(control.of("heartbeat")) >= 2)
    assert control.kinds()[:2] == ["hello", "inventory"]
    (hello,) = control.of("hello")
    assert (hello.host_id, hello.machine_id, hello.instance_id) == ("h", "machine", "instance")
    assert control.metadata[0]["x-geniehive-node-key"] == "ghn-secret"
    assert owner.met == [("cluster-1", "h", False)]
    assert owner.registered == ["h"]
    (inventory,) = control.of("inventory")
    assert (inventory.revision, inventory.host.display_name) == (1, "one")
    load = control.of("load")[0]
    assert (load.machine.cpu_used_fraction, load.services[0].relayed) == (0.5, 2)


async def test_a_change_goes_out_at_once(control: FakeControl) -> None:
    owner = Owner(control.address)
    async with owner.running():
        owner.link.offer(OFFER)
        await until(lambda: owner.registered)
        owner.link.offer(OTHER)
        await until(lambda: len(control.of("inventory")) == 2)
    assert [(i.revision, i.host.display_name) for i in control.of("inventory")] == [(1, "one"), (2, "two")]


async def test_comes_back_when_control_does(control: FakeControl) -> None:
    owner = Owner(control.address)
    async with owner.running():
        owner.link.offer(OFFER)
        await until(lambda: len(owner.registered) == 1)
        await control.stop()
        await control.start()
        await until(lambda: len(owner.registered) == 2)
    assert control.of("inventory")[-1].revision == 1


async def test_waits_for_a_control_that_is_not_there_yet() -> None:
    control = FakeControl()
    await control.start()
    await control.stop()
    owner = Owner(control.address)
    async with owner.running():
        owner.link.offer(OFFER)
        await asyncio.sleep(0.05)
        await control.start()
        await until(lambda: owner.registered)
    await control.stop()


async def test_lost_session_is_opened_again_at_once(control: FakeControl) -> None:
    owner = Owner(control.address)
    async with owner.running():
        owner.link.offer(OFFER)
        await until(lambda: len(owner.registered) == 1)
        started = asyncio.get_running_loop().time()
        control.kick(Refused(failure_pb2.FAILURE_REASON_SESSION_LOST, "lease ran out"))
        await until(lambda: len(owner.registered) == 2)
        assert asyncio.get_running_loop().time() - started < 1.0


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (failure_pb2.FAILURE_REASON_SESSION_SUPERSEDED, EXIT_SUPERSEDED),
        (failure_pb2.FAILURE_REASON_CREDENTIAL_REVOKED, EXIT_REFUSED),
    ],
)
async def test_ends_for_good_and_says_why(
    control: FakeControl, reason: failure_pb2.FailureReason.ValueType, code: int
) -> None:
    owner = Owner(control.address)
    async with owner.running() as task:
        owner.link.offer(OFFER)
        await until(lambda: owner.registered)
        control.kick(Refused(reason, "somebody else is h now"))
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(UserError, match="somebody else is h now") as error:
                await task
    assert error.value.exit_code == code
    assert control.sessions == 1


async def test_keeps_the_name_that_control_gives(control: FakeControl) -> None:
    control.rename = "h-2"
    owner = Owner(control.address)
    async with owner.running():
        owner.link.offer(OFFER)
        await until(lambda: owner.registered == ["h-2"])
        control.kick()
        await until(lambda: control.sessions == 2 and len(control.of("hello")) == 2)
    assert owner.met[0] == ("cluster-1", "h-2", True)
    assert control.of("inventory")[0].host.host_id == "h-2"
    assert control.of("hello")[1].host_id == "h-2"


async def test_stops_after_the_last_offer_was_answered(control: FakeControl) -> None:
    owner = Owner(control.address)
    async with owner.running() as task:
        owner.link.offer(OFFER)
        await until(lambda: owner.registered)
        owner.link.offer(OTHER)
        owner.link.stop()
        async with asyncio.timeout(DEADLINE):
            await task
    assert control.of("inventory")[-1].host.display_name == "two"
    assert control.closed_by_node == 1


async def test_stops_soon_without_an_answer(control: FakeControl) -> None:
    control.answers = False
    owner = Owner(control.address)
    async with owner.running() as task:
        owner.link.offer(OFFER)
        await until(lambda: control.of("inventory"))
        owner.link.stop()
        async with asyncio.timeout(3.0):
            await task


async def test_stops_at_once_without_control() -> None:
    owner = Owner("127.0.0.1:1")
    async with owner.running() as task:
        owner.link.stop()
        async with asyncio.timeout(3.0):
            await task


async def test_a_command_is_refused_with_its_reason(control: FakeControl) -> None:
    owner = Owner(control.address)
    async with owner.running():
        owner.link.offer(OFFER)
        await until(lambda: owner.registered)
        command = command_pb2.Command(command_id="c7", refresh=command_pb2.Refresh())
        await control.send(pb.SessionResponse(command=command))
        await until(lambda: control.of("command_update"))
    (update,) = control.of("command_update")
    assert update.command_id == "c7"
    assert update.failed.reason == failure_pb2.FAILURE_REASON_COMMAND_UNSUPPORTED
    assert update.failed.code == grpc.StatusCode.UNIMPLEMENTED.value[0]


async def test_what_control_left_out_is_logged(control: FakeControl, caplog: pytest.LogCaptureFixture) -> None:
    owner = Owner(control.address)
    async with owner.running():
        owner.link.offer(OFFER)
        await until(lambda: owner.registered)
        result = pb.InventoryResult(revision=1)
        result.refused.add(service="x/y", upstream_name="m").failure.message = "belongs to another host"
        await control.send(pb.SessionResponse(inventory_result=result))
        with caplog.at_level(logging.ERROR):
            await until(lambda: caplog.records)
    assert "x/y model m: belongs to another host" in caplog.text


async def test_goodbye_sets_the_time_of_return(control: FakeControl) -> None:
    owner = Owner(control.address)
    async with owner.running():
        owner.link.offer(OFFER)
        await until(lambda: owner.registered)
        started = asyncio.get_running_loop().time()
        await control.send(pb.SessionResponse(goodbye=pb.Goodbye(reconnect_after=duration(0.3))))
        control.kick()
        await until(lambda: len(owner.registered) == 2)
        assert asyncio.get_running_loop().time() - started >= 0.3


async def test_too_much_asks_for_a_smaller_offer(control: FakeControl) -> None:
    owner = Owner(control.address)
    async with owner.running():
        owner.link.offer(OFFER)
        await until(lambda: owner.registered)
        control.kick(Refused(failure_pb2.FAILURE_REASON_TOO_MUCH, "too large"))
        await until(lambda: owner.less == 1 and len(owner.registered) == 2)


def test_an_identity_does_not_show_its_key() -> None:
    assert "secret" not in repr(Identity("h", None, "i", "ghn-secret"))


async def test_a_key_that_control_does_not_know_is_told_and_tried_again_seldom(
    control: FakeControl, caplog: pytest.LogCaptureFixture
) -> None:
    control.refuses = Refused(failure_pb2.FAILURE_REASON_CREDENTIAL_REFUSED, "not known here")
    owner = Owner(control.address)
    async with owner.running():
        await until(lambda: "control refused what this node proves itself with: not known here" in caplog.text)
        control.refuses = None
        owner.link.offer(OFFER)
        await until(lambda: owner.registered)
    assert caplog.text.count("not known here") == 1


async def test_an_offer_over_the_limit_of_a_message_is_not_sent_and_a_smaller_one_asked_for(
    control: FakeControl,
) -> None:
    owner = Owner(control.address)
    async with owner.running():
        owner.link.offer(Inventory(revision=0, host=Host(host_id="h", display_name="x" * (5 << 20))))
        await until(lambda: owner.less)
        owner.link.offer(OFFER)
        await until(lambda: owner.registered)
    assert control.sessions == len(control.of("inventory")) == 1
