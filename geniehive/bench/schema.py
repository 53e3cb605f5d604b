"""Whether a value fits a JSON schema, by the words that workloads use.

A schema with a word that is not known here is refused, and not passed over: a check that can't fail is none.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}
_NUMBERS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")
_WORDS = frozenset(
    {"type", "enum", "const", "properties", "required", "additionalProperties", "items", *_NUMBERS}
    # These say nothing that could be wrong.
    | {"title", "description", "$schema", "default"}
)


def check(schema: Any) -> None:
    """ValueError, in words, if it is no schema that can be checked here."""
    _check(schema, "the schema")


def _check(schema: Any, where: str) -> None:
    if not isinstance(schema, dict):
        raise ValueError(f"{where} must be an object")
    for word in schema.keys() - _WORDS:
        raise ValueError(f"{where} has {str(word)[:40]!r}, which is not known; use {', '.join(sorted(_WORDS))}")
    for name in _types(schema, where):
        if not isinstance(name, str) or name not in _TYPES:
            raise ValueError(f"{where} has the type {str(name)[:40]!r}; use {', '.join(_TYPES)}")
    for word in _NUMBERS:
        if word in schema and not _TYPES["number"](schema[word]):
            raise ValueError(f"{where} has a {word} that is no number")
    for word in ("enum", "required"):
        if not isinstance(schema.get(word, []), list):
            raise ValueError(f"{where} has a {word} that is no list")
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        raise ValueError(f"{where} has properties that are no object")
    for name, inner in properties.items():
        _check(inner, f"{where}, property {str(name)[:40]!r}")
    if "items" in schema:
        _check(schema["items"], f"{where}, items")
    if not isinstance(more := schema.get("additionalProperties", True), bool):
        _check(more, f"{where}, additionalProperties")


def _types(schema: Mapping[str, Any], where: str = "") -> list[Any]:
    found = schema.get("type", [])
    if not isinstance(found, str | list):
        raise ValueError(f"{where} has a type that is neither text nor a list")
    return [found] if isinstance(found, str) else found


def misfit(schema: Mapping[str, Any], value: Any, where: str = "$") -> str | None:
    """What is wrong with the value, first; None: it fits. schema: one that `check` let through."""
    return next(_misfits(schema, value, where), None)


def _misfits(schema: Mapping[str, Any], value: Any, where: str) -> Iterator[str]:
    types = _types(schema)
    if types and not any(_TYPES[name](value) for name in types):
        yield f"{where} is no {' or '.join(types)}"
        return
    if "enum" in schema and not any(same(value, allowed) for allowed in schema["enum"]):
        yield f"{where} is none of the allowed values"
    if "const" in schema and not same(value, schema["const"]):
        yield f"{where} is not the wanted value"
    if _TYPES["number"](value):
        yield from _bounds(schema, value, "minimum", "maximum", where)
    elif isinstance(value, str):
        yield from _bounds(schema, len(value), "minLength", "maxLength", f"{where}, its length,")
    elif isinstance(value, list):
        yield from _bounds(schema, len(value), "minItems", "maxItems", f"{where}, its length,")
        if "items" in schema:
            for number, item in enumerate(value):
                yield from _misfits(schema["items"], item, f"{where}[{number}]")
    elif isinstance(value, dict):
        yield from _object(schema, value, where)


def _object(schema: Mapping[str, Any], value: Mapping[str, Any], where: str) -> Iterator[str]:
    for name in schema.get("required", []):
        if name not in value:
            yield f"{where} lacks {name!r}"
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for name, inner in value.items():
        # What a model wrote is not quoted at any length.
        here = f"{where}.{name[:40]}"
        if name in properties:
            yield from _misfits(properties[name], inner, here)
        elif others is False:
            yield f"{here} is not allowed"
        elif isinstance(others, dict):
            yield from _misfits(others, inner, here)


def _bounds(schema: Mapping[str, Any], number: float, low: str, high: str, where: str) -> Iterator[str]:
    if low in schema and number < schema[low]:
        yield f"{where} is less than {schema[low]}"
    if high in schema and number > schema[high]:
        yield f"{where} is more than {schema[high]}"


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
