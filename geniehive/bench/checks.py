"""Whether an answer is right. Each check can fail, and then says why, without what was asked."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from geniehive.bench import schema as schemas

_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_FENCE = re.compile(r"\A```[a-z]*\s*\n(.*?)\n?```\s*\Z", re.DOTALL)
_LONGEST = 80


@dataclass(frozen=True)
class ToolCall:
    """arguments: as the model wrote them, JSON or not."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Answer:
    """What a model gave. text: without what it thought before. vectors: of an embedding, in order."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    vectors: tuple[tuple[float, ...], ...] = ()
    # Why it ended: "stop", "length", "tool_calls"; "" if nobody said.
    finish: str = ""


def spoken(text: str) -> str:
    """An answer without the thoughts that some models write into it."""
    return _THOUGHTS.sub("", text).strip()


class Check(Protocol):
    @property
    def name(self) -> str:
        """As it stands in files and reports."""

    def __call__(self, answer: Answer) -> str | None:
        """Why it failed; None: it passed."""


@dataclass(frozen=True)
class Equals:
    """The answer is this text, but for case, white space and a full stop."""

    text: str
    name: str = field(default="equals", init=False)

    def __call__(self, answer: Answer) -> str | None:
        return None if _plain(answer.text) == _plain(self.text) else f"the answer is not {_shown(self.text)}"


@dataclass(frozen=True)
class Number:
    """The last number of the answer is this one."""

    value: float
    name: str = field(default="number", init=False)

    def __call__(self, answer: Answer) -> str | None:
        found = _NUMBER.findall(answer.text)
        if not found:
            return f"there is no number in the answer; {self.value:g} was wanted"
        try:
            given = float(found[-1].replace(",", ""))
        except ValueError:
            given = math.nan
        if math.isclose(given, self.value, rel_tol=1e-9, abs_tol=1e-9):
            return None
        return f"the last number is {found[-1][:_LONGEST]}; {self.value:g} was wanted"


@dataclass(frozen=True)
class Contains:
    """Each of these texts stands in the answer, whatever their case."""

    texts: tuple[str, ...]
    name: str = field(default="contains", init=False)

    def __call__(self, answer: Answer) -> str | None:
        said = answer.text.casefold()
        missing = next((text for text in self.texts if text.casefold() not in said), None)
        return None if missing is None else f"{_shown(missing)} is not in the answer"


@dataclass(frozen=True)
class Lacks:
    """None of these texts stands in the answer, and there is one."""

    texts: tuple[str, ...]
    name: str = field(default="lacks", init=False)

    def __call__(self, answer: Answer) -> str | None:
        if not answer.text:
            return "the answer is empty"
        said = answer.text.casefold()
        present = next((text for text in self.texts if text.casefold() in said), None)
        return None if present is None else f"{_shown(present)} is in the answer"


@dataclass(frozen=True)
class Matches:
    """The regular expression matches somewhere in the answer."""

    pattern: re.Pattern[str]
    name: str = field(default="regex", init=False)

    def __call__(self, answer: Answer) -> str | None:
        found = self.pattern.search(answer.text)
        return f"nothing in the answer matches {_shown(self.pattern.pattern)}" if found is None else None


@dataclass(frozen=True)
class AtMost:
    """The answer came to its end, and has so many words or characters, and one at least."""

    limit: int
    name: str = "max_words"

    def __call__(self, answer: Answer) -> str | None:
        if answer.finish == "length":
            return "the answer was cut off at its limit of tokens"
        length, what = len(answer.text), "characters"
        if self.name == "max_words":
            length, what = len(answer.text.split()), "words"
        if length == 0:
            return "the answer is empty"
        return f"the answer has {length} {what}; {self.limit} were allowed" if length > self.limit else None


@dataclass(frozen=True)
class Json:
    """The answer is JSON that fits the schema. It may stand in a fence of Markdown."""

    schema: dict[str, Any]
    name: str = field(default="json", init=False)

    def __call__(self, answer: Answer) -> str | None:
        value = _json(answer.text)
        return "the answer is no JSON" if value is _NO_JSON else schemas.misfit(self.schema, value)


@dataclass(frozen=True)
class JsonFields:
    """The answer is a JSON object that has these values."""

    values: dict[str, Any]
    name: str = field(default="json_fields", init=False)

    def __call__(self, answer: Answer) -> str | None:
        value = _json(answer.text)
        if not isinstance(value, dict):
            return "the answer is no JSON object"
        return _wrong_field(value, self.values, "the answer")


@dataclass(frozen=True)
class Called:
    """One call, of this tool, with these arguments; it may have more that are not named here."""

    tool: str
    arguments: dict[str, Any]
    name: str = field(default="tool", init=False)

    def __call__(self, answer: Answer) -> str | None:
        if not answer.tool_calls:
            return f"no tool was called; {self.tool} was wanted"
        if len(answer.tool_calls) > 1:
            return f"{len(answer.tool_calls)} tools were called; {self.tool} alone was wanted"
        (call,) = answer.tool_calls
        if call.name != self.tool:
            return f"{_shown(call.name)} was called; {self.tool} was wanted"
        value = _json(call.arguments or "{}")
        if not isinstance(value, dict):
            return f"the arguments of {self.tool} are no JSON object"
        return _wrong_field(value, self.arguments, f"the call of {self.tool}")


@dataclass(frozen=True)
class Vectors:
    """So many vectors, alike in length, of finite numbers, none of them zero. dimension: how long; None: any."""

    count: int
    dimension: int | None = None
    name: str = field(default="vectors", init=False)

    def __call__(self, answer: Answer) -> str | None:
        if len(answer.vectors) != self.count:
            return f"{len(answer.vectors)} vectors came; {self.count} were wanted"
        lengths = {len(vector) for vector in answer.vectors}
        if len(lengths) > 1:
            return "the vectors differ in length"
        if self.dimension is not None and lengths != {self.dimension}:
            return f"the vectors have {lengths.pop()} numbers; {self.dimension} were wanted"
        if not all(math.isfinite(number) for vector in answer.vectors for number in vector):
            return "a vector has a number that is not finite"
        return None if all(map(any, answer.vectors)) else "a vector is zero"


@dataclass(frozen=True)
class Closer:
    """Of three inputs, named by place, the first is nearer to the second than to the third."""

    first: int
    near: int
    far: int
    name: str = field(default="closer", init=False)

    def __call__(self, answer: Answer) -> str | None:
        if max(self.first, self.near, self.far) >= len(answer.vectors):
            return f"{len(answer.vectors)} vectors came, which are too few to compare"
        anchor = answer.vectors[self.first]
        near = cosine(anchor, answer.vectors[self.near])
        far = cosine(anchor, answer.vectors[self.far])
        if near > far:
            return None
        return f"input {self.first} is no nearer to {self.near} ({near:.3f}) than to {self.far} ({far:.3f})"


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """NaN, which is nearer to nothing, if there is none."""
    length = math.hypot(*one) * math.hypot(*other)
    if len(one) != len(other) or not length:
        return math.nan
    return sum(a * b for a, b in zip(one, other, strict=True)) / length


_NO_JSON = object()


def _json(text: str) -> Any:
    fenced = _FENCE.match(text.strip())
    try:
        return json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return _NO_JSON


def _wrong_field(value: dict[str, Any], wanted: dict[str, Any], what: str) -> str | None:
    for name, right in wanted.items():
        if name not in value:
            return f"{what} lacks {name!r}"
        given = value[name]
        both_text = isinstance(given, str) and isinstance(right, str)
        if _plain(given) != _plain(right) if both_text else not schemas.same(given, right):
            return f"{what} has another {name!r} than {_shown(json.dumps(right, ensure_ascii=False))}"
    return None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


def _shown(text: str) -> str:
    return f"'{text if len(text) <= _LONGEST else text[:_LONGEST] + '...'}'"
