"""One Session call: its reader, and its one writer, whose queue holds at most one message of each kind, the latest.

A control that reads slowly costs no memory so. What comes is told as events of `core.talk`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import grpc

from geniehive import failures
from geniehive.channels import Tls, aio_channel
from geniehive.kit.tasks import Tasks
from geniehive.v1 import command_pb2, failure_pb2, node_service_pb2_grpc
from geniehive.v1 import node_service_pb2 as pb
from geniehive_node.core import talk

log = logging.getLogger(__name__)

_TRANSIENT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
}
_LEAST_INTERVAL = 0.05


class Stream:
    """One Session call.

    tls: off loopback. explain: asked when no connection came about, whether it has better words for it than gRPC.
    """

    def __init__(
        self,
        target: str,
        tls: Tls | None,
        metadata: list[tuple[str, str]],
        hello: pb.Hello,
        post: Callable[[talk.Event], None],
        explain: Callable[[], Awaitable[talk.Ended | None]] | None = None,
    ) -> None:
        self._target = target
        self._tls = tls
        self._metadata = metadata
        self._post = post
        self._explain = explain
        self._answered = False
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
        # A channel of its own: a kept one would add its own back-off to ours, and show the certificate of yesterday.
        async with aio_channel(self._target, self._tls) as channel:
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
                self._post(talk.Ended(message="the stream broke"))

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
                    self._post(talk.Ended())
                    return
                assert isinstance(message, pb.SessionResponse)
                self._answered = True
                self._received(message)
        except grpc.RpcError as error:
            refused = failures.from_rpc_error(error)
            ended = _ended(refused)
            if self._explain is not None and not self._answered and refused.code is grpc.StatusCode.UNAVAILABLE:
                ended = await self._explain() or ended
            self._post(ended)

    def _received(self, message: pb.SessionResponse) -> None:
        match message.WhichOneof("message"):
            case "welcome":
                self._post(_welcome(message.welcome))
            case "inventory_result":
                self._post(_stored(message.inventory_result))
            case "trust":
                told = message.trust
                self._post(talk.Trust(ca_bundle=told.ca_bundle.encode(), revoked=frozenset(told.revoked_serials)))
            case "certificate":
                after = message.certificate.renew_after.ToNanoseconds() / 1e9
                self._post(talk.Certificate(chain=message.certificate.chain.encode(), renew_after=after))
            case "goodbye":
                self._post(talk.Goodbye(reconnect_after=message.goodbye.reconnect_after.ToNanoseconds() / 1e9))
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


def _welcome(message: pb.Welcome) -> talk.Welcome:
    return talk.Welcome(
        session_id=message.session_id,
        cluster_id=message.cluster_id,
        host_id=message.host_id,
        heartbeat_interval=max(_LEAST_INTERVAL, message.heartbeat_interval.ToNanoseconds() / 1e9),
        load_interval=max(_LEAST_INTERVAL, message.load_interval.ToNanoseconds() / 1e9),
    )


def _stored(message: pb.InventoryResult) -> talk.Stored:
    refused = tuple(
        f"{item.service}{' model ' + item.upstream_name if item.HasField('upstream_name') else ''}: "
        f"{item.failure.message}"
        for item in message.refused
    )
    return talk.Stored(revision=message.revision, refused=refused)


def _ended(refused: failures.Refused) -> talk.Ended:
    try:
        reason = talk.Reason(refused.reason)
    except ValueError:
        reason = talk.Reason.OTHER
    if reason is talk.Reason.OTHER and refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # gRPC itself, of a message over its limit.
        reason = talk.Reason.TOO_MUCH
    if reason is talk.Reason.OTHER and refused.code is grpc.StatusCode.INTERNAL:
        # A write that meets the end of its stream hides control's reason behind this; the next stream tells.
        return talk.Ended(message="the stream broke while it was written to")
    message = refused.message or refused.code.name
    return talk.Ended(
        reason=reason, transient=refused.code in _TRANSIENT, message=message, retry_after=refused.retry_after
    )
