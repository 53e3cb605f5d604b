"""WatchRoutes, the gateway's side, against a control that a test plays."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

import gateway.watch.stream as stream_module
from gateway.core.plan import Plan
from gateway.core.table import NotFound, Table
from gateway.watch.kept import KeptTable
from gateway.watch.link import Link
from gateway.watch.stream import Identity, RouteStream
from geniehive.failures import Refused
from geniehive.kit.address import free_port
from geniehive.kit.backoff import Backoff
from geniehive.kit.clock import SystemClock
from geniehive.kit.errors import EXIT_REFUSED, UserError
from geniehive.kit.tasks import Tasks
from geniehive.rules import model
from geniehive.rules.model import Resource, Route
from geniehive.rules.operations import Operation
from geniehive.v1 import failure_pb2, routing_pb2
from geniehive.v1.load_pb2 import ServiceLoad
from geniehive.v1.routing_service_pb2 import WatchRoutesResponse
from tests.unit.gateway.builders import key, served, until
from tests.unit.gateway.watch.fake_routing import FakeRouting, update

ONE = served("m", a="http://x:1")
TWO = served("n", b="http://x:2")


class Watching:
    """A stream with what it works on. `delays` are the sleeps that it asked for; each takes no time."""

    def __init__(self, address: str, folder: Path) -> None:
        self.table = Table("here")
        self.kept = KeptTable(folder / "table.pb")
        self.applied = asyncio.Event()
        self.delays: list[float] = []
        self.loads: list[tuple[Sequence[model.ServiceLoad], float]] = []
        self.stream = RouteStream(
            Link(address, SystemClock(), "ghn-secret"),
            Identity(gateway_id="here", instance_id="i1", version="1"),
            self.table,
            self.kept,
            lambda offline: self.applied.set(),
            on_load=lambda loads, good_for: self.loads.append((loads, good_for)),
            backoff=Backoff(source=random.Random(1)),
            sleep=self._sleep,
        )
        self.stream.base_url = "http://gw:8800"

    async def _sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        await asyncio.sleep(0.01)  # so that a control that is away does not make a busy loop

    def knows(self, model: str) -> bool:
        return isinstance(self.table.find(model, Operation.CHAT), Plan)


@asynccontextmanager
async def watching(address: str, folder: Path) -> AsyncIterator[Watching]:
    made = Watching(address, folder)
    tasks = Tasks()
    tasks.start(made.stream.run(), "watch")
    try:
        yield made
    finally:
        await tasks.close()


async def test_steps_1_to_3_subscribe_update_ack(tmp_path: Path) -> None:
    async with FakeRouting() as control, watching(control.address, tmp_path) as gateway:
        stream = await control.stream()
        assert stream.metadata["x-geniehive-node-key"] == "ghn-secret"
        said = await stream.subscribed()
        assert (said.gateway_id, said.instance_id, said.gateway_version) == ("here", "i1", "1")
        assert said.base_url == "http://gw:8800"
        assert dict(said.held_versions) == {}
        assert gateway.stream.stub is None
        stream.say(update("1", *ONE))
        assert not (await stream.acked("1")).HasField("rejected")
        assert gateway.applied.is_set()
        assert gateway.knows("m")
        assert gateway.table.cluster_id == "c-1"
        assert gateway.stream.stub is not None


async def test_an_empty_first_update_makes_it_ready(tmp_path: Path) -> None:
    async with FakeRouting() as control, watching(control.address, tmp_path) as gateway:
        stream = await control.stream()
        await stream.subscribed()
        stream.say(update("1"))
        await stream.acked("1")
        assert gateway.table.ready


async def test_parts_are_applied_together(tmp_path: Path) -> None:
    async with FakeRouting() as control, watching(control.address, tmp_path) as gateway:
        stream = await control.stream()
        await stream.subscribed()
        stream.say(update("1", *ONE, more=True))
        load = WatchRoutesResponse.LoadSample(services=[ServiceLoad(service="a/e", running=2, age_seconds=0.5)])
        load.stale_after.FromMilliseconds(2500)
        stream.say(WatchRoutesResponse(load=load), WatchRoutesResponse())
        stream.say(update("1", *TWO, removed=("route/gone",), more=True))
        await asyncio.sleep(0)
        assert not gateway.table.ready
        stream.say(update("1", key("s")))
        await stream.acked("1")
        assert gateway.knows("m")
        assert gateway.knows("n")
        assert gateway.loads == [([model.ServiceLoad(service="a/e", running=2, age_seconds=0.5)], 2.5)]
        assert stream.silent


async def test_parts_that_are_not_finished_are_dropped(tmp_path: Path) -> None:
    async with FakeRouting() as control, watching(control.address, tmp_path) as gateway:
        stream = await control.stream()
        await stream.subscribed()
        stream.say(update("1", *ONE, more=True), update("2", *TWO))
        await stream.acked("2")
        assert isinstance(gateway.table.find("m", Operation.CHAT), NotFound)
        assert gateway.knows("n")


async def test_an_update_that_can_not_be_applied_is_rejected_with_its_reason(tmp_path: Path) -> None:
    bad = Resource(name="route/x", version="1", content=Route(model="y"))
    async with FakeRouting() as control, watching(control.address, tmp_path) as gateway:
        stream = await control.stream()
        await stream.subscribed()
        stream.say(update("1", *ONE))
        await stream.acked("1")
        stream.say(update("2", *TWO, bad, removed=("route/m",)))
        rejected = (await stream.acked("2")).rejected
        assert rejected.reason == failure_pb2.FAILURE_REASON_TABLE_REJECTED
        assert "route/x" in rejected.message
        assert gateway.knows("m")
        assert isinstance(gateway.table.find("n", Operation.CHAT), NotFound)
        stream.say(update("3", *TWO))  # and the stream goes on
        await stream.acked("3")
        assert gateway.knows("n")


async def test_parts_that_can_not_be_read_are_rejected_in_whole_with_their_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = stream_module.resource_from_proto

    def fails(message: routing_pb2.Resource) -> Resource:
        if message.name == "route/m":
            raise ValueError("route/m: unreadable")
        return convert(message)

    monkeypatch.setattr(stream_module, "resource_from_proto", fails)
    async with FakeRouting() as control, watching(control.address, tmp_path) as gateway:
        stream = await control.stream()
        await stream.subscribed()
        stream.say(update("1", *ONE, more=True), update("1", *TWO))
        assert "route/m: unreadable" in (await stream.acked("1")).rejected.message
        stream.say(update("2"))
        await stream.acked("2")
        assert not gateway.knows("n")


async def test_it_comes_back_saying_what_it_holds_and_serves_meanwhile(tmp_path: Path) -> None:
    async with FakeRouting() as control, watching(control.address, tmp_path) as gateway:
        stream = await control.stream()
        await stream.subscribed()
        stream.say(update("1", *ONE))
        await stream.acked("1")
        stream.end(Refused(failure_pb2.FAILURE_REASON_CONTROL_UNAVAILABLE, "stopping", retry_after=2.0))
        again = await control.stream()
        assert gateway.knows("m")
        assert gateway.stream.stub is None
        assert dict((await again.subscribed()).held_versions) == {r.name: "1" for r in ONE}
        assert gateway.delays == [2.0]
        again.say(update("1", removed=("route/m",)))
        await again.acked("1")
        assert not gateway.knows("m")


async def test_control_killed_and_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    caplog.set_level(logging.INFO)
    async with watching(f"127.0.0.1:{port}", tmp_path) as gateway:
        await until(lambda: len(gateway.delays) >= 5)
        assert all(0.1 <= d <= 3.0 for d in gateway.delays)
        async with FakeRouting(port) as control:
            stream = await control.stream()
            await stream.subscribed()
            stream.say(update("1", *ONE))
            await stream.acked("1")
        async with FakeRouting(port) as control:
            again = await control.stream()
            assert len((await again.subscribed()).held_versions) == len(ONE)
            again.say(update("2"))
            await again.acked("2")
        assert gateway.knows("m")
    away = [r.message for r in caplog.records if "is away" in r.message]
    assert 1 <= len(away) <= 5, away  # said when it changes, not at every attempt
    assert any("is there again" in r.message for r in caplog.records)
    assert "ghn-secret" not in caplog.text


async def test_after_a_success_delays_begin_anew(tmp_path: Path) -> None:
    async with FakeRouting() as control, watching(control.address, tmp_path) as gateway:
        for _ in range(3):
            stream = await control.stream()
            await stream.subscribed()
            stream.say(update("1"))
            await stream.acked("1")
            stream.end()
        await control.stream()
        assert all(delay <= 0.2 for delay in gateway.delays)


@pytest.mark.parametrize("reason", ["CREDENTIAL_REFUSED", "OUT_OF_ORDER"])
async def test_what_will_not_mend_soon_is_tried_seldom_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    number = failure_pb2.FailureReason.Value(f"FAILURE_REASON_{reason}")
    async with FakeRouting() as control, watching(control.address, tmp_path) as gateway:
        for _ in range(3):
            (await control.stream()).end(Refused(number, "no"))
        await control.stream()
        assert all(delay >= 1.5 for delay in gateway.delays)
        assert [r.levelname for r in caplog.records if reason in r.message] == ["WARNING"]


async def test_a_revoked_credential_ends_it(tmp_path: Path) -> None:
    async with FakeRouting() as control:
        running = asyncio.create_task(Watching(control.address, tmp_path).stream.run())
        (await control.stream()).end(Refused(failure_pb2.FAILURE_REASON_CREDENTIAL_REVOKED, "forgotten"))
        with pytest.raises(UserError, match="forgotten") as caught:
            await running
        assert caught.value.exit_code == EXIT_REFUSED


async def test_what_was_applied_is_kept(tmp_path: Path) -> None:
    async with FakeRouting() as control, watching(control.address, tmp_path) as gateway:
        stream = await control.stream()
        await stream.subscribed()
        stream.say(update("1", *ONE))
        await stream.acked("1")
        await gateway.kept.flush()
    kept = KeptTable(tmp_path / "table.pb").load()
    assert kept is not None
    assert {r.name for r in kept.changed} == {r.name for r in ONE}


async def test_a_table_of_another_cluster_is_dropped(tmp_path: Path) -> None:
    async with FakeRouting() as control, watching(control.address, tmp_path) as gateway:
        stream = await control.stream()
        await stream.subscribed()
        stream.say(update("1", *ONE))
        await stream.acked("1")
        stream.end()
        # As after a change of control's database: same names perhaps, nothing to be removed.
        stream = await control.stream()
        assert (await stream.subscribed()).held_versions
        other = update("1", *TWO)
        other.update.cluster_id = "c-2"
        stream.say(other)
        stream = await control.stream()
        assert dict((await stream.subscribed()).held_versions) == {}
        assert not gateway.table.ready
        stream.say(other)
        await stream.acked("1")
        assert gateway.knows("n")
        assert not gateway.knows("m")
        await gateway.kept.flush()
        kept = gateway.kept.load()
        assert kept is not None
        assert "route/m" not in {resource.name for resource in kept.changed}
        assert kept.cluster_id == "c-2"


async def test_an_end_that_grpc_hides_is_tried_again_soon(tmp_path: Path) -> None:
    async with FakeRouting() as control, watching(control.address, tmp_path) as gateway:
        for _ in range(3):
            stream = await control.stream()
            await stream.subscribed()
            stream.end(Refused(failure_pb2.FAILURE_REASON_UNSPECIFIED, "hidden", code=grpc.StatusCode.INTERNAL))
        await control.stream()
        assert gateway.delays[0] < 0.3
