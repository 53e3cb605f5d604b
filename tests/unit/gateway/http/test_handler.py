"""Paths, methods, keys, lists and errors, over real sockets."""

import json

import pytest

from geniehive.rules.model import Scope
from tests.unit.gateway.builders import key, resource, route, served, table
from tests.unit.gateway.http.engines import Engine
from tests.unit.gateway.http.gateways import CHAT_PATH, Gateway


def error(body: bytes) -> dict[str, str | None]:
    found = json.loads(body)["error"]
    assert found.keys() == {"message", "type", "param", "code"}
    return found  # type: ignore[no-any-return]


async def test_every_answer_says_who_we_are() -> None:
    async with Gateway() as gateway:
        for path in ("/v1/models", "/healthz", "/nope"):
            answer = await gateway.ask("GET", path)
            assert answer.headers["server"] == "GenieHive"
            assert answer.headers["x-geniehive-cluster"] == "c-1"
            assert answer.headers["x-request-id"].startswith("req-")


async def test_models() -> None:
    async with Gateway(*served("org/m:8b", a="http://x:1"), *served("n", a="http://x:1")) as gateway:
        listed = json.loads((await gateway.ask("GET", "/v1/models")).body)
        assert [entry["id"] for entry in listed["data"]] == ["n", "org/m:8b"]
        gateway.table.apply((), ("route/n",))
        listed = json.loads((await gateway.ask("GET", "/v1/models?x=1")).body)
        assert [entry["id"] for entry in listed["data"]] == ["org/m:8b"]


async def test_models_tell_how_long_answers_take() -> None:
    async with Engine() as engine, Gateway(*served("m", a=engine.url)) as gateway:
        await gateway.chat()
        await gateway.ended()
        (model,) = json.loads((await gateway.ask("GET", "/v1/models")).body)["data"]
        assert model["geniehive"]["latency_p50_seconds"] >= 0


@pytest.mark.parametrize("written", ["org/m:8b", "org%2Fm%3A8b", "org/m%3a8b"])
async def test_one_model_with_slashes_and_colons(written: str) -> None:
    async with Gateway(*served("org/m:8b", a="http://x:1")) as gateway:
        answer = await gateway.ask("GET", f"/v1/models/{written}")
        assert answer.status == 200
        assert json.loads(answer.body)["id"] == "org/m:8b"


async def test_an_unknown_model_is_looked_up_before_404() -> None:
    async with Gateway(*served("m1", a="http://x:1")) as gateway:
        answer = await gateway.ask("GET", "/v1/models/m2")
        assert answer.status == 404
        assert error(answer.body)["code"] == "model_not_found"
        assert gateway.asked == [("m2", "k1")]
        gateway.learned = table(*served("m2", a="http://x:1"))
        assert (await gateway.ask("GET", "/v1/models/m2")).status == 200


async def test_a_name_with_control_characters_is_not_even_looked_up() -> None:
    async with Gateway() as gateway:
        assert (await gateway.ask("GET", "/v1/models/a%0Ab")).status == 404
        assert gateway.asked == []


async def test_head() -> None:
    async with Gateway() as gateway:
        for path in ("/v1/models", "/healthz", "/readyz"):
            got = await gateway.ask("GET", path)
            answer = await gateway.ask("HEAD", path)
            assert (answer.status, answer.body) == (200, b"")
            assert answer.headers["content-length"] == str(len(got.body))
        assert (await gateway.ask("HEAD", "/nope")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nope", 404, None),
        ("POST", "/chat/completions", 404, None),
        ("GET", "/v1/models/", 404, None),
        ("GET", CHAT_PATH, 405, "POST, OPTIONS"),
        ("POST", "/v1/models", 405, "GET, HEAD, OPTIONS"),
        ("DELETE", "/v1/models/m", 405, "GET, HEAD, OPTIONS"),
        ("POST", "/healthz", 405, "GET, HEAD, OPTIONS"),
    ],
)
async def test_what_is_not_there(method: str, path: str, status: int, allow: str | None) -> None:
    async with Gateway() as gateway:
        answer = await gateway.ask(method, path)
        assert answer.status == status
        assert answer.headers.get("allow") == allow
        assert error(answer.body)["type"] == "invalid_request_error"


async def test_keys_both_ways() -> None:
    async with Gateway() as gateway:
        assert (await gateway.ask("GET", "/v1/models", authorization="bearer sk-test")).status == 200
        assert (await gateway.ask("GET", "/v1/models", authorization="", x_api_key="sk-test")).status == 200
        assert (await gateway.ask("GET", "/v1/models", authorization="Basic eA==", x_api_key="sk-test")).status == 200


@pytest.mark.parametrize("given", [{"authorization": ""}, {"authorization": "Bearer sk-wrong"}])
async def test_no_key_and_a_wrong_one(given: dict[str, str]) -> None:
    async with Gateway() as gateway:
        for method, path in (("GET", "/v1/models"), ("POST", CHAT_PATH), ("GET", "/v1/models/m")):
            answer = await gateway.ask(method, path, **given)
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert error(answer.body)["code"] == "invalid_api_key"
            assert b"sk-wrong" not in answer.body


async def test_a_key_that_may_only_look() -> None:
    async with Gateway(key("sk-read", Scope.READ, key_id="k2")) as gateway:
        assert (await gateway.ask("GET", "/v1/models", authorization="Bearer sk-read")).status == 200
        answer = await gateway.chat(authorization="Bearer sk-read")
        assert answer.status == 403
        assert "k2" in str(error(answer.body)["message"])


async def test_without_authentication_nobody_needs_a_key() -> None:
    async with Gateway(auth=False) as gateway:
        assert (await gateway.ask("GET", "/v1/models", authorization="")).status == 200
        assert (await gateway.ask("GET", "/v1/models", authorization="Bearer anything")).status == 200


@pytest.mark.parametrize("auth", [True, False])
async def test_a_cold_gateway_says_so(auth: bool) -> None:
    async with Gateway(cold=True, auth=auth) as gateway:
        for method, path in (("GET", "/v1/models"), ("GET", "/v1/models/m"), ("POST", CHAT_PATH), ("GET", "/readyz")):
            answer = await gateway.ask(method, path, b'{"model":"m"}' if method == "POST" else None)
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) > 0
            assert error(answer.body)["code"] == "not_ready"
        assert (await gateway.ask("GET", "/healthz")).status == 200
        gateway.table.apply(())
        assert (await gateway.ask("GET", "/readyz")).status == 200


@pytest.mark.parametrize(("given", "kept"), [("my-id-1", True), ("two words", False), ("x" * 500, False)])
async def test_request_ids(given: str, kept: bool) -> None:
    async with Gateway() as gateway:
        answer = await gateway.ask("GET", "/v1/models", x_request_id=given)
        assert (answer.headers["x-request-id"] == given) is kept


async def test_a_target_in_absolute_form() -> None:
    async with Gateway() as gateway, gateway.connect() as (reader, writer):
        writer.write(b"GET http://gw/healthz?x HTTP/1.1\r\nHost: gw\r\n\r\n")
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"


async def test_ambiguous_and_misused_names_are_400() -> None:
    from geniehive.rules.model import NameKind
    from geniehive.rules.operations import Operation

    async with Gateway(
        route("a/e", kind=NameKind.SERVICE, choose_from=("m1", "m2")),
        route("embed", "a/e/embed", operations=(Operation.EMBEDDINGS,)),
    ) as gateway:
        answer = await gateway.chat(b'{"model":"a/e"}')
        assert answer.status == 400
        assert "m1, m2" in str(error(answer.body)["message"])
        answer = await gateway.chat(b'{"model":"embed"}')
        assert answer.status == 400
        assert error(answer.body)["param"] == "model"
        assert gateway.asked == []


async def test_a_bug_is_500_without_a_word_of_its_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise RuntimeError("inner secret")

    monkeypatch.setattr("gateway.core.listing.Listing.models", fails)
    async with Gateway() as gateway:
        answer = await gateway.ask("GET", "/v1/models")
        assert answer.status == 500
        assert answer.headers["x-request-id"] in str(error(answer.body)["message"])
        assert b"inner secret" not in answer.body


async def test_resources_of_unknown_kinds_do_no_harm() -> None:
    async with Gateway() as gateway:
        odd = resource(served("m", a="http://x:1")[0].content)  # type: ignore[arg-type]
        gateway.table.apply((odd,))
        assert (await gateway.ask("GET", "/v1/models")).status == 200
