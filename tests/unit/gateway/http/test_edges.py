"""What stands around the calls: methods, browsers, and the API's description of itself."""

import json

import pytest
from openapi_spec_validator import validate

from gateway.core.api import CALLS
from tests.unit.gateway.builders import served
from tests.unit.gateway.http.gateways import BODY, CHAT_PATH, Gateway
from tests.unit.gateway.http.test_calls import Engine

PAGE = "https://chat.example.com"


@pytest.mark.parametrize(
    ("path", "allow"),
    [*((path, "POST, OPTIONS") for path in CALLS), ("/v1/models", "GET, HEAD, OPTIONS"), ("/", "GET, HEAD, OPTIONS")],
)
async def test_every_path_says_what_it_takes(path: str, allow: str) -> None:
    async with Gateway() as gateway:
        options = await gateway.ask("OPTIONS", path, authorization="")
        assert (options.status, options.headers["allow"], options.body) == (204, allow, b"")
        wrong = await gateway.ask("DELETE", path)
        assert (wrong.status, wrong.headers["allow"]) == (405, allow)
        assert json.loads(wrong.body)["error"]


async def test_options_of_what_is_not_there() -> None:
    async with Gateway() as gateway:
        assert (await gateway.ask("OPTIONS", "/v1/nothing", authorization="")).status == 404


@pytest.mark.parametrize("path", ["/", "/v1/models", "/healthz", "/readyz", "/openapi.json"])
async def test_head_is_get_without_the_body(path: str) -> None:
    async with Gateway() as gateway:
        got, head = await gateway.ask("GET", path), await gateway.ask("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.body))


async def test_the_description_is_valid_and_whole() -> None:
    async with Gateway() as gateway:
        answer = await gateway.ask("GET", "/openapi.json", authorization="")
    described = json.loads(answer.body)
    validate(described)
    assert set(CALLS) <= described["paths"].keys()
    names = [operation["operationId"] for path in described["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))
    form = described["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]["content"]
    assert form["multipart/form-data"]["schema"]["required"] == ["model", "file"]


async def test_a_page_that_may_call_is_told_so_also_in_errors() -> None:
    async with Engine() as engine, Gateway(*served("m", a=engine.url), cors=(PAGE,)) as gateway:
        asked = {"origin": PAGE, "access_control_request_method": "POST", "authorization": ""}
        preflight = await gateway.ask("OPTIONS", CHAT_PATH, access_control_request_headers="authorization", **asked)
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert preflight.headers["access-control-allow-methods"] == "POST"
        assert preflight.headers["access-control-allow-headers"] == "authorization"
        good = await gateway.ask("POST", CHAT_PATH, BODY, origin=PAGE)
        assert (good.status, good.headers["access-control-allow-origin"]) == (200, PAGE)
        refused = await gateway.ask("POST", CHAT_PATH, BODY, origin=PAGE, authorization="Bearer wrong")
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, PAGE)


@pytest.mark.parametrize("cors", [(), (PAGE,)])
async def test_no_other_page_may(cors: tuple[str, ...]) -> None:
    told = b"Content-Type: application/json\r\nAccess-Control-Allow-Origin: *\r\n"
    async with Engine(extra=told) as engine, Gateway(*served("m", a=engine.url), cors=cors) as gateway:
        asked = {"origin": "https://evil.example", "access_control_request_method": "POST", "authorization": ""}
        for answer in (
            await gateway.ask("OPTIONS", CHAT_PATH, **asked),
            await gateway.ask("POST", CHAT_PATH, BODY, origin="https://evil.example"),
        ):
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]
