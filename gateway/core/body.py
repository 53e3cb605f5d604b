"""The model's name in a JSON request body: read, and replaced where an engine calls the model otherwise.

Nothing else of a body is ever rebuilt: integers stay integers, unknown fields, key order and white space stay as they
are. The usual body is scanned once by msgspec and searched once for the key; an exact walk over its top level (slower:
it decodes everything) is taken only when that leaves a doubt.
"""

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # public in all but its stub

import msgspec

_KEY = b'"model"'
_BLANKS = b" \t\r\n"
_BLANK = re.compile(r"[ \t\r\n]*")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class BodyProblem(Exception):
    """A body that can't be used. `param`: the field that is to blame, "" for the body itself."""

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class Named(msgspec.Struct, frozen=True, gc=False):
    """A body, the model it names, and where: `body[start:end]` is the JSON string, quotes included."""

    body: bytes
    model: str
    start: int
    end: int

    def renamed(self, model: str) -> bytes:
        """The body with another model in it; itself if it is the same."""
        if model == self.model:
            return self.body
        return b"".join((self.body[: self.start], msgspec.json.encode(model), self.body[self.end :]))


class _Head(msgspec.Struct, gc=False):
    model: str


_decode_head = msgspec.json.Decoder(_Head).decode


def read(body: bytes) -> Named:
    """BodyProblem if the body is no JSON object with exactly one "model", a string that is not empty."""
    try:
        model = _decode_head(body).model
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
    if not model:
        raise BodyProblem('"model" is empty: name a model; GET /v1/models lists them', "model")
    value = msgspec.json.encode(model)
    key = body.find(_KEY)
    after = key + len(_KEY)
    start = body.find(value, after)
    if key < 0 or start < 0 or body[after:start].strip(_BLANKS) != b":" or body.find(_KEY, after) >= 0:
        return _walk(body)
    return Named(body, model, start, start + len(value))


def _walk(body: bytes) -> Named:
    """As `read`, by decoding each value of the top level."""
    try:
        text = body.decode("utf-8", "surrogatepass")
        found = _top_level_models(text)
    except UnicodeDecodeError as error:
        raise BodyProblem("The request body is not UTF-8") from error
    except RecursionError as error:
        raise BodyProblem("The request body is nested too deeply") from error
    except ValueError as error:
        raise BodyProblem(_invalid(body, error)) from error
    if not found:
        raise BodyProblem('"model" is missing: name a model; GET /v1/models lists them', "model")
    if len(found) > 1:
        raise BodyProblem('"model" stands in the request body more than once', "model")
    model, start, end = found[0]
    if not isinstance(model, str):
        raise BodyProblem('"model" must be a string', "model")
    if not model:
        raise BodyProblem('"model" is empty: name a model; GET /v1/models lists them', "model")
    first = len(text[:start].encode("utf-8", "surrogatepass"))
    return Named(body, model, first, first + len(text[start:end].encode("utf-8", "surrogatepass")))


def _top_level_models(text: str) -> list[tuple[object, int, int]]:
    """Each value of a key "model" of the object that `text` is, with where it stands. ValueError if it is no object."""
    value_at = json.JSONDecoder().raw_decode
    found: list[tuple[object, int, int]] = []
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
            if key == "model":
                found.append((value, start, at))
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
