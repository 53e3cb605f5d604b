"""What stands before every service. How it looks from outside is tested in tests/contract."""

import asyncio
from typing import Any, NamedTuple

import grpc
import pytest

from geniehive import failures
from geniehive.channels import NODE_KEY
from geniehive.v1.failure_pb2 import FAILURE_REASON_TOO_MUCH
from geniehive_control.core.keys import Keys
from geniehive_control.rpc.auth import Authenticator, Required, digest
from geniehive_control.rpc.guard import Guard, caller

SESSION = "/geniehive.v1.NodeService/Session"


class Details(NamedTuple):
    method: str


class Ended(grpc.aio.AbortError):
    pass


class Context:
    """Of a stream whose caller sends its first message when `sends` is set."""

    def __init__(self, key: str = "") -> None:
        self.steps: list[str] = []
        self.sends = asyncio.Event()
        self._metadata = ((NODE_KEY, key),)

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    async def read(self) -> object:
        await self.sends.wait()
        self.steps.append("read")
        return object()

    async def abort(self, code: grpc.StatusCode, *_: object) -> None:
        self.steps.append(code.name)
        raise Ended


async def guarded(behavior: Any) -> Any:
    guard = Guard(Authenticator(Required(node_keys=(digest("right"),)), Keys((), ()), lambda: 0.0))

    async def continuation(_: object) -> Any:
        return grpc.stream_stream_rpc_method_handler(behavior)

    handler = await guard.intercept_service(continuation, Details(SESSION))  # type: ignore[arg-type]
    assert await guard.intercept_service(continuation, Details(SESSION)) is handler  # type: ignore[arg-type]
    return handler.stream_stream


async def never(*_: object) -> None:
    raise AssertionError("a refused call came through")


async def test_a_refused_stream_ends_after_its_first_message() -> None:
    stream, context = await guarded(never), Context("wrong")
    ending = asyncio.create_task(stream(None, context))
    await asyncio.sleep(0.01)
    assert context.steps == []
    context.sends.set()
    with pytest.raises(Ended):
        await ending
    assert context.steps == ["read", "UNAUTHENTICATED"]


async def test_a_refused_stream_that_stays_silent_ends_too() -> None:
    stream, context = await guarded(never), Context("wrong")
    async with asyncio.timeout(2.0):
        with pytest.raises(Ended):
            await stream(None, context)
    assert context.steps == ["UNAUTHENTICATED"]


async def test_who_is_admitted_is_known_and_not_waited_for() -> None:
    seen = []

    async def behavior(_: object, __: object) -> None:
        seen.append(caller().name)

    stream, context = await guarded(behavior), Context("right")
    await stream(None, context)
    assert (seen, context.steps) == (["peer"], [])


async def test_each_call_of_a_method_is_judged_by_its_own_key() -> None:
    seen = []

    async def behavior(_: object, __: object) -> None:
        seen.append(caller().name)

    stream = await guarded(behavior)
    await stream(None, Context("right"))
    with pytest.raises(Ended):
        await stream(None, Context("wrong"))
    await stream(None, Context("right"))
    assert seen == ["peer", "peer"]


async def test_a_refusal_of_a_handler_is_translated() -> None:
    async def behavior(_: object, __: object) -> None:
        raise failures.Refused(FAILURE_REASON_TOO_MUCH, "too much")

    stream, context = await guarded(behavior), Context("right")
    with pytest.raises(Ended):
        await stream(None, context)
    assert context.steps == ["RESOURCE_EXHAUSTED"]
