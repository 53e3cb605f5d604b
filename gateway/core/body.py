"""The model's name in a JSON request body: read, and replaced where an engine calls the model otherwise; and the one
field that the gateway itself may add, with which it asks for usage at the end of a stream.

Nothing else of a body is ever rebuilt: integers stay integers, unknown fields, key order and white space stay as they
are. The usual body is scanned once by msgspec and searched once for the key; an exact walk over its top level (slower:
it decodes everything) is taken only when that leaves a doubt.
"""

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # public in all but its stub
from typing import ClassVar

import msgspec

_KEY = b'"model"'
_OPTIONS = b'"stream_options"'
_WANTED = b'{"include_usage":true}'
_REFUSED = re.compile(rb'("include_usage"[ \t\r\n]*:[ \t\r\n]*)(?:false|null)')
_BLANKS = b" \t\r\n"
_BLANK = re.compile(r"[ \t\r\n]*")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

# Where a body says nothing.
UNSAID = msgspec.Raw(b"")


class Head(msgspec.Struct, gc=False):
    """What the top level of a body says. Of all but the first two the JSON, as it stands there; empty: nothing."""

    model: str
    stream: bool | None = None
    stream_options: msgspec.Raw = UNSAID
    # The prompt, which has other names in each API.
    messages: msgspec.Raw = UNSAID
    input: msgspec.Raw = UNSAID
    prompt: msgspec.Raw = UNSAID
    system: msgspec.Raw = UNSAID
    instructions: msgspec.Raw = UNSAID
    tools: msgspec.Raw = UNSAID
    truncation: msgspec.Raw = UNSAID
    # How long the answer may be.
    max_tokens: msgspec.Raw = UNSAID
    max_completion_tokens: msgspec.Raw = UNSAID
    max_output_tokens: msgspec.Raw = UNSAID
    # Whose it is.
    prompt_cache_key: msgspec.Raw = UNSAID
    metadata: msgspec.Raw = UNSAID
    user: msgspec.Raw = UNSAID


class BodyProblem(Exception):
    """A body that can't be used. `param`: the field that is to blame, "" for the body itself."""

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class Named(msgspec.Struct, frozen=True, gc=False):
    """A body, the model it names, and where: `body[start:end]` is the JSON string, quotes included.

    stream: whether it asks for a stream. options: the JSON of its "stream_options", b"" if it has none. head: what else
    was seen; None if the body had to be looked at in another way.
    """

    body: bytes
    model: str
    start: int
    end: int
    stream: bool = False
    options: bytes = b""
    head: Head | None = None

    # It is in memory.
    replayable: ClassVar[bool] = True

    def renamed(self, model: str, also_named: bool = False) -> bytes:
        """The body with another model in it; itself if it is the same. also_named: of forms only."""
        if model == self.model:
            return self.body
        return b"".join((self.body[: self.start], msgspec.json.encode(model), self.body[self.end :]))

    def asking(self) -> "Named | None":
        """It, with a request for usage at the end of the stream; None if it has one, or leaves no safe place for it."""
        options = self.options
        if not options:
            start = self.body.index(b"{") + 1
            return self._with(start, start, _OPTIONS + b":" + _WANTED + b",")
        wanting = _wanting(options)
        key = self.body.find(_OPTIONS)
        after = key + len(_OPTIONS)
        start = self.body.find(options, after)
        if (
            wanting is None
            or key < 0
            or self.body.find(_OPTIONS, after) >= 0
            or self.body[after:start].strip(_BLANKS) != b":"
        ):
            return None
        return self._with(start, start + len(options), wanting)

    def _with(self, start: int, end: int, value: bytes) -> "Named":
        body = b"".join((self.body[:start], value, self.body[end:]))
        shift = len(value) - (end - start) if self.start >= end else 0
        return Named(body, self.model, self.start + shift, self.end + shift, self.stream)


class _Options(msgspec.Struct, gc=False):
    include_usage: bool | msgspec.UnsetType | None = msgspec.UNSET


_decode_head = msgspec.json.Decoder(Head).decode
_decode_options = msgspec.json.Decoder(_Options).decode


def read(body: bytes) -> Named:
    """BodyProblem if the body is no JSON object with exactly one "model", a string that is not empty."""
    try:
        head = _decode_head(body)
    except msgspec.ValidationError:
        return _walk(body)  # says what is wrong
    except msgspec.DecodeError as error:
        # Half a surrogate pair, as programs that cut strings send it, is valid JSON which msgspec refuses.
        if not body or not _SURROGATE.search(body):
            raise BodyProblem(_invalid(body, error)) from error
        return _walk(body)
    except UnicodeDecodeError as error:
        raise BodyProblem("The request body is not UTF-8") from error
    except RecursionError as error:
        raise BodyProblem("The request body is nested too deeply") from error
    model = head.model
    if not model:
        raise BodyProblem('"model" is empty: name a model; GET /v1/models lists them', "model")
    value = msgspec.json.encode(model)
    key = body.find(_KEY)
    after = key + len(_KEY)
    start = body.find(value, after)
    if key < 0 or start < 0 or body[after:start].strip(_BLANKS) != b":" or body.find(_KEY, after) >= 0:
        return _walk(body, head)
    return Named(body, model, start, start + len(value), bool(head.stream), bytes(head.stream_options), head)


def _walk(body: bytes, head: Head | None = None) -> Named:
    """As `read`, by decoding each value of the top level."""
    try:
        text = body.decode("utf-8", "surrogatepass")
        members = _top_level(text)
    except UnicodeDecodeError as error:
        raise BodyProblem("The request body is not UTF-8") from error
    except RecursionError as error:
        raise BodyProblem("The request body is nested too deeply") from error
    except ValueError as error:
        raise BodyProblem(_invalid(body, error)) from error
    found = members["model"]
    if not found:
        raise BodyProblem('"model" is missing: name a model; GET /v1/models lists them', "model")
    if len(found) > 1:
        raise BodyProblem('"model" stands in the request body more than once', "model")
    model, start, end = found[0]
    if not isinstance(model, str):
        raise BodyProblem('"model" must be a string', "model")
    if not model:
        raise BodyProblem('"model" is empty: name a model; GET /v1/models lists them', "model")
    try:
        model.encode()
    except UnicodeEncodeError:
        raise BodyProblem('"model" has half a surrogate pair in it, which is no character', "model") from None
    first = len(text[:start].encode("utf-8", "surrogatepass"))
    stream = any(value is True for value, _, _ in members["stream"][-1:])
    options = b"".join(text[i:j].encode("utf-8", "surrogatepass") for _, i, j in members["stream_options"][-1:])
    end = first + len(text[start:end].encode("utf-8", "surrogatepass"))
    return Named(body, model, first, end, stream, options, head)


def _wanting(options: bytes) -> bytes | None:
    """The options with a request for usage in them; None if they have one, or can't be changed safely."""
    try:
        given = _decode_options(options) if options != b"null" else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # for the engine to refuse
    if given is None:
        return _WANTED
    if given.include_usage is msgspec.UNSET:
        rest = options[1:].lstrip(_BLANKS)
        return _WANTED[:-1] + (rest if rest == b"}" else b"," + rest)
    if given.include_usage:
        return None
    wanting = _REFUSED.sub(rb"\1true", options, count=1)
    return wanting if _decode_options(wanting).include_usage is True else None


def _top_level(text: str) -> dict[str, list[tuple[object, int, int]]]:
    """Of the keys that matter here each value in the object that `text` is, with where it stands.

    ValueError if it is no object.
    """
    value_at = json.JSONDecoder().raw_decode
    found: dict[str, list[tuple[object, int, int]]] = {"model": [], "stream": [], "stream_options": []}
    at = _blank(text, 0)
    if text[at : at + 1] != "{":
        json.loads(text)  # a ValueError that says where, unless it is valid
        raise BodyProblem("The request body must be a JSON object")
    at = _blank(text, at + 1)
    if text[at : at + 1] == "}":
        at += 1
    else:
        while True:
            if text[at : at + 1] != '"':
                raise json.JSONDecodeError("Expecting a key in double quotes", text, at)
            key, at = scanstring(text, at + 1, True)
            at = _blank(text, at)
            if text[at : at + 1] != ":":
                raise json.JSONDecodeError("Expecting ':'", text, at)
            start = _blank(text, at + 1)
            value, at = value_at(text, start)
            if key in found:
                found[key].append((value, start, at))
            at = _blank(text, at)
            if text[at : at + 1] == "}":
                at += 1
                break
            if text[at : at + 1] != ",":
                raise json.JSONDecodeError("Expecting ',' or '}'", text, at)
            at = _blank(text, at + 1)
    at = _blank(text, at)
    if at != len(text):
        raise json.JSONDecodeError("Extra data", text, at)
    return found


def _blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    assert match is not None
    return match.end()


def _invalid(body: bytes, error: Exception) -> str:
    return f"The request body is not valid JSON: {error}" if body else "The request has no body; send a JSON object"
