"""JSON schemas as workloads use them."""

from typing import Any

import pytest

from geniehive.bench import schema
from geniehive.bench.builtin import _ORDER

GOOD = {"customer": "Ana", "article": "lamp", "quantity": 2, "urgent": False, "delivery": "parcel"}


def test_what_fits() -> None:
    schema.check(_ORDER)
    assert schema.misfit(_ORDER, GOOD) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"quantity": 0}, "$.quantity is less than 1"),
        ({"quantity": 1.5}, "$.quantity is no integer"),
        ({"quantity": True}, "$.quantity is no integer"),
        ({"urgent": "no"}, "$.urgent is no boolean"),
        ({"delivery": "ship"}, "$.delivery is none of the allowed values"),
        ({"note": "x"}, "$.note is not allowed"),
        ({"customer": None}, "$.customer is no string"),
    ],
)
def test_what_does_not_fit(change: dict[str, Any], why: str) -> None:
    assert schema.misfit(_ORDER, {**GOOD, **change}) == why


def test_what_is_missing() -> None:
    assert schema.misfit(_ORDER, {k: v for k, v in GOOD.items() if k != "article"}) == "$ lacks 'article'"
    assert schema.misfit(_ORDER, [GOOD]) == "$ is no object"


def test_lists_and_lengths_and_constants() -> None:
    listed = {
        "type": "array",
        "items": {"type": ["string", "null"], "maxLength": 2},
        "minItems": 1,
        "maxItems": 3,
    }
    schema.check(listed)
    assert schema.misfit(listed, ["a", None]) is None
    assert schema.misfit(listed, []) == "$, its length, is less than 1"
    assert schema.misfit(listed, ["a"] * 4) == "$, its length, is more than 3"
    assert schema.misfit(listed, ["a", "bcd"]) == "$[1], its length, is more than 2"
    assert schema.misfit(listed, [1]) == "$[0] is no string or null"
    assert schema.misfit({"const": {"a": [1]}}, {"a": [1.0]}) is None
    assert schema.misfit({"const": 1}, True) == "$ is not the wanted value"
    others = {"properties": {"a": {}}, "additionalProperties": {"type": "number"}}
    schema.check(others)
    assert schema.misfit(others, {"a": "x", "b": 2}) is None
    assert schema.misfit(others, {"b": "x"}) == "$.b is no number"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ([], "must be an object"),
        ({"pattern": "x"}, "'pattern', which is not known"),
        ({"type": "text"}, "the type 'text'"),
        ({"type": 1}, "neither text nor a list"),
        ({"type": [["string"]]}, "the type"),
        ({"minimum": "1"}, "minimum that is no number"),
        ({"enum": "a"}, "enum that is no list"),
        ({"properties": []}, "properties that are no object"),
        ({"properties": {"a": {"items": 1}}}, "property 'a', items must be an object"),
        ({"additionalProperties": {"type": "x"}}, "additionalProperties has the type"),
    ],
)
def test_a_schema_that_cannot_be_checked_is_refused(wrong: Any, why: str) -> None:
    with pytest.raises(ValueError) as error:
        schema.check(wrong)
    assert why in str(error.value)
