"""Workloads in YAML, and what is said of those that are wrong."""

import re
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.bench import builtin, files
from geniehive.bench import checks as c
from geniehive.bench.files import WorkloadError, parse
from geniehive.bench.workload import Workload

CHAT = """\
name: my.geography
version: 3
system: Answer in one word.
max_tokens: 20
requests:
  - prompt: What is the capital of France?
    checks:
      - equals: Paris
      - max_words: 3
  - messages:
      - {role: user, content: "Two plus two?"}
    max_tokens: 5
    response_format: {type: json_object}
    tools: [{type: function, function: {name: add}}]
    tool_choice: auto
    checks:
      - number: 4
      - contains: [four, "4"]
      - lacks: five
      - regex: "^4"
      - max_characters: 10
      - json: {type: object}
      - json_fields: {n: 4}
      - tool: {name: add, arguments: {a: 2}}
"""
EMBEDDINGS = """\
name: mine
version: 1
operation: embeddings
requests:
  - input: [a, b, c]
    checks: [{dimension: 384}, {closer: [0, 1, 2]}]
  - input: alone
    checks: [{dimension: 384}]
"""


def test_chat() -> None:
    workload = parse(CHAT, "w.yaml")
    assert (workload.name, workload.operation, workload.usual) == ("my.geography/3", "chat", 20)
    first, second = workload.make(0, 0), workload.make(0, 1)
    assert first.body == {
        "messages": [
            {"role": "system", "content": "Answer in one word."},
            {"role": "user", "content": "What is the capital of France?"},
        ],
        "temperature": 0,
        "max_tokens": 20,
    }
    assert first.checks == (c.Equals("Paris"), c.AtMost(3))
    assert not first.fresh
    assert second.body["max_tokens"] == 5
    assert second.body["messages"][-1] == {"role": "user", "content": "Two plus two?"}
    assert (second.body["tool_choice"], second.body["response_format"]) == ("auto", {"type": "json_object"})
    assert second.checks == (
        c.Number(4),
        c.Contains(("four", "4")),
        c.Lacks(("five",)),
        c.Matches(re.compile("^4")),
        c.AtMost(10, "max_characters"),
        c.Json({"type": "object"}),
        c.JsonFields({"n": 4}),
        c.Called("add", {"a": 2}),
    )
    assert workload.make(0, 2) == first
    assert workload.make(1, 0) == second


def test_embeddings() -> None:
    workload = parse(EMBEDDINGS, "w.yaml")
    first, second = workload.make(0, 0), workload.make(0, 1)
    assert first.body == {"input": ["a", "b", "c"], "encoding_format": "float"}
    assert first.checks == (c.Vectors(3, 384), c.Closer(0, 1, 2))
    assert second.checks == (c.Vectors(1, 384),)
    only_order = parse(EMBEDDINGS.replace("{dimension: 384}, {closer", "{closer"), "w.yaml")
    assert only_order.make(0, 0).checks == (c.Vectors(3), c.Closer(0, 1, 2))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("name: my.geography", "name: My Geography", "line 1, name: must be a-z"),
        ("name: my.geography", "name: tool_call", "line 1, name: 'tool_call' is a workload that is built in"),
        ("name: my.geography\n", "", "line 1, name: is missing"),
        ("version: 3", "version: 0", "line 2, version: must be a whole number, 1 or more"),
        ("version: 3", "version: 2026-01-01", "line 2, version: is no text, number"),
        ("version: 3", "version: 3\nversion: 4", "line 3, version: stands twice"),
        ("version: 3", "version: 3\noperation: speech", "line 3, operation: 'speech' is none of chat, embeddings"),
        ("max_tokens: 20", "max_token: 20", "line 4, max_token: is not known here; use name,"),
        ("equals: Paris", "equls: Paris", "line 8, requests[0].checks[0].equls: is no check; there are equals,"),
        ("equals: Paris", "equals:", "line 8, requests[0].checks[0].equals: must be a text"),
        ("max_words: 3", "max_words: -3", "line 9, requests[0].checks[1].max_words: must be a whole number"),
        ("max_words: 3", "max_words: true", "line 9, requests[0].checks[1].max_words: must be a whole number"),
        ("number: 4", "number: .nan", "requests[1].checks[0].number: must be a number, and finite"),
        ("number: 4", "number: .inf", "requests[1].checks[0].number: must be a number, and finite"),
        ('regex: "^4"', 'regex: "("', "requests[1].checks[3].regex: is no regular expression"),
        ("json: {type: object}", "json: {type: thing}", "requests[1].checks[5].json: the schema has the type 'thing'"),
        ("json_fields: {n: 4}", "json_fields: {}", "requests[1].checks[6].json_fields: must be keys"),
        ("tool: {name: add,", "tool: {nam: add,", "requests[1].checks[7].tool.nam: is not known here"),
        ("contains: [four", "contains: [4.5", "requests[1].checks[1].contains: must be a text, or a list of texts"),
        ("tools: [{", "tools: [1, {", "requests[1].tools: must be a list of objects"),
        ("  - prompt: What", "  - prompts: What", "line 6, requests[0].prompts: is not known here"),
        ("system: Answer", "1: Answer", "the key '1' is no text"),
        ("requests:", "requests: []\nsummary:", "line 5, requests: must be a list of one request or more"),
        ("  - prompt: What is the capital of France?", "  - {}\n  - prompt: x", "requests[0]: give one of prompt"),
        ("name: my", "name: [my", "line 2: is no YAML"),
        ("name: my.geography", "name: !!python/object:os.system {}", "line 1, name: cannot be read"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_field(old: str, new: str, why: str) -> None:
    assert old in CHAT
    with pytest.raises(WorkloadError) as error:
        parse(CHAT.replace(old, new, 1), "w.yaml")
    assert str(error.value).startswith("w.yaml")
    assert why in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("[0, 1, 2]", "[0, 1, 3]", "closer names an input that is not there"),
        ("[0, 1, 2]", "[0, 1]", "must be three inputs"),
        ("[0, 1, 2]", "[0, 1, 1]", "must be three inputs"),
        ("[a, b, c]", "[a, 1, c]", "line 5, requests[0].input: must be a text, or a list of texts"),
        ("dimension: 384", "dimension: 0", "must be a whole number, 1 or more"),
        ("dimension: 384", "equals: x", "is no check; there are dimension, closer"),
        ("version: 1", "version: 1\nsystem: x", "line 3, system: is for chat alone"),
    ],
)
def test_what_is_wrong_with_embeddings(old: str, new: str, why: str) -> None:
    with pytest.raises(WorkloadError) as error:
        parse(EMBEDDINGS.replace(old, new, 1), "w.yaml")
    assert why in str(error.value)


def test_a_request_without_a_check_is_none() -> None:
    for checks in ("[]", "3", "[equals]", "[{equals: a, number: 1}]"):
        with pytest.raises(WorkloadError, match=r"line \d+, requests\[0\].checks"):
            parse(f"name: a\nversion: 1\nrequests:\n  - prompt: x\n    checks: {checks}\n", "w")
    with pytest.raises(WorkloadError, match="a request without one can't fail"):
        parse("name: a\nversion: 1\nrequests:\n  - prompt: x\n", "w")


def test_empty_large_missing_and_binary(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="nothing in it"):
        parse("", "w")
    file = tmp_path / "w.yaml"
    with pytest.raises(WorkloadError, match="cannot read"):
        files.load(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(WorkloadError, match="UTF-8"):
        files.load(file)
    file.write_bytes(b"#" * (4 << 20) + b"#")
    with pytest.raises(WorkloadError, match="larger"):
        files.load(file)
    file.write_text(CHAT)
    assert files.load(file).name == "my.geography/3"


def test_what_would_fill_memory_is_refused() -> None:
    laughs = "a: &a [1,1,1,1,1,1,1,1,1]\n"
    for one, other in zip("abcdefgh", "bcdefghi", strict=True):
        laughs += f"{other}: &{other} [*{one},*{one},*{one},*{one},*{one},*{one},*{one},*{one},*{one}]\n"
    with pytest.raises(WorkloadError, match="one value too many"):
        parse(laughs, "w")
    with pytest.raises(WorkloadError, match="too deeply"):
        parse("a: &a [*a]", "w")
    with pytest.raises(WorkloadError):
        parse("[" * 5000, "w")


@given(st.text(alphabet="ab:-[]{}&*!|>'\" \n#,0.%@\t?", max_size=60))
def test_no_text_breaks_it(text: str) -> None:
    with suppress(WorkloadError):
        assert isinstance(parse(text, "w"), Workload)


def test_the_example_of_the_docs() -> None:
    text = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text()
    example = textwrap.dedent(text[text.index("    name: support.returns") : text.index("Requests are asked in turn")])
    workload = parse(example, "docs")
    assert workload.name == "support.returns/1"
    assert [len(workload.make(0, number).checks) for number in range(2)] == [2, 1]


def test_every_check_stands_in_the_docs() -> None:
    text = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text()
    assert all(f"`{name}: " in text for name in (*files._CHAT_CHECKS, "dimension", "closer"))
    assert all(f"`{name.rpartition('/')[0]}` |" in text for name in builtin.BUILTIN)
