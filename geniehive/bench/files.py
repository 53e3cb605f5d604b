"""Workloads in YAML, as docs/benchmarks.md has them. Everything that is wrong is an error with its line and field."""

import copy
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from geniehive.bench import builtin, schema
from geniehive.bench import checks as c
from geniehive.bench.workload import PATHS, Request, Workload

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_MOST_BYTES = 4 << 20
_MOST_DEEP = 40
_MOST_VALUES = 20_000
_MAPPING, _SEQUENCE = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"
_TOP = ("name", "version", "operation", "summary", "system", "max_tokens", "temperature", "requests")
_REQUEST = ("prompt", "messages", "input", "tools", "tool_choice", "response_format", "max_tokens", "checks")

# Of a value: keys and numbers from the top.
_Path = tuple[str | int, ...]


class WorkloadError(ValueError):
    """The file can't be used; the text names file, line and field."""


class _Wrong(Exception):
    """At this value."""

    def __init__(self, path: _Path, text: str) -> None:
        super().__init__(text)
        self.path = path


def load(file: Path) -> Workload:
    """WorkloadError."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise WorkloadError(f"cannot read {file}: {error.strerror or error}") from error
    if len(content) > _MOST_BYTES:
        raise WorkloadError(f"{file} is larger than {_MOST_BYTES >> 20} MiB")
    try:
        return parse(content.decode("utf-8"), str(file))
    except UnicodeDecodeError as error:
        raise WorkloadError(f"{file} is no text in UTF-8") from error


def parse(text: str, source: str) -> Workload:
    """source: its name, for errors. WorkloadError."""
    reader = _Reader()
    try:
        return _workload(reader.read(yaml.compose(text, Loader=yaml.SafeLoader)))
    except _Wrong as error:
        path = error.path
        while path and path not in reader.lines:
            path = path[:-1]
        field = _words(error.path)
        where = f"line {reader.lines.get(path, 1)}" + (f", {field}" if field else "")
        raise WorkloadError(f"{source}, {where}: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise WorkloadError(f"{source}{where}: is no YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise WorkloadError(f"{source} is no YAML: {str(error)[:200]}") from None


def _words(path: _Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


class _Reader:
    """Plain values from YAML's nodes, and the line of each."""

    def __init__(self) -> None:
        self.lines: dict[_Path, int] = {}
        self._scalars = yaml.constructor.SafeConstructor()

    def read(self, node: yaml.Node | None, path: _Path = ()) -> Any:
        if node is None:
            raise _Wrong((), "there is nothing in it")
        self.lines[path] = node.start_mark.line + 1
        # Some lines of aliases can stand for more than there is memory.
        if len(path) > _MOST_DEEP or len(self.lines) > _MOST_VALUES:
            raise _Wrong(path, "is nested too deeply, or one value too many")
        if isinstance(node, yaml.MappingNode) and node.tag == _MAPPING:
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQUENCE:
            return [self.read(item, (*path, number)) for number, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: _Path) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in node.value:
            name = self._scalar(key, path)
            if not isinstance(name, str):
                raise _Wrong(path, f"the key {str(name)[:40]!r} is no text; write it in quotes")
            here = (*path, name)
            if name in made:
                self.lines[here] = key.start_mark.line + 1
                raise _Wrong(here, "stands twice")
            made[name] = self.read(value, here)
            self.lines[here] = key.start_mark.line + 1
        return made

    def _scalar(self, node: yaml.Node, path: _Path) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise _Wrong(path, "cannot be read")
        try:
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise _Wrong(path, "cannot be read") from error
        # Dates and the like, which JSON does not have.
        if value is not None and not isinstance(value, str | int | float | bool):
            raise _Wrong(path, "is no text, number, true or false; write text in quotes")
        return value


def _workload(tree: Any) -> Workload:
    fields = _mapping(tree, (), _TOP)
    name = _text(fields, "name", ())
    if not _NAME.match(name):
        raise _Wrong(("name",), "must be a-z, 0-9, '.', '_' and '-', at most 63 of them")
    if builtin.find(name) is not None:
        raise _Wrong(("name",), f"{name!r} is a workload that is built in; choose another name")
    version = _whole(fields, "version", (), 1, 999_999)
    operation = _text(fields, "operation", (), "chat")
    if operation not in PATHS:
        raise _Wrong(("operation",), f"{operation[:40]!r} is none of {', '.join(PATHS)}")
    listed = fields.get("requests")
    if not isinstance(listed, list) or not listed:
        raise _Wrong(("requests",), "must be a list of one request or more")
    common: dict[str, Any] = {}
    if operation == "chat":
        common["temperature"] = _number(fields, "temperature", (), 0)
        common["max_tokens"] = _whole(fields, "max_tokens", (), 1, 1_000_000, 512)
    else:
        for word in ("system", "max_tokens", "temperature"):
            if word in fields:
                raise _Wrong((word,), "is for chat alone")
    system = _text(fields, "system", (), "")
    read = _chat if operation == "chat" else _embedding
    requests = [read(item, ("requests", number), common, system) for number, item in enumerate(listed)]
    return Workload(
        f"{name}/{version}",
        operation,
        _text(fields, "summary", (), ""),
        lambda seed, number: requests[(seed + number) % len(requests)],
        usual=max(20, len(requests)),
    )


def _chat(tree: Any, path: _Path, common: Mapping[str, Any], system: str) -> Request:
    fields = _mapping(tree, path, tuple(word for word in _REQUEST if word != "input"))
    if ("prompt" in fields) == ("messages" in fields):
        raise _Wrong(path, "give one of prompt and messages")
    messages: list[Any] = [{"role": "system", "content": system}] if system else []
    if "prompt" in fields:
        messages.append({"role": "user", "content": _text(fields, "prompt", path)})
    else:
        messages += _objects(fields, "messages", path)
    body: dict[str, Any] = {"messages": messages, **common}
    if "max_tokens" in fields:
        body["max_tokens"] = _whole(fields, "max_tokens", path, 1, 1_000_000)
    if "tools" in fields:
        body["tools"] = _objects(fields, "tools", path)
    for word in ("tool_choice", "response_format"):
        if word in fields:
            body[word] = fields[word]
    return Request(body, _checks(fields, path, _CHAT_CHECKS))


def _embedding(tree: Any, path: _Path, common: Mapping[str, Any], system: str) -> Request:
    fields = _mapping(tree, path, ("input", "checks"))
    inputs = fields.get("input")
    inputs = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(inputs, list) or not inputs or not all(isinstance(one, str) and one for one in inputs):
        raise _Wrong((*path, "input"), "must be a text, or a list of texts")
    count = len(inputs)
    made = _checks(fields, path, {"dimension": lambda v, p: c.Vectors(count, _at_least(v, p, 1)), "closer": _closer})
    if not any(isinstance(check, c.Vectors) for check in made):
        made = (c.Vectors(count), *made)
    for check in made:
        if isinstance(check, c.Closer) and max(check.first, check.near, check.far) >= count:
            raise _Wrong((*path, "checks"), f"closer names an input that is not there; there are {count}, from 0")
    return Request({"input": inputs, "encoding_format": "float"}, made)


_ReadCheck = Callable[[Any, _Path], c.Check]


def _checks(fields: Mapping[str, Any], path: _Path, known: Mapping[str, _ReadCheck]) -> tuple[c.Check, ...]:
    listed = fields.get("checks")
    path = (*path, "checks")
    if not isinstance(listed, list) or not listed:
        raise _Wrong(path, "must be a list of one check or more: a request without one can't fail")
    made = []
    for number, item in enumerate(listed):
        here = (*path, number)
        if not isinstance(item, dict) or len(item) != 1:
            raise _Wrong(here, f"must be one check, such as `{next(iter(known))}: ...`")
        ((word, value),) = item.items()
        if word not in known:
            raise _Wrong((*here, word), f"is no check; there are {', '.join(known)}")
        made.append(known[word](value, (*here, word)))
    return tuple(made)


def _equals(value: Any, path: _Path) -> c.Check:
    if not isinstance(value, str) or not value:
        raise _Wrong(path, "must be a text")
    return c.Equals(value)


def _is_number(value: Any, path: _Path) -> c.Check:
    return c.Number(_finite(value, path))


def _contains(value: Any, path: _Path) -> c.Check:
    return c.Contains(_texts(value, path))


def _lacks(value: Any, path: _Path) -> c.Check:
    return c.Lacks(_texts(value, path))


def _regex(value: Any, path: _Path) -> c.Check:
    if not isinstance(value, str) or not value:
        raise _Wrong(path, "must be a text")
    try:
        return c.Matches(re.compile(value))
    except re.error as error:
        raise _Wrong(path, f"is no regular expression: {error}") from error


def _max_words(value: Any, path: _Path) -> c.Check:
    return c.AtMost(_at_least(value, path, 1), "max_words")


def _max_characters(value: Any, path: _Path) -> c.Check:
    return c.AtMost(_at_least(value, path, 1), "max_characters")


def _json(value: Any, path: _Path) -> c.Check:
    try:
        schema.check(value)
    except ValueError as error:
        raise _Wrong(path, str(error)) from error
    return c.Json(copy.deepcopy(value))


def _json_fields(value: Any, path: _Path) -> c.Check:
    if not isinstance(value, dict) or not value:
        raise _Wrong(path, "must be keys with the values that the answer must have")
    return c.JsonFields(value)


def _tool(value: Any, path: _Path) -> c.Check:
    fields = _mapping(value, path, ("name", "arguments"))
    arguments = fields.get("arguments", {})
    if not isinstance(arguments, dict):
        raise _Wrong((*path, "arguments"), "must be keys with values")
    return c.Called(_text(fields, "name", path), arguments)


def _closer(value: Any, path: _Path) -> c.Check:
    if not isinstance(value, list) or len(value) != 3 or len(set(map(str, value))) != 3:
        raise _Wrong(path, "must be three inputs by number, from 0, of which the first is nearer to the second")
    first, near, far = (_at_least(one, path, 0) for one in value)
    return c.Closer(first, near, far)


_CHAT_CHECKS: Mapping[str, _ReadCheck] = {
    "equals": _equals,
    "number": _is_number,
    "contains": _contains,
    "lacks": _lacks,
    "regex": _regex,
    "max_words": _max_words,
    "max_characters": _max_characters,
    "json": _json,
    "json_fields": _json_fields,
    "tool": _tool,
}


def _mapping(value: Any, path: _Path, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong(path, f"must be keys with values: {', '.join(known)}")
    for name in value:
        if name not in known:
            raise _Wrong((*path, name), f"is not known here; use {', '.join(known)}")
    return value


def _text(fields: Mapping[str, Any], name: str, path: _Path, otherwise: str | None = None) -> str:
    value = fields.get(name, otherwise)
    if not isinstance(value, str) or (not value and otherwise is None):
        raise _Wrong((*path, name), "must be a text" if name in fields else "is missing")
    return value


def _texts(value: Any, path: _Path) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not listed or not all(isinstance(one, str) and one for one in listed):
        raise _Wrong(path, "must be a text, or a list of texts")
    return tuple(listed)


def _objects(fields: Mapping[str, Any], name: str, path: _Path) -> list[Any]:
    value = fields[name]
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        raise _Wrong((*path, name), "must be a list of objects, as OpenAI's API has them")
    return value


def _whole(
    fields: Mapping[str, Any], name: str, path: _Path, least: int, most: int, otherwise: int | None = None
) -> int:
    if name not in fields and otherwise is None:
        raise _Wrong((*path, name), "is missing")
    value = _at_least(fields.get(name, otherwise), (*path, name), least)
    if value > most:
        raise _Wrong((*path, name), f"must be at most {most}")
    return value


def _at_least(value: Any, path: _Path, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _Wrong(path, f"must be a whole number, {least} or more")
    return value


def _number(fields: Mapping[str, Any], name: str, path: _Path, otherwise: float) -> float:
    value = _finite(fields.get(name, otherwise), (*path, name))
    if value < 0:
        raise _Wrong((*path, name), "must not be negative")
    return value


def _finite(value: Any, path: _Path) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e300:
        raise _Wrong(path, "must be a number, and finite")
    return value
