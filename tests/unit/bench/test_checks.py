"""Checks of answers: what each lets through, and what each says of the others."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.bench import checks as c
from geniehive.bench.checks import Answer, ToolCall


def said(text: str, finish: str = "stop") -> Answer:
    return Answer(text, finish=finish)


def called(*calls: tuple[str, str]) -> Answer:
    return Answer(tool_calls=tuple(ToolCall(*call) for call in calls))


ORDER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TIMER = c.Called("set_timer", {"minutes": 5})
RIGHT: list[tuple[Any, Answer]] = [
    (c.Equals("Paris"), said(" paris.\n")),
    (c.Number(42), said("6 * 7 is\nANSWER: 42")),
    (c.Number(1234.5), said("that makes 1,234.50")),
    (c.Number(-3), said("it is -3.")),
    (c.Contains(("A123", "days")), said("a123 takes 3 Days")),
    (c.Lacks(("as an AI",)), said("Sure.")),
    (c.Matches(re.compile("^b", re.MULTILINE)), said("a\nb")),
    (c.AtMost(3), said("one two three")),
    (c.AtMost(5, "max_characters"), said("12345")),
    (c.Json(ORDER), said('{"n": 1}')),
    (c.Json(ORDER), said('```json\n{"n": 1}\n```')),
    (c.JsonFields({"n": 1, "who": "Ana"}), said('{"n": 1.0, "who": " ana ", "more": 2}')),
    (TIMER, called(("set_timer", '{"minutes": 5, "label": "x"}'))),
    (c.Called("now", {}), called(("now", ""))),
    (c.Vectors(2, 2), Answer(vectors=((1.0, 0.0), (0.0, 1.0)))),
    (c.Closer(0, 2, 1), Answer(vectors=((1.0, 0.0), (0.0, 1.0), (0.9, 0.1)))),
]
WRONG: list[tuple[Any, Answer, str]] = [
    (c.Equals("Paris"), said("It is Paris"), "not 'Paris'"),
    (c.Number(42), said("ANSWER: 41"), "the last number is 41; 42 was wanted"),
    (c.Number(42), said("42 minus nothing is 0"), "last number is 0"),
    (c.Number(42), said("no idea"), "no number"),
    (c.Contains(("A123", "days")), said("a123"), "'days'"),
    (c.Lacks(("as an AI",)), said("As an AI I"), "'as an AI'"),
    (c.Lacks(("x",)), said(""), "empty"),
    (c.Matches(re.compile("^b")), said("ab"), "'^b'"),
    (c.AtMost(3), said("one two three four"), "4 words; 3"),
    (c.AtMost(3), said(""), "empty"),
    (c.AtMost(3), said("one", "length"), "cut off"),
    (c.AtMost(5, "max_characters"), said("123456"), "6 characters"),
    (c.Json(ORDER), said("{"), "no JSON"),
    (c.Json(ORDER), said("Sure! {}"), "no JSON"),
    (c.Json(ORDER), said('{"n": "1"}'), "$.n is no integer"),
    (c.Json(ORDER), said("[" * 100_000), "no JSON"),
    (c.JsonFields({"n": 1}), said("[1]"), "no JSON object"),
    (c.JsonFields({"n": 1}), said("{}"), "lacks 'n'"),
    (c.JsonFields({"n": True}), said('{"n": 1}'), "another 'n'"),
    (TIMER, said("the timer is set"), "no tool was called"),
    (TIMER, called(("set_alarm", "{}")), "'set_alarm' was called"),
    (TIMER, called(("set_timer", '{"minutes": 6}')), "another 'minutes' than '5'"),
    (TIMER, called(("set_timer", "{}")), "lacks 'minutes'"),
    (TIMER, called(("set_timer", "five")), "no JSON object"),
    (TIMER, called(("set_timer", '{"minutes": 5}'), ("set_timer", "{}")), "2 tools"),
    (c.Vectors(2), Answer(vectors=((1.0,),)), "1 vectors came"),
    (c.Vectors(2), Answer(vectors=((1.0,), (1.0, 2.0))), "differ"),
    (c.Vectors(1, 3), Answer(vectors=((1.0,),)), "3 were wanted"),
    (c.Vectors(1), Answer(vectors=((float("nan"),),)), "not finite"),
    (c.Vectors(1), Answer(vectors=((0.0, 0.0),)), "zero"),
    (c.Closer(0, 1, 2), Answer(vectors=((1.0, 0.0), (0.0, 1.0), (0.9, 0.1))), "no nearer"),
    (c.Closer(0, 1, 2), Answer(vectors=((0.0, 0.0), (0.0, 1.0), (0.9, 0.1))), "no nearer"),
    (c.Closer(0, 1, 2), Answer(vectors=((1.0, 0.0),)), "too few"),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT, ids=lambda value: getattr(value, "name", ""))
def test_what_is_right_passes(check: Any, answer: Answer) -> None:
    assert check(answer) is None


@pytest.mark.parametrize(("check", "answer", "why"), WRONG, ids=lambda value: getattr(value, "name", ""))
def test_what_is_wrong_fails_and_says_why(check: Any, answer: Answer, why: str) -> None:
    assert why in check(answer)


def test_every_check_can_fail() -> None:
    failing = {type(check) for check, _, _ in WRONG}
    assert failing == {type(check) for check, _ in RIGHT}
    assert failing == {c.Equals, c.Number, c.Contains, c.Lacks, c.Matches, c.AtMost, c.Json, c.JsonFields, c.Called,
                       c.Vectors, c.Closer}  # fmt: skip


def test_thoughts_are_no_answer() -> None:
    assert c.spoken("<think>is it 41?</think>\n\n42") == "42"
    assert c.spoken("<think>no end, so no answer") == ""
    assert c.spoken("plain ") == "plain"


@given(st.text(), st.sampled_from([check for check, _ in RIGHT]))
def test_no_answer_breaks_a_check(text: str, check: Any) -> None:
    for answer in (said(text), called((text, text)), Answer(vectors=((1e308, 1e308), (-1e308, 1e308)))):
        found = check(answer)
        assert found is None or (isinstance(found, str) and len(found) < 500)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=8))
def test_json_of_any_kind_is_read_back(value: Any) -> None:
    assert c.Json({})(said(json.dumps(value))) is None
    assert c.JsonFields({"x": value})(said(json.dumps({"x": value}))) is None
