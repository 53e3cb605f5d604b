"""The stream to control: feeds `core.session` and does what it says.

One consumer takes all events in order; each stream has a reader and one writer, whose queue holds at most one message
of each kind, the latest: a control that reads slowly costs no memory.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import grpc

from geniehive import convert, failures
from geniehive._version import __version__
from geniehive.channels import MAX_MESSAGE_BYTES, NODE_KEY, aio_channel
from geniehive.kit.backoff import Backoff
from geniehive.kit.clock import Clock
from geniehive.kit.errors import EXIT_REFUSED, EXIT_SUPERSEDED, EXIT_USAGE, UserError
from geniehive.kit.tasks import Tasks
from geniehive.rules import model as m
from geniehive.v1 import command_pb2, failure_pb2, node_service_pb2_grpc
from geniehive.v1 import node_service_pb2 as pb
from geniehive_node.core import session as core

log = logging.getLogger(__name__)

_EXITS = {core.Exit.SUPERSEDED: EXIT_SUPERSEDED, core.Exit.REFUSED: EXIT_REFUSED, core.Exit.USELESS: EXIT_USAGE}
_TRANSIENT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
}
_LEAST_INTERVAL = 0.05

Load = tuple[m.MachineLoad, list[m.ServiceLoad]]


class Identity(NamedTuple):
    """Who this daemon says it is. `node_key` is a secret."""

    host_id: str
    machine_id: str | None
    instance_id: str
    node_key: str | None

    def __repr__(self) -> str:
        return f"Identity({self.host_id!r}, instance_id={self.instance_id!r})"


class Hooks(NamedTuple):
    """What the owner of a link does for it.

    met(cluster_id, host_id, renamed); registered(host_id); send_less(); load() takes the figures of now.
    """

    met: Callable[[str, str, bool], Awaitable[None]]
    registered: Callable[[str], None]
    send_less: Callable[[], None]
    load: Callable[[], Awaitable[Load]]


class Link:
    """The standing conversation with control. `run` lasts until `stop`, or until there is no coming back."""

    def __init__(self, target: str, identity: Identity, hooks: Hooks, clock: Clock) -> None:
        self._target = target
        self._identity = identity
        self._hooks = hooks
        self._clock = clock
        self._core = core.Session(identity.host_id)
        self._events: asyncio.Queue[tuple[int | None, core.Event]] = asyncio.Queue()
        self._backoff = Backoff()
        self._tasks = Tasks()
        self._stream: _Stream | None = None
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def offer(self, inventory: m.Inventory) -> None:
        """What this host offers from now on. Any number of times, also before there is a session."""
        self._post(core.Offered(inventory=inventory))

    def stop(self) -> None:
        """Ends in good order: the last offer arrives, then the stream is closed. `run` returns soon after."""
        self._post(core.Stop())

    async def run(self) -> None:
        """UserError when another node took over or control refused for good; its exit code says which."""
        self._post(core.Retry())
        try:
            while True:
                number, event = await self._events.get()
                if number is not None and number != self._count:
                    continue  # of a stream that is not ours any more
                for effect in self._core.handle(event, self._clock.now()):
                    if isinstance(effect, core.Quit):
                        return _finish(effect)
                    await self._do(effect)
                self._arm()
        finally:
            self._disarm()
            self._hang_up()
            await self._tasks.close()

    def _post(self, event: core.Event, stream: int | None = None) -> None:
        self._events.put_nowait((stream, event))

    async def _do(self, effect: core.Effect) -> None:
        stream = self._stream
        match effect:
            case core.Open():
                self._open(effect.host_id)
            case core.SendOffer():
                message = pb.SessionRequest(inventory=convert.inventory_to_proto(effect.inventory))
                if message.ByteSize() > MAX_MESSAGE_BYTES:
                    # gRPC would end the stream without a word of why.
                    log.warning("the offer is too large for one message; offering fewer models")
                    self._hooks.send_less()
                elif stream is not None:
                    stream.send("inventory", message)
            case core.SendHeartbeat():
                if stream is not None:
                    sent = convert.timestamp(self._clock.wall())
                    stream.send("heartbeat", pb.SessionRequest(heartbeat=pb.Heartbeat(send_time=sent)))
            case core.SendLoad():
                if stream is not None:
                    stream.send("load", _load(await self._hooks.load()))
            case core.CloseSide():
                if stream is not None:
                    stream.close_side()
            case core.HangUp():
                self._hang_up()
            case core.Wait():
                self._hang_up()
                self._tasks.start(self._wait(effect), "wait for control")
            case core.Met():
                await self._hooks.met(effect.cluster_id, effect.host_id, effect.renamed)
            case core.Registered():
                self._backoff.reset()
                self._hooks.registered(effect.host_id)
            case core.SendLess():
                self._hooks.send_less()
            case core.Say():
                (log.error if effect.error else log.warning)("%s", effect.text)

    async def _wait(self, effect: core.Wait) -> None:
        if effect.pace is core.Pace.LONGEST:
            self._backoff.most()
        delay = 0.0 if effect.pace is core.Pace.AT_ONCE else self._backoff.next()
        await asyncio.sleep(effect.at_least + delay)
        self._post(core.Retry())

    def _open(self, host_id: str) -> None:
        hello = pb.Hello(host_id=host_id, instance_id=self._identity.instance_id, agent_version=__version__)
        if self._identity.machine_id is not None:
            hello.machine_id = self._identity.machine_id
        self._count += 1
        number = self._count
        metadata = [(NODE_KEY, self._identity.node_key)] if self._identity.node_key else []
        self._stream = _Stream(self._target, metadata, hello, lambda event: self._post(event, number))
        self._tasks.start(self._stream.run(), "session")

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.hang_up()
            self._stream = None

    def _arm(self) -> None:
        self._disarm()
        at = self._core.wake_at
        if at is not None:
            delay = max(0.0, at - self._clock.now())
            self._timer = asyncio.get_running_loop().call_later(delay, self._post, core.Tick())

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Stream:
    """One Session call."""

    def __init__(
        self, target: str, metadata: list[tuple[str, str]], hello: pb.Hello, post: Callable[[core.Event], None]
    ) -> None:
        self._target = target
        self._metadata = metadata
        self._post = post
        self._outbox: dict[str, pb.SessionRequest] = {"hello": pb.SessionRequest(hello=hello)}
        self._wake = asyncio.Event()
        self._wake.set()
        self._closing = False
        self._gone = asyncio.Event()
        self._replies = 0

    def send(self, kind: str, message: pb.SessionRequest) -> None:
        """Replaces a message of this kind that is not sent yet."""
        self._outbox[kind] = message
        self._wake.set()

    def close_side(self) -> None:
        self._closing = True
        self._wake.set()

    def hang_up(self) -> None:
        self._gone.set()

    async def run(self) -> None:
        # A channel of its own: a kept one would add its own back-off to ours.
        async with aio_channel(self._target) as channel:
            call = node_service_pb2_grpc.NodeServiceStub(channel).Session(metadata=self._metadata)
            tasks = Tasks()
            reader = tasks.start(self._read(call), "session reader")
            tasks.start(self._write(call), "session writer")
            gone = tasks.start(self._gone.wait(), "session end")
            try:
                # The reader is never cancelled before its call: a cancelled read breaks the stream.
                await asyncio.wait([reader, gone], return_when=asyncio.FIRST_COMPLETED)
            finally:
                call.cancel()
                await tasks.close()
                # Taken notice of only if the reader ended without a word.
                self._post(core.Ended(message="the stream broke"))

    async def _write(self, call: "grpc.aio.StreamStreamCall[pb.SessionRequest, pb.SessionResponse]") -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._outbox:
                    kind = next(iter(self._outbox))
                    await call.write(self._outbox.pop(kind))
                if self._closing:
                    await call.done_writing()
                    return
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the reader learns why

    async def _read(self, call: "grpc.aio.StreamStreamCall[pb.SessionRequest, pb.SessionResponse]") -> None:
        try:
            while True:
                message = await call.read()
                if message is grpc.aio.EOF:
                    self._post(core.Ended())
                    return
                assert isinstance(message, pb.SessionResponse)
                self._received(message)
        except grpc.RpcError as error:
            self._post(_ended(failures.from_rpc_error(error)))

    def _received(self, message: pb.SessionResponse) -> None:
        match message.WhichOneof("message"):
            case "welcome":
                self._post(_welcome(message.welcome))
            case "inventory_result":
                self._post(_stored(message.inventory_result))
            case "goodbye":
                self._post(core.Goodbye(reconnect_after=message.goodbye.reconnect_after.ToNanoseconds() / 1e9))
            case "command":
                self._refuse(message.command)
            case kind:
                log.debug("passing over a message of kind %s", kind)

    def _refuse(self, command: command_pb2.Command) -> None:
        refusal = failures.Refused(
            failure_pb2.FAILURE_REASON_COMMAND_UNSUPPORTED,
            f"this node does not obey {command.WhichOneof('action') or 'such a command'}",
        )
        update = command_pb2.CommandUpdate(command_id=command.command_id, failed=failures.to_failure(refusal))
        self._replies += 1
        self.send(f"command {self._replies}", pb.SessionRequest(command_update=update))


def _welcome(message: pb.Welcome) -> core.Welcome:
    return core.Welcome(
        session_id=message.session_id,
        cluster_id=message.cluster_id,
        host_id=message.host_id,
        heartbeat_interval=max(_LEAST_INTERVAL, message.heartbeat_interval.ToNanoseconds() / 1e9),
        load_interval=max(_LEAST_INTERVAL, message.load_interval.ToNanoseconds() / 1e9),
    )


def _stored(message: pb.InventoryResult) -> core.Stored:
    refused = tuple(
        f"{item.service}{' model ' + item.upstream_name if item.HasField('upstream_name') else ''}: "
        f"{item.failure.message}"
        for item in message.refused
    )
    return core.Stored(revision=message.revision, refused=refused)


def _ended(refused: failures.Refused) -> core.Ended:
    try:
        reason = core.Reason(refused.reason)
    except ValueError:
        reason = core.Reason.OTHER
    if reason is core.Reason.OTHER and refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # gRPC itself, of a message over its limit.
        reason = core.Reason.TOO_MUCH
    if reason is core.Reason.OTHER and refused.code is grpc.StatusCode.INTERNAL:
        # A write that meets the end of its stream hides control's reason behind this; the next stream tells.
        return core.Ended(message="the stream broke while it was written to")
    message = refused.message or refused.code.name
    return core.Ended(
        reason=reason, transient=refused.code in _TRANSIENT, message=message, retry_after=refused.retry_after
    )


def _load(load: Load) -> pb.SessionRequest:
    machine, services = load
    return pb.SessionRequest(
        load=pb.Load(
            machine=convert.machine_load_to_proto(machine), services=map(convert.service_load_to_proto, services)
        )
    )


def _finish(effect: core.Quit) -> None:
    if effect.exit is not None:
        raise UserError(f"control ended the session: {effect.text}", _EXITS[effect.exit])
