"""`geniehive usage`."""

import json

import pytest

from geniehive import usage as shared
from geniehive.cli import usage
from geniehive.cli.__main__ import main
from geniehive.failures import Refused
from geniehive.rules.histogram import BOUNDS
from geniehive.v1 import failure_pb2, registry_service_pb2, usage_pb2
from geniehive.v1.registry_service_pb2 import QueryUsageRequest, QueryUsageResponse
from tests.support.fake_control import FakeControl

Capture = pytest.CaptureFixture[str]


def row(*values: str, **sums: int) -> QueryUsageResponse.Row:
    return QueryUsageResponse.Row(values=values, outcomes=usage_pb2.Outcomes(**sums))  # type: ignore[arg-type]


def full(*values: str) -> QueryUsageResponse.Row:
    made = row(
        *values, requests=10, requests_succeeded=6, requests_cancelled=1, requests_unserved=1, requests_with_tokens=6,
        prompt_tokens=1234, completion_tokens=567, attempts=12,
    )  # fmt: skip
    made.outcomes.duration.upper_bounds_seconds.extend(BOUNDS)
    made.outcomes.duration.counts.extend([0, 0, 0, 10, *[0] * (len(BOUNDS) - 3)])
    return made


def test_a_table(control: FakeControl, capsys: Capture) -> None:
    control.answers["QueryUsage"] = QueryUsageResponse(rows=[full("qwen3:8b"), row("other", requests=1)])
    assert main(["usage"]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "MODEL"
    assert first.split() == [
        "qwen3:8b", "10", "6", "2", "1", "1", "1234", "567", "-", "-", "75", "ms", "98", "ms",
    ]  # fmt: skip
    assert second.split()[:5] == ["other", "1", "0", "1", "0"]
    assert second.split()[6:] == ["-"] * 6, "what nobody told is not zero"
    (asked,) = control.requests
    assert list(asked.group_by) == [registry_service_pb2.USAGE_DIMENSION_MODEL]
    assert asked.until_time.seconds - asked.since_time.seconds == 86400


def test_json_and_every_dimension(control: FakeControl, capsys: Capture) -> None:
    pages = {
        "": QueryUsageResponse(rows=[full("k", "OPERATION_CHAT")], next_page_token="2"),
        "2": QueryUsageResponse(rows=[full("k2", "OPERATION_EMBEDDINGS")]),
    }
    control.answers["QueryUsage"] = lambda request: pages[request.page_token]
    given = [
        "usage",
        "--by",
        "key",
        "--by",
        "operation",
        "--by",
        "key",
        "--since",
        "2026-11-01",
        "--until",
        "2026-11-03",
    ]
    assert main([*given, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["by"], printed["since"]) == (["key", "operation"], "2026-11-01T00:00:00Z")
    first, second = printed["usage"]
    assert (first["key"], first["operation"], first["requests_failed"]) == ("k", "chat", 2)
    assert first["duration_p50_seconds"] == pytest.approx(0.075)
    assert first["first_token_p95_seconds"] is None
    assert second["operation"] == "embeddings"
    asked: QueryUsageRequest = control.requests[0]
    assert asked.until_time.seconds - asked.since_time.seconds == 2 * 86400


def test_a_total(control: FakeControl, capsys: Capture) -> None:
    control.answers["QueryUsage"] = QueryUsageResponse(rows=[full()])
    assert main(["usage", "--total"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "10"
    assert not control.requests[0].group_by


def test_nothing_was_asked(control: FakeControl, capsys: Capture) -> None:
    for rows, how in (([], "--by=model"), ([row()], "--total")):
        control.answers["QueryUsage"] = QueryUsageResponse(rows=rows)
        assert main(["usage", how, "--since", "2026-11-01T08:00:00+01:00"]) == 0
        assert capsys.readouterr().out == "nothing was asked since 2026-11-01T07:00:00Z\n"


@pytest.mark.parametrize("given", [["--since", "yesterday"], ["--until", "soon"], ["--since", "1h", "--until", "2h"]])
def test_times_that_are_none(given: list[str], control: FakeControl, capsys: Capture) -> None:
    assert main(["usage", *given]) == 2
    assert capsys.readouterr().err.startswith("geniehive: ")
    assert not control.requests


def test_a_database_that_is_away(control: FakeControl, capsys: Capture) -> None:
    refused = Refused(failure_pb2.FAILURE_REASON_STORE_UNAVAILABLE, "the database is locked", retry_after=0.01)
    control.answers["QueryUsage"] = refused
    assert main(["usage"]) == 1
    assert "the database is locked" in capsys.readouterr().err


def test_the_words_are_those_of_the_contract() -> None:
    assert set(usage.BY) == set(shared.DIMENSIONS)
    assert list(usage.BY)[:2] == ["key", "model"]
