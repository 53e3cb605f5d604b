import json
from typing import Any

import pytest

from gateway.core import errors
from gateway.core.api import Dialect
from gateway.core.errors import Tried
from gateway.core.keys import TO_LOOK, NoKey, ScopeMissing, UnknownKey
from gateway.core.plan import Unusable
from gateway.core.table import ChooseFrom, NotFound, OtherOperations
from geniehive.rules.operations import Operation


def test_the_shape() -> None:
    body = json.loads(errors.bad_request("no", "model", "x").body())
    assert body == {"error": {"message": "no", "type": "invalid_request_error", "param": "model", "code": "x"}}
    assert errors.bad_request("no").event() == b"data: " + errors.bad_request("no").body() + b"\n\n"


def test_names() -> None:
    missing = errors.unresolved("m1", Operation.CHAT, NotFound(("m", "m2")))
    assert (missing.status, missing.code, missing.param) == (404, "model_not_found", "model")
    assert "Near matches: m, m2" in missing.message
    other = errors.unresolved("e", Operation.CHAT, OtherOperations((Operation.EMBEDDINGS,)))
    assert other.status == 400
    assert "it serves embeddings (/v1/embeddings)" in other.message
    choose = errors.unresolved("a/e", Operation.CHAT, ChooseFrom(("m1", "m2")))
    assert choose.status == 400
    assert "m1, m2" in choose.message


def test_long_lists_and_names_are_cut() -> None:
    choose = errors.unresolved("x" * 5000, Operation.CHAT, ChooseFrom(tuple(f"m{n}" for n in range(1000))))
    assert choose.message.endswith("and 980 more")
    assert len(choose.message) < 500


def test_keys() -> None:
    assert errors.unauthenticated(NoKey()).status == 401
    assert errors.unauthenticated(UnknownKey()).code == "invalid_api_key"
    refused = errors.unauthenticated(ScopeMissing("k7", TO_LOOK))
    assert refused.status == 403
    assert "k7" in refused.message
    assert "infer or read" in refused.message


@pytest.mark.parametrize(("retry_in", "header"), [(None, 5), (0.0, 1), (0.3, 1), (12.1, 13)])
def test_retry_after(retry_in: float | None, header: int) -> None:
    error = errors.unserved("m", [], [Unusable("a/e/m", "offline")], retry_in)
    assert (error.status, error.retry_after) == (503, header)
    assert "(a/e/m: offline)" in error.message


def test_nobody_at_all() -> None:
    assert "nobody offers it" in errors.unserved("m", [], [], None).message


def test_all_reasons_are_told() -> None:
    error = errors.unserved("m", [Tried("a/e/m", "broke", "reset")], [Unusable("b/e/m", "offline")], None)
    assert (error.status, error.code) == (502, "upstream_failed")
    assert "a/e/m: reset; b/e/m: offline" in error.message


def test_paths() -> None:
    assert "base URL that ends in /v1" in errors.unknown_path("POST", "/chat/completions").message
    assert errors.wrong_method("GET", "/v1/embeddings", "POST").allow == "POST"


def test_the_rest_has_its_status() -> None:
    made = [errors.too_large(1), errors.too_slow(1), errors.not_ready(), errors.stopping(), errors.internal("r"),
            errors.cut("a", "x", True), errors.cut("a", "x", False)]  # fmt: skip
    assert [e.status for e in made] == [413, 408, 503, 503, 500, 504, 502]


def events(stream: bytes) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for event in stream.decode().removesuffix("\n\n").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in event.split("\n"))
        found.append((lines.get("event", ""), json.loads(lines["data"])))
    return found


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.bad_request("no"), 400, "invalid_request_error"),
        (errors.unauthenticated(UnknownKey()), 401, "authentication_error"),
        (errors.unauthenticated(ScopeMissing("k7", TO_LOOK)), 403, "permission_error"),
        (errors.unresolved("m", Operation.MESSAGES, NotFound()), 404, "not_found_error"),
        (errors.wrong_method("GET", "/v1/messages", "POST"), 405, "invalid_request_error"),
        (errors.too_large(1), 413, "request_too_large"),
        (errors.internal("r"), 500, "api_error"),
        (errors.unserved("m", [], [], None), 503, "api_error"),
        (errors.cut("m", "x", True), 504, "timeout_error"),
        (errors.saturated("m", "x", 1.0), 529, "overloaded_error"),
    ],
)
def test_in_anthropics_words(error: errors.ApiError, status: int, kind: str) -> None:
    assert error.status_in(Dialect.ANTHROPIC) == status
    body = json.loads(error.body(Dialect.ANTHROPIC, "r1"))
    assert body == {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": "r1"}
    assert events(error.event(Dialect.ANTHROPIC, "r1")) == [("error", body)]


def test_at_the_limit_each_is_told_by_the_status_at_which_it_comes_again() -> None:
    error = errors.saturated("m", "4 of 4 slots of a/e/m are taken", 1.2)
    assert [error.status_in(dialect) for dialect in Dialect] == [429, 503, 529]
    assert (error.retry_after, error.code) == (2, "saturated")


def test_responses_end_with_what_codex_and_the_sdk_look_for() -> None:
    error = errors.cut("a/e/m", "reset", False)
    (first, failed), (second, told) = events(error.event(Dialect.RESPONSES, "r1"))
    assert (first, second) == (failed["type"], told["type"]) == ("response.failed", "error")
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": error.message}
    # The SDK raises at the first "error" at the top: the event before it is to be seen.
    assert "error" not in failed
    assert told["error"]["message"] == told["message"] == error.message
    assert json.loads(error.body(Dialect.RESPONSES)) == json.loads(error.body())


def test_circles() -> None:
    error = errors.loop(4)
    assert (error.status, error.code) == (508, "loop_detected")
    assert "passed 4 gateways" in error.message


@pytest.mark.parametrize("operation", Operation)
def test_a_name_for_something_else_says_at_which_path(operation: Operation) -> None:
    asked = Operation.CHAT if operation is not Operation.CHAT else Operation.RERANK
    error = errors.unresolved("m", asked, OtherOperations((operation,)))
    assert error.status == 400
    assert f"can't be used for {asked.word}; it serves {operation.word} (/v1/" in error.message
