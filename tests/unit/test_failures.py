"""A refusal arrives as it was meant, by every road."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geniehive import failures
from geniehive.failures import Refused
from geniehive.v1 import failure_pb2
from geniehive.v1.failure_pb2 import FailureReason
from geniehive.v1.registry_service_pb2 import ListHostsRequest
from geniehive.v1.registry_service_pb2_grpc import RegistryServiceStub
from tests.support.scripted_control import ScriptedControl

REFUSALS = st.builds(
    Refused,
    st.sampled_from(sorted(failures.CODES)),
    st.text(),
    metadata=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    retry_after=st.none() | st.integers(0, 10**6).map(lambda eighths: eighths / 8),
)


def content(error: Refused) -> tuple[object, ...]:
    return error.reason, error.message, error.code, error.metadata, error.retry_after


@settings(deadline=None)
@given(REFUSALS)
def test_inside_a_stream(error: Refused) -> None:
    message = failures.to_failure(error)
    again = failures.from_failure(failure_pb2.Failure.FromString(message.SerializeToString()))
    assert content(again) == content(error)


class Failed(grpc.RpcError):
    """An error as a call gives it."""

    def __init__(self, code: grpc.StatusCode, details: str | None, trailing: object) -> None:
        self._parts = code, details, trailing

    def code(self) -> grpc.StatusCode:
        return self._parts[0]

    def details(self) -> str | None:
        return self._parts[1]

    def trailing_metadata(self) -> Any:
        return self._parts[2]


@settings(deadline=None)
@given(REFUSALS)
def test_as_the_error_of_a_call(error: Refused) -> None:
    status = failures.to_status(error)
    again = failures.from_rpc_error(Failed(status.code, status.details, status.trailing_metadata))
    assert content(again) == content(error)


def test_an_error_of_somebody_else_keeps_its_code_and_text() -> None:
    for trailing in (None, (), (("x-other", "1"),)):
        error = failures.from_rpc_error(Failed(grpc.StatusCode.UNAVAILABLE, "connection refused", trailing))
        assert (error.name, error.code, error.message) == (
            "UNSPECIFIED",
            grpc.StatusCode.UNAVAILABLE,
            "connection refused",
        )
    assert failures.from_rpc_error(Failed(grpc.StatusCode.UNKNOWN, None, None)).message == ""


def test_a_reason_of_a_newer_version_has_a_name_and_its_code() -> None:
    failure = failure_pb2.Failure(code=14, reason=999, message="new")  # type: ignore[arg-type]
    error = failures.from_failure(failure)
    assert (error.name, error.code) == ("REASON_999", grpc.StatusCode.UNAVAILABLE)


def test_a_code_that_is_given_wins() -> None:
    error = Refused(FailureReason.FAILURE_REASON_COMMAND_STOPPED, "late", code=grpc.StatusCode.DEADLINE_EXCEEDED)
    assert error.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert str(error) == "late"


@pytest.fixture
async def control() -> AsyncIterator[ScriptedControl]:
    async with ScriptedControl() as made:
        yield made


async def test_over_a_real_call(control: ScriptedControl) -> None:
    sent = Refused(
        FailureReason.FAILURE_REASON_STORE_UNAVAILABLE, "the disk is full: ü", metadata={"a": "b"}, retry_after=1.5
    )

    def refuse(request: object) -> None:
        raise sent

    control.answer("ListHosts", refuse)
    async with grpc.aio.insecure_channel(control.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await RegistryServiceStub(channel).ListHosts(ListHostsRequest())
    assert content(failures.from_rpc_error(caught.value)) == content(sent)
