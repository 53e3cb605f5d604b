import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.api import Dialect
from gateway.core.foreign import is_loading, message_of, normalised


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"m","type":"t","param":null,"code":null}}',
        b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}, "more": 1}',
    ],
)
def test_openais_shape_passes_byte_for_byte(body: bytes) -> None:
    assert normalised(503, body) is body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":"server busy"}', "server busy"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"detail":[{"loc":["body"],"msg":"field required"}]}', '[{"loc":["body"],"msg":"field required"}]'),
        (b'{"detail":{"error":{"message":"x","type":"y"}}}', "x"),
        (b'{"detail":{"error":"x"}}', "x"),
        (b'{"error":{"message":null}}', '{"message":null}'),
        (b'{"error":{"message":7}}', "7"),
        (b'{"error":{"code":7}}', '{"code":7}'),
        (b'{"message":"m"}', "m"),
        (b"plain words\n", "plain words"),
        (b"", "The engine answered 400 without saying why"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[1]", "[1]"),
    ],
)
def test_everything_else_is_wrapped(body: bytes, message: str) -> None:
    error = json.loads(normalised(400, body))["error"]
    assert error == {"message": message, "type": "invalid_request_error", "param": None, "code": None}


def test_server_errors_are_called_so() -> None:
    assert json.loads(normalised(500, b"boom"))["error"]["type"] == "server_error"


def test_deep_nesting_is_text() -> None:
    assert len(normalised(500, b"[" * 100_000)) < 3000


def test_message_of() -> None:
    assert message_of(b'{"error":{"message":"Loading\\n model"}}') == "Loading model"
    assert message_of(b"") == ""


def test_nested_ever_deeper() -> None:
    body = b'{"error":' * 900 + b"1" + b"}" * 900
    assert len(normalised(500, body)) < 3000
    assert len(message_of(body)) == 300


def test_anthropics_shape_passes_byte_for_byte_to_who_speaks_it() -> None:
    body = b'{"type":"error", "error":{"type":"overloaded_error","message":"m"},"request_id":"r"}'
    assert normalised(529, body, Dialect.ANTHROPIC) is body
    # And the openai SDK can read it.
    assert normalised(529, body, Dialect.RESPONSES) is body


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (400, b'{"error":{"code":400,"message":"too long","type":"x_error"}}', "invalid_request_error",
         "too long"),
        (401, b'{"error":"Unauthorized"}', "authentication_error", "Unauthorized"),
        (403, b"no", "permission_error", "no"),
        (404, b'{"detail":"Not Found"}', "not_found_error", "Not Found"),
        (413, b"", "request_too_large", "The engine answered 413 without saying why"),
        (422, b'{"detail":[]}', "invalid_request_error", '{"detail":[]}'),
        (429, b'{"error":{"message":"slower"}}', "rate_limit_error", "slower"),
        (500, b'{"type":"error","error":{"message":"no type"}}', "api_error", "no type"),
        (504, b"late", "timeout_error", "late"),
        (529, b"[]", "overloaded_error", "[]"),
    ],
)  # fmt: skip
def test_everything_else_is_told_in_anthropics_words(status: int, body: bytes, kind: str, message: str) -> None:
    told = json.loads(normalised(status, body, Dialect.ANTHROPIC, "r1"))
    assert told == {"type": "error", "error": {"type": kind, "message": message}, "request_id": "r1"}


@given(st.integers(400, 599), st.binary(), st.sampled_from(Dialect))
def test_whatever_an_engine_says_an_sdk_can_read_it(status: int, body: bytes, dialect: Dialect) -> None:
    error = json.loads(normalised(status, body, dialect))["error"]
    assert isinstance(error["message"], str)


@pytest.mark.parametrize(
    ("body", "loading"),
    [
        (b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}', True),
        (b'{"error":"Model org/m is currently loading","estimated_time":20.0}', True),
        (b'{"detail":"The model is still being loaded"}', True),
        (b'{"error":{"code":503,"message":"no slot available","type":"unavailable_error"}}', False),
        (b'{"error":"server busy, please try again.  maximum pending requests exceeded"}', False),
        (b'{"error":{"message":"model name=broken failed to load"}}', False),
        (b'{"error":"error loading model"}', False),
        (b"", False),
    ],
)
def test_which_503_means_that_waiting_helps(body: bytes, loading: bool) -> None:
    assert is_loading(message_of(body)) is loading
