"""The description against what the gateway does."""

from typing import Any

import msgspec
import pytest
from openapi_spec_validator import validate

from gateway.core import errors, openapi
from gateway.core.api import CALLS, Dialect
from gateway.core.balance import Balance
from gateway.core.table import Table
from gateway.http.cluster import ClusterApi, Explain, explain, reading, usage
from geniehive.kit.clock import SystemClock
from geniehive.usage import DIMENSIONS, OPERATIONS

DESCRIBED: Any = msgspec.json.decode(openapi.document("1.0"))
PATHS = DESCRIBED["paths"]


def called(path: str) -> Any:
    return PATHS[path]["post"]


def test_it_is_valid() -> None:
    validate(DESCRIBED)


@pytest.mark.parametrize("path", CALLS)
def test_saturation_is_what_the_dialect_has_for_it(path: str) -> None:
    full = str(errors.saturated("m", "full", 1).status_in(CALLS[path].dialect))
    answers = called(path)["responses"]
    assert {status for status, answer in answers.items() if "busy" in answer["description"]} == {full}
    # An engine's own passes in every dialect.
    assert "429" in answers
    assert ("529" in answers) == (CALLS[path].dialect is Dialect.ANTHROPIC)


@pytest.mark.parametrize("path", CALLS)
def test_the_gateways_own_errors_are_there(path: str) -> None:
    answers = called(path)["responses"]
    own = {"400", "401", "403", "404", "405", "408", "413", "500", "502", "503", "504", "508"}
    assert own <= answers.keys()
    assert ("507" in answers) == CALLS[path].multipart


def test_what_is_streamed() -> None:
    streamed = {path for path in CALLS if "text/event-stream" in called(path)["responses"]["200"]["content"]}
    assert streamed == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/audio/transcriptions",
        "/v1/images/generations",
        "/v1/images/edits",
    }
    for path in streamed:
        for body in called(path)["requestBody"]["content"].values():
            assert "stream" in body["schema"]["properties"]
            assert "stream" not in body["schema"]["required"]


def test_images_come_as_forms_or_json() -> None:
    for path in ("/v1/images/edits", "/v1/images/variations"):
        content = called(path)["requestBody"]["content"]
        assert content["multipart/form-data"]["schema"]["required"] == ["model", "image"]
        assert content["application/json"]["schema"]["required"] == ["model"]


def test_the_parameters_of_usage_are_those_that_are_read() -> None:
    got = PATHS["/v1/cluster/usage"]["get"]
    parameters = {parameter["name"]: parameter for parameter in got["parameters"]}
    assert tuple(parameters) == (*usage.PARAMS, *DIMENSIONS)
    assert parameters["by"]["schema"]["items"]["enum"] == list(DIMENSIONS)
    assert parameters["operation"]["schema"]["enum"] == list(OPERATIONS.values())
    assert parameters["limit"]["schema"]["maximum"] == reading.MOST_ROWS
    assert {"400", "401", "403", "503"} <= got["responses"].keys()


async def nothing(*_: object) -> Any:
    raise AssertionError


async def unknown(model: str, key_id: str) -> Table | None:
    return None


def test_the_paths_of_the_cluster_are_those_that_are_answered() -> None:
    clock = SystemClock()
    api = ClusterApi(nothing, nothing, Explain(nothing, Table("here"), unknown, Balance(), clock), clock)
    described = {path: methods for path, methods in PATHS.items() if path.startswith("/v1/cluster/")}
    assert {f"/v1/cluster/{path}" for path in api._paths} == described.keys()
    for path, methods in described.items():
        answered = api.methods(path)
        assert answered is not None
        assert {method.upper() for method in methods} == answered.keys()
        for method, what in methods.items():
            assert ("requestBody" in what) == bool(answered[method.upper()].body)
            assert {"400", "401", "403", "503"} <= what["responses"].keys()


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("hosts", (*reading.HOSTS, "label", *reading.PAGES)),
        ("services", (*reading.SERVICES, *reading.PAGES)),
        ("roles", reading.PAGES),
        ("aliases", reading.PAGES),
        ("benchmarks", (*reading.BENCHMARKS, *reading.PAGES)),
        ("health", ()),
        ("routes/resolve", tuple(reading.ROUTE)),
    ],
)
def test_the_parameters_of_the_cluster_are_those_that_are_read(path: str, known: tuple[str, ...]) -> None:
    parameters = PATHS[f"/v1/cluster/{path}"]["get"]["parameters"]
    assert tuple(parameter["name"] for parameter in parameters) == known


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("routes/match", reading.Match),
        ("routes/explain", explain.Asked),
        ("benchmarks", reading.Samples),
        ("benchmarks", reading.Sample),
    ],
)
def test_the_bodies_of_the_cluster_are_those_that_are_read(path: str, shape: type[msgspec.Struct]) -> None:
    schema = PATHS[f"/v1/cluster/{path}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    if shape is reading.Sample:
        schema = schema["properties"]["samples"]["items"]
    fields = msgspec.structs.fields(shape)
    assert set(schema["properties"]) == {field.name for field in fields}
    assert set(schema["required"]) == {field.name for field in fields if field.required}


def test_metrics() -> None:
    got = PATHS["/metrics"]["get"]
    assert "text/plain" in got["responses"]["200"]["content"]
    assert {"401", "403"} <= got["responses"].keys()
    # On loopback nobody needs a key.
    assert {} in got["security"]


def test_what_needs_no_key_says_so() -> None:
    for path in ("/healthz", "/readyz"):
        assert PATHS[path]["get"]["security"] == []
