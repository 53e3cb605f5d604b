"""YAML, environment and flags into validated settings.

Settings are frozen `Settings` structs, nested where YAML nests; each daemon has one such tree in its `settings`
module. Three sources, later ones winning: the YAML file; environment variables `PREFIX__KEY__SUBKEY`; flags
`--set key.subkey=VALUE`, or `key+=[VALUE]` to add to a list that an earlier source gave. Values of the last two are
read as YAML, so that numbers, lists and objects can be given. Every unknown key and every wrong type is an error that
names the source, the key and what is allowed.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec
import yaml

from geniehive.kit.errors import UserError


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all settings."""


class ConfigError(UserError):
    """Settings that can't be used. The text names source, key and what is allowed.

    key: such as "engines[0].url"; empty if it is not about one.
    """

    def __init__(self, text: str, key: str = "") -> None:
        super().__init__(text)
        self.key = key


S = TypeVar("S", bound=Settings)


def load(
    cls: type[S],
    *,
    prefix: str,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
) -> S:
    """Settings of type `cls`. ConfigError says what is wrong and where.

    prefix: of the environment variables, such as "GENIEHIVE_CONTROL".
    overrides: "key.subkey=VALUE" or "key+=[VALUE]", as `--set` takes them.
    """
    merged: dict[str, Any] = {}
    if file is not None:
        tree = _read(file)
        _check(cls, tree, str(file))
        merged = tree
    for source, path, text in [
        *_from_environment(prefix, environment or {}, cls.__struct_fields__),
        *_from_flags(overrides),
    ]:
        value = _parse(text, source)
        adds = path[-1].endswith("+")
        if adds:
            path = [*path[:-1], path[-1][:-1]]
            if not isinstance(value, list):
                raise ConfigError(f"{source}: += adds to a list, so expected a list, such as [VALUE]")
        _check(cls, _nested(path, value), source)
        if adds:
            value = [*_held_list(merged, path), *value]
        _merge(merged, _nested(path, value))
    return _convert(cls, merged, "the settings together")


def checked(cls: type[S], tree: Any, source: str) -> S:
    """What has been read already. ConfigError for unknown keys and wrong types."""
    _known_keys(cls, tree, source, "")
    return _convert(cls, tree, source)


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {file}: {error}") from error
    tree = _parse(text, str(file))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: expected keys with values, got a {type(tree).__name__}")
    return tree


def _from_environment(
    prefix: str, environment: Mapping[str, str], keys: Sequence[str]
) -> list[tuple[str, list[str], str]]:
    start = prefix + "__"
    for name in environment:
        rest = name.removeprefix(prefix + "_")
        if rest != name and any(rest.lower() == key or rest.lower().startswith(key + "_") for key in keys):
            raise ConfigError(f"environment variable {name}: two underscores stand before a key; write {start}{rest}")
    return [
        (f"environment variable {name}", name[len(start) :].lower().split("__"), value)
        for name, value in sorted(environment.items())
        if name.startswith(start)
    ]


def _from_flags(overrides: Sequence[str]) -> list[tuple[str, list[str], str]]:
    found = []
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {override}: expected KEY=VALUE, such as --set listen=127.0.0.1:8800")
        # Without the value: it may hold a key.
        found.append((f"--set {path}", path.split("."), text))
    return found


def _nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    made: dict[str, Any] = value
    return made


def _held_list(merged: Mapping[str, Any], path: Sequence[str]) -> list[Any]:
    held: Any = merged
    for key in path:
        held = held.get(key) if isinstance(held, dict) else None
    return held if isinstance(held, list) else []


def _merge(into: dict[str, Any], piece: Mapping[str, Any]) -> None:
    for key, value in piece.items():
        held = into.get(key)
        if isinstance(value, dict) and isinstance(held, dict):
            _merge(held, value)
        else:
            into[key] = value


def _check(cls: type[Settings], tree: Any, source: str) -> None:
    """Checks one source by itself, so that the error can name it."""
    _known_keys(cls, tree, source, "")
    try:
        _convert(cls, tree, source)
    except ConfigError as error:
        # A required key may still come from another source.
        if "missing required field" not in str(error):
            raise


def _known_keys(kind: Any, tree: Any, source: str, path: str) -> None:
    struct = _struct_in(kind)
    if struct is not None and isinstance(tree, dict):
        fields = {f.encode_name: f.type for f in msgspec.structs.fields(struct)}
        for key, value in tree.items():
            here = f"{path}.{key}" if path else str(key)
            if key not in fields:
                where = f"in {path}" if path else "at the top"
                text = f"{source}: unknown key {here!r}; allowed {where}: {', '.join(sorted(fields))}"
                raise ConfigError(text, key=here)
            _known_keys(fields[key], value, source, here)
    elif isinstance(tree, list):
        for inner in get_args(kind):
            for index, value in enumerate(tree):
                _known_keys(inner, value, source, f"{path}[{index}]")


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    for candidate in (kind, *get_args(kind)):
        if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
            return candidate
    return None


def _convert(cls: type[S], tree: Any, source: str) -> S:
    try:
        return msgspec.convert(tree, cls)
    except msgspec.ValidationError as error:
        text, _, at = str(error).replace(" - at `key` in `$", " as a key - at `$").partition(" - at `$")
        key = at.rstrip("`").lstrip(".")
        text = re.sub(r"`([a-z]+(?: \| [a-z]+)*)`", _in_words, text[0].lower() + text[1:])
        raise ConfigError(f"{source}: {key + ': ' if key else ''}{text}{_allowed(cls, key)}", key=key) from error


# What YAML's kinds are called by people, not by Python.
_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "keys with values",
}


def _in_words(types: re.Match[str]) -> str:
    """ "`float | null`" -> "a number or null"; anything else as it is."""
    parts = types[1].split(" | ")
    known = [_WORDS.get(part, part if part == "null" else "") for part in parts]
    return " or ".join(known) if all(known) else types[0]


def _allowed(kind: Any, key: str) -> str:
    """What may stand at `key`, such as "log.level" or "engines[0].runtime", if it is a choice among words."""
    for name in [part.partition("[")[0] for part in key.split(".") if part]:
        struct = next((s for s in _inner(kind) if isinstance(s, type) and issubclass(s, msgspec.Struct)), None)
        if struct is None:
            return ""
        kind = next((f.type for f in msgspec.structs.fields(struct) if f.encode_name == name), None)
    words = [str(word) for choice in _inner(kind) if get_origin(choice) is Literal for word in get_args(choice)]
    return f"; allowed: {', '.join(words)}" if words else ""


def _inner(kind: Any) -> list[Any]:
    """A type and, if it is a union or a list, what is in it."""
    found = [kind]
    if get_origin(kind) is not Literal:
        for part in get_args(kind):
            found += _inner(part)
    return found


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        # Not as the error itself has it: that quotes the text, which may hold a secret.
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigError(f"{source} is not valid YAML: {error.problem or error.context}{where}") from None
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError):
        # Dates that are none, tags that do not fit: the parser lets through what its parts raise.
        raise ConfigError(f"{source} is not valid YAML: a value in it cannot be read") from None
