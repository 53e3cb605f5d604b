import re
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from geniehive.client.calls import SERVICES, Attempts, deadline, is_read
from geniehive.failures import Refused
from geniehive.kit.backoff import Backoff
from geniehive.v1.failure_pb2 import FailureReason
from tests.support import contract

METHODS = [method for _, service in SERVICES.values() for method in service.methods]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_deadlines_are_those_of_the_contract(method: MethodDescriptor, root: Path) -> None:
    rpc = contract.rpcs(root)[method.full_name]
    stated = re.search(r"Deadline: ([^.;]+)", rpc.comment) or re.search(
        r"Deadline of the unary ones: ([^.;]+)", rpc.service_comment
    )
    assert stated is not None
    if method.server_streaming or method.client_streaming:
        assert deadline(method) is None
    else:
        assert f"{deadline(method):g} s" == stated[1]


def test_reads_are_what_changes_nothing() -> None:
    reads = {method.full_name.removeprefix("geniehive.v1.") for method in METHODS if is_read(method)}
    registry = {f"RegistryService.{m.name}" for m in SERVICES["registry"][1].methods if not m.name.startswith("Watch")}
    routing = {f"RoutingService.{name}" for name in ("Resolve", "ListRoutes", "MatchRoutes", "ExplainRoute")}
    admin = {"AdminService.ListClientKeys", "AdminService.ListJoinTokens"}
    assert reads == registry | routing | admin


def refused(
    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
    reason: FailureReason.ValueType = FailureReason.FAILURE_REASON_UNSPECIFIED,
    retry_after: float | None = None,
) -> Refused:
    return Refused(reason, "", code=code, retry_after=retry_after)


def steady(delay: float = 1.0) -> Backoff:
    class Steady(Backoff):
        def next(self) -> float:
            return delay

    return Steady()


def test_attempts_end_after_so_many() -> None:
    attempts = Attempts(10.0, 2, 0.0, steady())
    assert [attempts.delay(refused(), now) for now in (0.0, 1.0, 2.0)] == [1.0, 1.0, None]


def test_attempts_end_with_the_deadline() -> None:
    attempts = Attempts(2.0, 5, 100.0, steady())
    assert attempts.remaining(100.5) == 1.5
    assert attempts.delay(refused(), 100.5) == 1.0
    assert attempts.delay(refused(), 101.5) is None
    assert attempts.remaining(103.0) == 0.0


def test_attempts_wait_as_long_as_they_are_told() -> None:
    attempts = Attempts(10.0, 5, 0.0, steady())
    assert attempts.delay(refused(retry_after=4.0), 0.0) == 4.0
    assert attempts.delay(refused(retry_after=40.0), 4.0) is None


@pytest.mark.parametrize(
    ("code", "reason", "again"),
    [
        (grpc.StatusCode.UNAVAILABLE, FailureReason.FAILURE_REASON_CONTROL_UNAVAILABLE, True),
        (grpc.StatusCode.UNAVAILABLE, FailureReason.FAILURE_REASON_STORE_UNAVAILABLE, True),
        (grpc.StatusCode.ABORTED, FailureReason.FAILURE_REASON_UNSPECIFIED, True),
        (grpc.StatusCode.UNAVAILABLE, FailureReason.FAILURE_REASON_NO_ENDPOINT, False),
        (grpc.StatusCode.ABORTED, FailureReason.FAILURE_REASON_ETAG_STALE, False),
        (grpc.StatusCode.UNAUTHENTICATED, FailureReason.FAILURE_REASON_CREDENTIAL_REFUSED, False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, FailureReason.FAILURE_REASON_UNSPECIFIED, False),
    ],
)
def test_only_what_may_pass_is_tried_again(code: grpc.StatusCode, reason: FailureReason.ValueType, again: bool) -> None:
    delay = Attempts(10.0, 1, 0.0, steady()).delay(refused(code, reason), 0.0)
    assert (delay is not None) == again
