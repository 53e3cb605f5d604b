import json

import pytest

from gateway.core import errors
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


def test_a_path_of_a_later_version_says_so() -> None:
    error = errors.unknown_path("POST", "/v1/responses")
    assert error.status == 404
    assert "not served by this version" in error.message
    assert "/v1/chat/completions" in error.message
