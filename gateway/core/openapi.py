"""The API in the form that tools read: OpenAPI 3.1, made of the same table that requests are dispatched by."""

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.core import errors, openapi_cluster
from gateway.core.api import CALLS, ApiCall, Dialect
from geniehive.rules.operations import Operation

Schema = Mapping[str, Any]

_SAYS = {
    Operation.CHAT: "Answers a conversation.",
    Operation.COMPLETIONS: "Continues a text.",
    Operation.EMBEDDINGS: "Turns texts into vectors.",
    Operation.TRANSCRIPTION: "Writes down speech.",
    Operation.TRANSLATION: "Writes down speech in English.",
    Operation.SPEECH: "Speaks a text.",
    Operation.IMAGES: "Makes or changes images.",
    Operation.RERANK: "Orders documents by how well they answer a query.",
    Operation.MODERATIONS: "Classifies a text.",
    Operation.RESPONSES: "Answers in OpenAI's Responses API.",
    Operation.MESSAGES: "Answers in Anthropic's Messages API, or counts tokens.",
}
# Beside "model"; everything else goes to the engine as it is.
_NEEDED: dict[Operation, dict[str, Any]] = {
    Operation.CHAT: {"messages": {"type": "array", "items": {"type": "object"}}},
    Operation.COMPLETIONS: {"prompt": {}},
    Operation.EMBEDDINGS: {"input": {}},
    Operation.SPEECH: {"input": {"type": "string"}},
    Operation.RERANK: {"query": {"type": "string"}, "documents": {"type": "array"}},
    Operation.MODERATIONS: {"input": {}},
    Operation.RESPONSES: {"input": {}},
    Operation.MESSAGES: {"messages": {"type": "array", "items": {"type": "object"}}},
}
_STREAMED = {
    Operation.CHAT,
    Operation.COMPLETIONS,
    Operation.RESPONSES,
    Operation.MESSAGES,
    Operation.TRANSCRIPTION,
    Operation.IMAGES,
}
_NEVER_STREAMED = {"/v1/messages/count_tokens", "/v1/images/variations"}
# Whose answers may be plain text, such as subtitles.
_WRITTEN = {Operation.TRANSCRIPTION, Operation.TRANSLATION}
_FAULTS = {
    "400": "The request is wrong, or the model is for something else.",
    "401": "No key, or one that is not known.",
    "403": "The key may not do this.",
    "404": "There is no such model.",
    "405": "The path takes another method; see Allow.",
    "408": "The body came too slowly.",
    "413": "The body is too large.",
    "429": "The engine has too much to do, and there is no other; see Retry-After.",
    "500": "The gateway or the engine failed at this request.",
    "502": "The endpoints that were asked failed.",
    "503": "No endpoint can serve the model now; see Retry-After.",
    "504": "No answer came in time.",
    "508": "The request has passed too many gateways, which lead in a circle.",
}
_SATURATED = "All endpoints of the model are busy, and no turn came in time; see Retry-After."
_NO_ROOM = "The disk took no more of the form."


def document(version: str) -> bytes:
    """As JSON. version: of the product."""
    paths = {path: {"post": _call(call)} for path, call in CALLS.items()}
    models = _look(
        "listModels",
        "Lists the models, roles and aliases; under `geniehive` what is known of each.",
        "A list.",
        "401",
        "403",
        "503",
    )
    paths["/v1/models"] = {"get": models}
    one = _look("retrieveModel", "One model.", "The model.", "401", "403", "404", "503")
    one["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    paths["/v1/models/{model}"] = {"get": one}
    paths |= openapi_cluster.paths(_look)
    metrics = _look(
        "getMetrics", "Metrics for Prometheus. Scope read; on loopback no key.", "Text.", "401", "403", "503"
    )
    metrics["responses"]["200"]["content"] = {kind: {"schema": _STRING} for kind in _EXPOSITION}
    paths["/metrics"] = {"get": {**metrics, "security": [*_SECURITY, {}]}}
    paths["/healthz"] = {"get": {**_look("healthz", "Whether the gateway runs.", "It does."), "security": []}}
    paths["/readyz"] = {"get": {**_look("readyz", "Whether it can serve.", "It can.", "503"), "security": []}}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "GenieHive",
                "version": version,
                "description": "One OpenAI-compatible address for all engines of a cluster. What stands here is what "
                "the gateway itself reads; all other fields go to the engine as they are.",
            },
            "security": _SECURITY,
            "paths": paths,
            "components": {
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                },
                "schemas": {
                    "Error": _object(
                        {"error": _object({"message": _STRING, "type": _STRING, "code": {}, "param": {}})}
                    ),
                    "AnthropicError": _object(
                        {"type": _STRING, "error": _object({"type": _STRING, "message": _STRING})}
                    ),
                },
            },
        }
    )


_STRING = {"type": "string"}
_SECURITY: list[Schema] = [{"bearer": []}, {"apiKey": []}]
_EXPOSITION = ("text/plain", "application/openmetrics-text")
_LOOK_FAULTS = {
    "400": "The question is wrong.",
    "401": _FAULTS["401"],
    "403": _FAULTS["403"],
    "404": _FAULTS["404"],
    "413": _FAULTS["413"],
    "503": "Not yet, or not now.",
}


def _call(call: ApiCall) -> dict[str, Any]:
    operation = call.operation
    model = {"model": {"type": "string", "description": "As /v1/models lists it."}}
    bodies: dict[str, dict[str, Any]] = {}
    if call.multipart:
        file = "image" if operation is Operation.IMAGES else "file"
        bodies["multipart/form-data"] = {**model, file: {"type": "string", "format": "binary"}}
    if not call.multipart or operation is Operation.IMAGES:
        bodies["application/json"] = model | _NEEDED.get(operation, {})
    optional: dict[str, Any] = {}
    answers: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if operation in _WRITTEN:
        answers["text/plain"] = {"schema": _STRING}
    if operation in _STREAMED and call.path not in _NEVER_STREAMED:
        optional["stream"] = {"type": "boolean"}
        answers["text/event-stream"] = {"schema": _STRING}
    elif operation is Operation.SPEECH:
        answers = {"audio/*": {"schema": {"type": "string", "format": "binary"}}}
    error = "AnthropicError" if call.dialect is Dialect.ANTHROPIC else "Error"
    schema = {"$ref": f"#/components/schemas/{error}"}
    return {
        "operationId": call.path.strip("/").replace("/", "_"),
        "summary": _SAYS[operation],
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": _object(fields | optional, list(fields))} for kind, fields in bodies.items()},
        },
        "responses": {"200": {"description": "The engine's answer.", "content": answers}}
        | {
            status: {"description": says, "content": {"application/json": {"schema": schema}}}
            for status, says in _faults(call).items()
        },
    }


def _faults(call: ApiCall) -> dict[str, str]:
    """By status, what it means."""
    faults = dict(_FAULTS)
    full = str(errors.saturated("", "", 0).status_in(call.dialect))
    faults[full] = f"{_SATURATED} Or: {faults[full]}" if full in faults else _SATURATED
    if call.multipart:
        faults["507"] = _NO_ROOM
    return dict(sorted(faults.items()))


def _look(name: str, says: str, found: str, *faults: str) -> dict[str, Any]:
    """What is no call to a model. faults: statuses."""
    content = {"application/json": {"schema": {"type": "object"}}}
    schema = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "operationId": name,
        "summary": says,
        "responses": {"200": {"description": found, "content": content}}
        | {status: {"description": _LOOK_FAULTS[status], "content": schema} for status in faults},
    }


def _object(properties: Schema, required: list[str] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties) if required is None else required}
