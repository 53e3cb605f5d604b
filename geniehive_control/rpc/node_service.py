"""NodeService: how machines join and leave, and the one long-lived stream of a node."""

import secrets
from collections.abc import Iterator
from typing import Any

import grpc
import msgspec

from geniehive import convert
from geniehive.rules import names
from geniehive.rules.model import Load, ServiceLoad
from geniehive.v1 import node_service_pb2 as pb
from geniehive.v1 import node_service_pb2_grpc
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from geniehive_control.core.refusal import Refusal, Why, field_invalid
from geniehive_control.core.trust import Certified
from geniehive_control.hub import RECONNECT_AFTER, Hub
from geniehive_control.rpc import views
from geniehive_control.rpc.certificates import Certificates, given
from geniehive_control.rpc.guard import caller
from geniehive_control.rpc.streams import converse
from geniehive_control.rpc.views import duration

_LONGEST = 128


class Intervals(msgspec.Struct, frozen=True, kw_only=True):
    """What the welcome says, in seconds."""

    lease_ttl: float
    heartbeat: float
    load: float


class NodeService(node_service_pb2_grpc.NodeServiceServicer):
    def __init__(self, hub: Hub, intervals: Intervals, certificates: Certificates) -> None:
        self._hub = hub
        self._intervals = intervals
        self._certificates = certificates

    async def Enroll(self, request: pb.EnrollRequest, context: Any) -> pb.EnrollResponse:
        return await self._certificates.enroll(request)

    async def Leave(self, request: pb.LeaveRequest, context: Any) -> pb.LeaveResponse:
        await self._certificates.leave(caller())
        return pb.LeaveResponse()

    # It reads and writes by itself: then it is told at once when its caller has left.
    async def Session(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        opened = _opened(first, caller().certificate)
        del first  # the frame lasts as long as the stream
        box = self._hub.open_session(opened)
        try:
            await converse(
                context,
                box,
                self._messages,
                lambda message: self._take(opened.session_id, message),
                lambda: [pb.SessionResponse(goodbye=pb.Goodbye(reconnect_after=duration(RECONNECT_AFTER)))],
            )
        finally:
            self._hub.close_session(opened.session_id)

    def _messages(self, effect: fx.Effect) -> Iterator[pb.SessionResponse]:
        match effect:
            case fx.Welcome():
                pace = self._intervals
                yield pb.SessionResponse(
                    welcome=pb.Welcome(
                        session_id=effect.session_id,
                        cluster_id=self._hub.registry.cluster_id,
                        host_id=effect.host_id,
                        lease_ttl=duration(pace.lease_ttl),
                        heartbeat_interval=duration(pace.heartbeat),
                        load_interval=duration(pace.load),
                    )
                )
            case fx.TellTrust():
                yield pb.SessionResponse(trust=self._certificates.trust(effect))
            case fx.GiveCertificate():
                yield pb.SessionResponse(certificate=given(effect))
            case fx.AnswerInventory():
                yield pb.SessionResponse(
                    inventory_result=pb.InventoryResult(
                        revision=effect.revision,
                        refused=(
                            pb.InventoryResult.Refused(
                                service=item.service,
                                upstream_name=item.upstream_name,
                                failure=views.refused_item(item),
                            )
                            for item in effect.refused
                        ),
                    )
                )

    def _take(self, session_id: str, message: pb.SessionRequest) -> None:
        match message.WhichOneof("message"):
            case "heartbeat":
                sent = None
                if message.heartbeat.HasField("send_time"):
                    sent = convert.seconds(message.heartbeat.send_time)
                self._hub.feed(e.Heartbeat(session_id=session_id, sent=sent))
            case "load":
                # Kept as bytes: a message takes almost three times as much memory.
                load = _SentLoad(message.load.SerializeToString())
                self._hub.feed(e.LoadSent(session_id=session_id, read=load.read, brief=load.brief))
            case "inventory":
                offered = convert.inventory_from_proto(message.inventory)
                self._hub.feed(e.InventorySent(session_id=session_id, inventory=offered))
            case "certificate_request":
                self._hub.feed(e.Heartbeat(session_id=session_id))
                self._certificates.ask(session_id, message.certificate_request)
            case "hello":
                raise Refusal(Why.OUT_OF_ORDER, "hello is the first message of a session, and comes once")
            case _:
                # Of a newer node, or an answer to what was not asked: a sign of life all the same.
                self._hub.feed(e.Heartbeat(session_id=session_id))


class _SentLoad:
    """What a node sent, until somebody asks for it."""

    __slots__ = ("_serialized",)

    def __init__(self, serialized: bytes) -> None:
        self._serialized = serialized

    def read(self) -> Load:
        return convert.load_from_proto(pb.Load.FromString(self._serialized))

    def brief(self) -> list[ServiceLoad]:
        return [convert.brief_load_from_proto(load) for load in pb.Load.FromString(self._serialized).services]


def _opened(message: pb.SessionRequest, certificate: Certified | None) -> e.SessionOpened:
    if message.WhichOneof("message") != "hello":
        raise Refusal(Why.OUT_OF_ORDER, "the first message of a session must be hello")
    hello = message.hello
    if not names.is_id(hello.host_id):
        raise field_invalid("hello.host_id", f"{hello.host_id[:80]!r} is none: use [a-z0-9][a-z0-9._-]{{0,62}}")
    for field in ("machine_id", "instance_id", "agent_version"):
        if len(getattr(hello, field)) > _LONGEST:
            raise field_invalid(f"hello.{field}", f"is longer than {_LONGEST} characters")
    return e.SessionOpened(
        session_id=secrets.token_hex(8),
        host_id=hello.host_id,
        machine_id=hello.machine_id if hello.HasField("machine_id") else None,
        instance_id=hello.instance_id,
        agent_version=hello.agent_version,
        certificate=certificate,
    )
