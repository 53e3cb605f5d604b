"""Refusals of the core and the store -> the one exception of the wire."""

import grpc
import pytest

from geniehive import failures
from geniehive.v1.failure_pb2 import FailureReason
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.ports import StoreUnavailable
from geniehive_control.rpc.errors import to_refused


@pytest.mark.parametrize("why", [why for why in Why if why is not Why.ALREADY_EXISTS])
def test_each_reason_is_one_of_the_contract(why: Why) -> None:
    refused = to_refused(Refusal(why, "text", retry_after=1.5, name="x"))
    assert refused.name == why.name
    assert refused.reason == FailureReason.Value(f"FAILURE_REASON_{why.name}")
    assert refused.code is failures.CODES[refused.reason]
    assert (refused.message, refused.metadata, refused.retry_after) == ("text", {"name": "x"}, 1.5)


def test_one_is_a_code_alone() -> None:
    refused = to_refused(Refusal(Why.ALREADY_EXISTS, "text"))
    assert (refused.reason, refused.code) == (0, grpc.StatusCode.ALREADY_EXISTS)
    assert refused.message == "text"


def test_the_store() -> None:
    refused = to_refused(StoreUnavailable("locked"))
    assert (refused.name, refused.message) == ("STORE_UNAVAILABLE", "nothing was stored: locked")


def test_what_would_not_fit_into_headers_is_cut() -> None:
    names = [f"model-{number}" for number in range(1000)]
    refused = to_refused(Refusal(Why.NAME_AMBIGUOUS, "ü" * 1000, names="\n".join(names), other="ü" * 5000))
    assert refused.message == "ü" * 400 + "..."
    told = refused.metadata["names"].split("\n")
    assert told == names[: len(told)], "whole names, the first ones"
    assert 100 < len(told) < 300
    assert refused.metadata["other"] == "ü" * 1000
    assert len(to_refused(StoreUnavailable("x" * 10_000)).message) < 1000
