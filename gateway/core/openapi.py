"""The API in the form that tools read: OpenAPI 3.1, made of the same table that requests are dispatched by."""

from collections.abc import Mapping
from typing import Any

import msgspec

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
_STREAMED = {Operation.CHAT, Operation.COMPLETIONS, Operation.RESPONSES, Operation.MESSAGES}
_FAULTS = {
    "400": "The request is wrong, or the model is for something else.",
    "401": "No key, or one that is not known.",
    "403": "The key may not do this.",
    "404": "There is no such model.",
    "413": "The body is too large.",
    "429": "All endpoints of the model are busy; see Retry-After.",
    "502": "The endpoints that were asked failed.",
    "503": "No endpoint can serve the model now; see Retry-After.",
    "504": "No answer came in time.",
}


def document(version: str) -> bytes:
    """As JSON. version: of the product."""
    paths = {path: {"post": _call(call)} for path, call in CALLS.items()}
    paths["/v1/models"] = {"get": _look("listModels", "Lists the models, roles and aliases.", "A list.")}
    one = _look("retrieveModel", "One model.", "The model.")
    one["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    paths["/v1/models/{model}"] = {"get": one}
    usage = _look(
        "getUsage", "What was used, by key, model or another dimension. Scope read.", "Rows, most requests first."
    )
    usage["parameters"] = [
        {"name": name, "in": "query", "description": says, "schema": {"type": "string"}}
        for name, says in (("by", "key, model, host, service, operation, hour, day"), ("since", "24h, 7d or a day"))
    ]
    paths["/v1/cluster/usage"] = {"get": usage}
    for path, says in (("/healthz", "Whether the gateway runs."), ("/readyz", "Whether it can serve.")):
        paths[path] = {"get": {**_look(path.strip("/"), says, "It does."), "security": []}}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "GenieHive",
                "version": version,
                "description": "One OpenAI-compatible address for all engines of a cluster. What stands here is what "
                "the gateway itself reads; all other fields go to the engine as they are.",
            },
            "security": [{"bearer": []}, {"apiKey": []}],
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


def _call(call: ApiCall) -> dict[str, Any]:
    operation = call.operation
    counting = call.path.endswith("/count_tokens")
    fields: dict[str, Any] = {"model": {"type": "string", "description": "As /v1/models lists it."}}
    kind = "application/json"
    if call.multipart:
        kind = "multipart/form-data"
        fields["image" if operation is Operation.IMAGES else "file"] = {"type": "string", "format": "binary"}
    else:
        fields |= _NEEDED.get(operation, {})
    needed = list(fields)
    answers: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if operation in _STREAMED and not counting:
        fields["stream"] = {"type": "boolean"}
        answers["text/event-stream"] = {"schema": _STRING}
    elif operation is Operation.SPEECH:
        answers = {"audio/*": {"schema": {"type": "string", "format": "binary"}}}
    body = {"schema": _object(fields, needed)}
    error = "AnthropicError" if call.dialect is Dialect.ANTHROPIC else "Error"
    schema = {"$ref": f"#/components/schemas/{error}"}
    return {
        "operationId": call.path.strip("/").replace("/", "_"),
        "summary": _SAYS[operation],
        "requestBody": {"required": True, "content": {kind: body}},
        "responses": {"200": {"description": "The engine's answer.", "content": answers}}
        | {
            status: {"description": says, "content": {"application/json": {"schema": schema}}}
            for status, says in _FAULTS.items()
        },
    }


def _look(name: str, says: str, found: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": name,
        "summary": says,
        "responses": {"200": {"description": found, "content": content}, "503": {"description": "Not yet."}},
    }


def _object(properties: Schema, required: list[str] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties) if required is None else required}
