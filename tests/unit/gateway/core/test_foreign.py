import json

import pytest

from gateway.core.foreign import message_of, normalised


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
        (b'{"detail":{"error":{"message":"x"}}}', '{"error":{"message":"x"}}'),
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
