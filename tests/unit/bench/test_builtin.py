"""The workloads that are built in: the same by a seed, and passable."""

import json
import re
from typing import Any

import pytest

from geniehive.bench import builtin
from geniehive.bench import checks as c
from geniehive.bench import schema as schemas
from geniehive.bench.checks import Answer, ToolCall
from geniehive.bench.workload import PATHS, Workload

EVERY = pytest.mark.parametrize("workload", list(builtin.BUILTIN.values()), ids=list(builtin.BUILTIN))


@EVERY
def test_a_seed_always_asks_the_same(workload: Workload) -> None:
    assert re.fullmatch(r"[a-z_.]+/[1-9]\d*", workload.name)
    assert workload.operation in PATHS
    for number in range(12):
        one = workload.make(7, number)
        assert one == workload.make(7, number)
        assert "model" not in one.body
        assert one.checks
        json.dumps(one.body)


@EVERY
def test_other_seeds_and_numbers_ask_something_else(workload: Workload) -> None:
    bodies = [json.dumps(workload.make(seed, number).body) for seed in range(4) for number in range(6)]
    assert len(set(bodies)) > 20 or workload.operation == "embeddings"
    if workload.operation == "chat":
        # No engine has the beginning in its cache.
        begins = {workload.make(seed, n).body["messages"][0]["content"][:15] for seed in range(4) for n in range(6)}
        assert len(begins) == 24


@EVERY
def test_a_right_answer_passes_and_none_fails(workload: Workload) -> None:
    for number in range(24):
        request = workload.make(3, number)
        good = right(workload.name, request.body, request.checks)
        assert [check(good) for check in request.checks] == [None] * len(request.checks), number
        assert any(check(Answer("I cannot help with that.", finish="stop")) for check in request.checks)
        assert any(check(Answer()) for check in request.checks)


def right(name: str, body: dict[str, Any], checks: tuple[Any, ...]) -> Answer:
    if name == "embeddings/1":
        (closer,) = [check for check in checks if isinstance(check, c.Closer)]
        vectors = {closer.first: (1.0, 0.0), closer.near: (0.9, 0.1), closer.far: (0.0, 1.0)}
        return Answer(vectors=tuple(vectors[n] for n in range(3)))
    if name == "tool_call/1":
        (call,) = checks
        (tool,) = [t["function"] for t in body["tools"] if t["function"]["name"] == call.tool]
        schemas.check(tool["parameters"])
        assert schemas.misfit(tool["parameters"], call.arguments) is None
        return Answer(tool_calls=(ToolCall(call.tool, json.dumps(call.arguments)),))
    asked = body["messages"][1]["content"]
    if name == "chat.short_reasoning/1":
        return Answer(f"so it is\nANSWER: {solved(asked)}")
    if name == "long_context/1":
        (who,) = re.findall(r"What is the code of (.*)\?", asked)
        (code,) = re.findall(rf"The code of {who} is (\d+)\.", asked)
        return Answer(code)
    if name == "json_schema/1":
        (fields,) = [check.values for check in checks if isinstance(check, c.JsonFields)]
        assert all(str(fields[key]) in asked for key in ("customer", "article", "quantity"))
        return Answer(json.dumps(fields))
    assert name == "chat.concise_support/1"
    facts = body["messages"][0]["content"]
    order = re.findall(r"[A-H]\d{5}", asked)[0]
    wanted = {"send it back": r"within (\d+)", "money": r"account (\d+)", "be here": r"take (\d+)"}
    (pattern,) = [pattern for words, pattern in wanted.items() if words in asked]
    return Answer(f"Your order {order}: {re.findall(pattern, facts)[0]} days.", finish="stop")


def solved(problem: str) -> int:
    """Worked out from the words alone, so that the workload's own sums are checked."""
    n = [int(found) for found in re.findall(r"\d+", problem)]
    if "pencils" in problem:
        return n[0] * n[1] - n[2]
    if "notebook" in problem:
        return n[0] * n[2] + n[1] * n[3]
    if "train" in problem:
        return n[0] * n[1] - n[2]
    if "stickers" in problem:
        return n[0] + n[1] * n[2] - n[3]
    return n[0] // n[1] + n[2]


def test_long_context_fits_a_small_context() -> None:
    text = builtin.BUILTIN["long_context/1"].make(1, 0).body["messages"][1]["content"]
    # Some four letters to a token.
    assert 1800 < len(text) / 4 < 3000


def test_workloads_are_found_without_their_version() -> None:
    assert builtin.find("tool_call") is builtin.BUILTIN["tool_call/1"]
    assert builtin.find("tool_call/1") is builtin.BUILTIN["tool_call/1"]
    assert builtin.find("tool_call/2") is None
    assert builtin.find("tool") is None
    assert builtin.find("") is None
