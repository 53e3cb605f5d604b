"""Applies policy and auth to every call, and turns errors into statuses."""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from geniehive import failures
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.ports import StoreUnavailable
from geniehive_control.rpc.auth import Authenticator, link_of
from geniehive_control.rpc.errors import to_refused
from geniehive_control.rpc.policy import POLICY, Caller, check

log = logging.getLogger(__name__)

# How long a refused stream is given to say its first words, in seconds.
_FIRST_WORDS = 0.3

_caller: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """Who made the call at hand."""
    return _caller.get()


class Guard(grpc.aio.ServerInterceptor):
    """Stands before every service."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        # By method: a thousand streams need not have one each.
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = handler_call_details.method
        if (known := self._wrapped.get(method)) is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None:
            # gRPC answers UNIMPLEMENTED itself.
            return None
        wrapped = self._wrapped[method] = self._wrap(handler, method)
        return wrapped

    def _admit(self, method: str, context: Any) -> Caller:
        rule = POLICY.get(method)
        if rule is None:
            raise Refusal(Why.NOT_SERVED, f"{method} is not served by this version")
        if rule.anyone:
            who = Caller("anyone")
        else:
            metadata = context.invocation_metadata() or ()
            who = self._authenticator.caller(metadata, link_of(context.auth_context()))
        check(rule, who)
        if rule.not_served:
            raise Refusal(Why.NOT_SERVED, rule.not_served)
        return who

    def _wrap(self, handler: Any, method: str) -> Any:
        """The handler behind policy and auth, with its caller known and its errors translated."""
        kind = (handler.request_streaming, handler.response_streaming)
        inner, make = {
            (False, False): (handler.unary_unary, grpc.unary_unary_rpc_method_handler),
            (False, True): (handler.unary_stream, grpc.unary_stream_rpc_method_handler),
            (True, False): (handler.stream_unary, grpc.stream_unary_rpc_method_handler),
            (True, True): (handler.stream_stream, grpc.stream_stream_rpc_method_handler),
        }[kind]

        # Asked when the request is there, not when the call was announced: a key may be revoked in between.
        def admit(context: Any) -> None:
            _caller.set(self._admit(method, context))

        async def call(request: Any, context: Any) -> Any:
            try:
                admit(context)
                return await inner(request, context)
            except Exception as error:  # noqa: BLE001 - the one boundary
                await _abort(error, method, context)

        async def stream(request: Any, context: Any) -> None:
            try:
                try:
                    admit(context)
                except Refusal:
                    if handler.request_streaming:
                        await _hear(context)
                    raise
                answers = inner(request, context)
                if inspect.isawaitable(answers):
                    await answers
                    return
                # Written here, not yielded: if the caller leaves, the generator ends at once and not when it is
                # collected.
                async with contextlib.aclosing(answers):
                    async for answer in answers:
                        await context.write(answer)
            except Exception as error:  # noqa: BLE001 - the one boundary
                await _abort(error, method, context)

        return make(
            stream if handler.response_streaming else call,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


async def _hear(context: Any) -> None:
    """Waits for the first message of a stream that is about to be refused, and passes it over.

    A caller whose first write meets the end of its stream is told INTERNAL by its own gRPC, and never why.
    """
    first = asyncio.create_task(context.read(), name="first words")
    try:
        await asyncio.wait((first,), timeout=_FIRST_WORDS)
    finally:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def _abort(error: Exception, method: str, context: Any) -> None:
    match error:
        case Refusal() | StoreUnavailable():
            log.debug("%s refused: %s", method, error)
            await failures.abort(context, to_refused(error))
        case failures.Refused():
            await failures.abort(context, error)
        case grpc.aio.AbortError():
            raise error
        case DecodeError():
            log.warning("%s: %s sent something that is no message of the contract", method, context.peer())
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this is no message of the contract")
        case _:
            # What it was stands in the log, and is nobody else's business.
            log.error("%s failed", method, exc_info=error)
            await context.abort(grpc.StatusCode.INTERNAL, "control failed at this; its log says why")
