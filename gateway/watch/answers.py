"""Questions about the cluster, asked of control in a client's name: one call for all of them.

A question is never waited for longer than its deadline, and not at all while control is away. Control answers from what
it knows, so that no host is waited for either.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from gateway.core.questions import Absent, Away, Forbidden, Inquiry, Wrong
from geniehive.channels import CLIENT_KEY_ID
from geniehive.failures import Refused, from_rpc_error
from geniehive.plain import plain
from geniehive.v1 import admin_service_pb2, failure_pb2, registry_service_pb2, routing_service_pb2

T = TypeVar("T")

DEADLINE = 10.0
# The contract gives it less.
_DEADLINES = {"Resolve": 2.0}
# So many objects are made plain at a time; then calls to models have their turn.
_AT_ONCE = 4

_SERVICES = (
    registry_service_pb2.DESCRIPTOR.services_by_name["RegistryService"],
    routing_service_pb2.DESCRIPTOR.services_by_name["RoutingService"],
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
)
_METHODS: dict[str, MethodDescriptor] = {method.name: method for service in _SERVICES for method in service.methods}
_WRONG = frozenset(
    {
        failure_pb2.FAILURE_REASON_FIELD_INVALID,
        failure_pb2.FAILURE_REASON_OPERATION_NOT_SERVED,
        failure_pb2.FAILURE_REASON_NAME_AMBIGUOUS,
    }
)
_ABSENT = frozenset({failure_pb2.FAILURE_REASON_ROUTE_NOT_FOUND, failure_pb2.FAILURE_REASON_OBJECT_NOT_FOUND})
_FORBIDDEN = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


class AskControl:
    """channel: to control; None while it is away. metadata: what proves this gateway."""

    def __init__(self, channel: Callable[[], grpc.aio.Channel | None], metadata: tuple[tuple[str, str], ...]) -> None:
        self._channel = channel
        self._metadata = metadata

    async def __call__(self, inquiry: Inquiry, key_id: str) -> dict[str, Any]:
        """All of the answer. key_id: of the client, "" where authentication is off. Wrong, Absent, Forbidden, Away."""
        method = _METHODS[inquiry.call]
        request = message_factory.GetMessageClass(method.input_type)()
        try:
            json_format.ParseDict(dict(inquiry.fields), request)
        except (json_format.ParseError, TypeError, ValueError) as error:
            raise Wrong(_said(error)) from error
        channel = self._channel()
        if channel is None:
            raise Away("there is no connection to it")
        call: Any = channel.unary_unary(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        deadline = _DEADLINES.get(inquiry.call, DEADLINE)
        return await _plain(
            await answered(call(request, timeout=deadline, metadata=for_client(self._metadata, key_id)))
        )


def for_client(metadata: tuple[tuple[str, str], ...], key_id: str) -> tuple[tuple[str, str], ...]:
    """What proves this gateway, and for whom it asks."""
    return (*metadata, (CLIENT_KEY_ID, key_id)) if key_id else metadata


async def answered(call: Awaitable[T]) -> T:
    """The answer of a call. Wrong, Absent, Forbidden, Away."""
    try:
        return await call
    except grpc.RpcError as error:
        raise ended(from_rpc_error(error)) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # So grpc says that the link was closed under the call.
        raise Away("the connection to it was closed") from None


def ended(refused: Refused) -> Wrong | Absent | Forbidden | Away:
    """What the refusal of a question means to who asked it."""
    if refused.reason in _WRONG:
        return Wrong(refused.message)
    if refused.reason in _ABSENT:
        return Absent(refused.message)
    if refused.code in _FORBIDDEN:
        return Forbidden(refused.message)
    if refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED and not refused.reason:
        return Wrong("the answer is too large for one message; ask for fewer at a time by limit")
    if refused.code is grpc.StatusCode.DEADLINE_EXCEEDED and not refused.reason:
        return Away("it did not answer in time")
    return Away(refused.message or refused.code.name.lower().replace("_", " "), refused.retry_after)


async def _plain(answer: Message) -> dict[str, Any]:
    """As `plain`, with pauses: an answer may hold thousands of objects."""
    shown: dict[str, Any] = {}
    for field in answer.DESCRIPTOR.fields:
        held = getattr(answer, field.name)
        if not field.is_repeated or field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        items = shown[field.name] = []
        for count, item in enumerate(held, 1):
            items.append(plain(item))
            if count % _AT_ONCE == 0:
                await asyncio.sleep(0)
        answer.ClearField(field.name)
    return {**plain(answer), **shown}


def _said(error: Exception) -> str:
    """In words of the question, not of the contract."""
    text = str(error).removeprefix("Failed to parse ")
    return text[:400].rstrip(".")
