"""RoutingService: what gateways live on, and questions about routes."""

import secrets
from collections.abc import Iterable, Iterator
from typing import Any

import grpc

from geniehive import convert
from geniehive.rules.model import Resource
from geniehive.v1 import routing_pb2, routing_service_pb2_grpc
from geniehive.v1 import routing_service_pb2 as pb
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from geniehive_control.core import lookup
from geniehive_control.core.refusal import Refusal, Why, field_invalid
from geniehive_control.core.trust import Certified
from geniehive_control.hub import Hub
from geniehive_control.loads import Loads
from geniehive_control.rpc.certificates import Certificates, given
from geniehive_control.rpc.guard import caller
from geniehive_control.rpc.paging import page
from geniehive_control.rpc.reports import Reports
from geniehive_control.rpc.route_questions import explain_route, match_routes
from geniehive_control.rpc.route_questions import kind as kind_of
from geniehive_control.rpc.route_questions import operation as operation_of
from geniehive_control.rpc.streams import converse
from geniehive_control.usage import Usage

# Of the resources in one part of an update: below the 4 MiB of a message, with room for the rest.
_PART_BYTES = 3 * 1024 * 1024
_LONGEST = 256
_LONGEST_REASON = 1000


class RoutingService(routing_service_pb2_grpc.RoutingServiceServicer):
    def __init__(
        self,
        hub: Hub,
        control_id: str,
        certificates: Certificates,
        usage: Usage,
        loads: Loads,
        part_bytes: int = _PART_BYTES,
    ) -> None:
        self._hub = hub
        self._usage = usage
        self._loads = loads
        self._certificates = certificates
        self._control_id = control_id
        self._part_bytes = part_bytes
        # By name, with its version: what each gateway gets is made once. A message takes eight times as much memory.
        self._made: dict[str, tuple[str, bytes]] = {}

    # It reads and writes by itself: then it is told at once when its caller has left.
    async def WatchRoutes(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        subscribed = _subscribed(first, caller().certificate)
        box = self._hub.subscribe(subscribed)
        box.put("load", fx.TellLoad())
        loads = self._loads.reader()

        def messages(effect: fx.Effect) -> Iterable[pb.WatchRoutesResponse]:
            return loads.messages() if type(effect) is fx.TellLoad else self._messages(effect)

        try:
            await converse(context, box, messages, lambda message: self._take(subscribed.subscriber_id, message))
        finally:
            self._hub.unsubscribe(subscribed.subscriber_id)

    def _take(self, subscriber_id: str, message: pb.WatchRoutesRequest) -> None:
        match message.WhichOneof("message"):
            case "ack":
                rejected = _words(message.ack.rejected.message) if message.ack.HasField("rejected") else None
                self._hub.feed(e.Acknowledged(subscriber_id=subscriber_id, nonce=message.ack.nonce, rejected=rejected))
            case "certificate_request":
                self._certificates.ask(subscriber_id, message.certificate_request)
            case "subscribe":
                raise Refusal(Why.OUT_OF_ORDER, "subscribe is the first message of a stream, and comes once")

    def _messages(self, effect: fx.Effect) -> Iterable[pb.WatchRoutesResponse]:
        match effect:
            case fx.Update():
                return self._parts(effect)
            case fx.TellTrust():
                return (pb.WatchRoutesResponse(trust=self._certificates.trust(effect)),)
            case fx.GiveCertificate():
                return (pb.WatchRoutesResponse(certificate=given(effect)),)
        return ()

    def _parts(self, update: fx.Update) -> Iterator[pb.WatchRoutesResponse]:
        part = self._part(update)
        size = 0
        for name in update.removed:
            self._made.pop(name, None)
            if size and size + len(name) > self._part_bytes:
                part.update.more = True
                yield part
                part, size = self._part(update), 0
            part.update.removed.append(name)
            size += len(name.encode()) + 8
        for resource in update.changed:
            made = self._resource(resource)
            length = len(made)
            if size and size + length > self._part_bytes:
                part.update.more = True
                yield part
                part, size = self._part(update), 0
            part.update.changed.add().MergeFromString(made)
            size += length + 8
        yield part

    def _part(self, update: fx.Update) -> pb.WatchRoutesResponse:
        return pb.WatchRoutesResponse(
            update=pb.WatchRoutesResponse.Update(
                nonce=update.nonce, control_id=self._control_id, cluster_id=self._hub.registry.cluster_id
            )
        )

    def _resource(self, resource: Resource) -> bytes:
        version, made = self._made.get(resource.name, ("", b""))
        if version != resource.version:
            if len(self._made) > 2 * len(self._hub.registry.table) + 1000:
                # Of resources that went while nobody was connected.
                self._made.clear()
            made = convert.resource_to_proto(resource).SerializeToString()
            self._made[resource.name] = resource.version, made
        return made

    async def ReportOutcomes(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        reports = Reports(self._hub, self._usage, caller().certificate)
        box = self._usage.open(reports.stream_id)
        try:
            await context.write(reports.first_words())
            await converse(context, box, reports.accepted, lambda message: reports.take(box, message))
        finally:
            self._usage.close(reports.stream_id)

    async def Resolve(self, request: pb.ResolveRequest, context: Any) -> pb.ResolveResponse:
        found = lookup.resolve(
            self._hub.registry.table, request.model, operation_of(request.operation), with_relays=caller().peer
        )
        return pb.ResolveResponse(resources=map(self._resolved, found))

    def _resolved(self, resource: Resource) -> routing_pb2.Resource:
        # A narrowed route is nobody else's, so it is not kept.
        held = self._hub.registry.table.version(resource.name)
        if held == resource.version:
            return routing_pb2.Resource.FromString(self._resource(resource))
        return convert.resource_to_proto(resource)

    async def ListRoutes(self, request: pb.ListRoutesRequest, context: Any) -> pb.ListRoutesResponse:
        kind = kind_of(request.kind)
        operation = operation_of(request.operation)
        found = sorted(
            (
                (route.model, route)
                for route in self._hub.registry.table.routes()
                if lookup.matches(route, kind, operation)
            ),
            key=lambda pair: pair[0],
        )
        routes, token = page(request, found, convert.route_to_proto)
        return pb.ListRoutesResponse(routes=routes, next_page_token=token)

    async def MatchRoutes(self, request: pb.MatchRoutesRequest, context: Any) -> pb.MatchRoutesResponse:
        return match_routes(request, self._hub.registry)

    async def ExplainRoute(self, request: pb.ExplainRouteRequest, context: Any) -> pb.ExplainRouteResponse:
        return explain_route(request, self._hub.registry)


def _subscribed(message: pb.WatchRoutesRequest, certificate: Certified | None) -> e.Subscribed:
    if message.WhichOneof("message") != "subscribe":
        raise Refusal(Why.OUT_OF_ORDER, "the first message of a stream must be subscribe")
    asked = message.subscribe
    for field in ("gateway_id", "instance_id", "gateway_version", "base_url"):
        if len(getattr(asked, field)) > _LONGEST:
            raise field_invalid(f"subscribe.{field}", f"is longer than {_LONGEST} characters")
    return e.Subscribed(
        subscriber_id=secrets.token_hex(8),
        gateway_id=asked.gateway_id,
        instance_id=asked.instance_id,
        gateway_version=asked.gateway_version,
        base_url=asked.base_url,
        held=dict(asked.held_versions),
        certificate=certificate,
    )


def _words(message: str) -> str:
    """A gateway's reason, as it can stand in one line of the log."""
    return "".join(c if c.isprintable() else " " for c in message[:_LONGEST_REASON]) or "no reason given"
