"""/v1/cluster/… in OpenAPI: questions about the cluster."""

from collections.abc import Callable, Mapping
from typing import Any

from geniehive.rules.model import Availability
from geniehive.rules.operations import Operation

Schema = Mapping[str, Any]
_Parameters = Mapping[str, tuple[str, Schema]]

_STRING = {"type": "string"}
_TEXTS = {"type": "array", "items": _STRING}
_COUNT = {"type": "integer", "minimum": 0}
_SHARE = {"type": ["number", "null"], "minimum": 0}
_OPERATION = {"type": "string", "enum": [operation.word for operation in Operation]}
# What usage is told apart by.
_DIMENSIONS = ("key", "model", "host", "service", "endpoint", "operation", "hour", "day")
_PAGES: _Parameters = {
    "limit": ("The most rows to give.", {"type": "integer", "minimum": 1, "maximum": 1000}),
    "page": ("next_page of the answer before.", _STRING),
}
_TIME = {"type": "string", "examples": ["24h", "7d", "2026-11-01", "2026-11-01T08:00:00Z"]}
_USAGE: _Parameters = {
    "by": ("What rows are for.", {"type": "array", "items": {"type": "string", "enum": _DIMENSIONS}}),
    "since": ("24h if left out.", _TIME),
    "until": ("Now if left out.", _TIME),
    **_PAGES,
    "key": ("Only what this key asked, by its id.", _STRING),
    "model": ("Only what was asked of this model, as clients wrote it.", _STRING),
    "host": ("Only what this host served.", _STRING),
    "service": ("Only what this service served, as HOST/SERVICE.", _STRING),
    "endpoint": ("Only what this endpoint served, as endpoint/HOST/SERVICE/MODEL.", _STRING),
    "operation": ("Only what was asked for this.", _OPERATION),
    "hour": ("Only what was counted in this hour.", {"type": "string", "format": "date-time"}),
    "day": ("Only what was counted on this day, in UTC.", {"type": "string", "format": "date-time"}),
}

_HOSTS: _Parameters = {
    "availability": ("Only these.", {"type": "string", "enum": [a.name.lower() for a in Availability if a]}),
    "label": ("Only hosts with this label, NAME=VALUE; all that are given.", _TEXTS),
    **_PAGES,
}
_SERVICES: _Parameters = {
    "host": ("Only on this host.", _STRING),
    "model": ("Only with this model.", _STRING),
    "operation": ("Only for this.", _OPERATION),
    **_PAGES,
}
_BENCHMARKS: _Parameters = {
    "service": ("Only of this service, as HOST/SERVICE.", _STRING),
    "model": ("Only of this model.", _STRING),
    "workload": ("Only of this workload, as chat.short_reasoning/2.", _STRING),
    **_PAGES,
}
_RESOLVE: _Parameters = {
    "model": ("The name.", _STRING),
    "kind": ("What is asked; if left out, all that the name is there for.", _OPERATION),
    "operation": ("The same.", _OPERATION),
}
_MATCH: Mapping[str, Schema] = {
    "task": _STRING,
    "tasks": _TEXTS,
    "workload": _STRING,
    "workloads": _TEXTS,
    "kind": _OPERATION,
    "modality": _STRING,
    "include_direct_services": {"type": "boolean"},
    "limit": {"type": "integer", "minimum": 0, "maximum": 100},
}
_EXPLAIN: Mapping[str, Schema] = {
    "model": _STRING,
    "kind": _OPERATION,
    "operation": _OPERATION,
    "request": {"type": "object", "description": "A whole body; in place of the figures."},
    "prompt_tokens": _COUNT,
    "max_tokens": _COUNT,
    "tools": {"type": "boolean"},
    "images": {"type": "boolean"},
    "session": _STRING,
}
_SAMPLE: Mapping[str, Schema] = {
    "sample_id": _STRING,
    "service": _STRING,
    "workload": _STRING,
    "measure_time": {"type": "string", "format": "date-time"},
    "model": _STRING,
    "asset_id": _STRING,
    "request_count": _COUNT,
    "correctness": _SHARE,
    "first_token_seconds": _SHARE,
    "prefill_tokens_per_second": _SHARE,
    "decode_tokens_per_second": _SHARE,
}
_FAULTS = ("400", "401", "403", "503")

Look = Callable[..., dict[str, Any]]


def paths(look: Look) -> dict[str, dict[str, Any]]:
    """look: makes a path of its id, its summary, what it answers, and the statuses of its errors."""
    list_benchmarks = _asked(
        look, "listBenchmarks", "Measured samples, newest first. Scope read.", "A list.", _BENCHMARKS
    )
    return {
        "/v1/cluster/usage": {
            "get": _asked(
                look,
                "getUsage",
                "What was used, by key, model or another dimension. Scope read.",
                "Rows, most requests first.",
                _USAGE,
            )
        },
        "/v1/cluster/hosts": {"get": _asked(look, "listHosts", "The machines. Scope read.", "A list.", _HOSTS)},
        "/v1/cluster/services": {
            "get": _asked(look, "listServices", "The engines, with their models. Scope read.", "A list.", _SERVICES)
        },
        "/v1/cluster/roles": {"get": _asked(look, "listRoles", "The roles. Scope read.", "A list.", _PAGES)},
        "/v1/cluster/aliases": {"get": _asked(look, "listAliases", "The aliases. Scope read.", "A list.", _PAGES)},
        "/v1/cluster/benchmarks": {
            "get": list_benchmarks,
            "post": _posted(
                look,
                "recordBenchmarks",
                "Stores measured samples; those that are wrong are refused by themselves. Scope operate.",
                "What became of each.",
                {
                    "samples": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 1000,
                        "items": _object(_SAMPLE, ["sample_id", "service", "workload", "measure_time"]),
                    }
                },
                ["samples"],
            ),
        },
        "/v1/cluster/health": {"get": _asked(look, "getHealth", "How the cluster is. Scope read.", "Its state.", {})},
        "/v1/cluster/routes/resolve": {
            "get": _asked(look, "resolveRoute", "What a name leads to. Scope read.", "The route.", _RESOLVE, "404")
        },
        "/v1/cluster/routes/match": {
            "post": _posted(
                look,
                "matchRoutes",
                "Which roles and services fit a task, with score and reasons. Scope read.",
                "Candidates, best first.",
                _MATCH,
            )
        },
        "/v1/cluster/routes/explain": {
            "post": _posted(
                look,
                "explainRoute",
                "Why a name leads where it does, and where a request would go now. Scope read.",
                "Every endpoint, with the gate that rules it out, or its wait.",
                _EXPLAIN,
                [],
                "404",
            )
        },
    }


def _asked(look: Look, name: str, says: str, found: str, parameters: _Parameters, *faults: str) -> dict[str, Any]:
    made = look(name, says, found, *_FAULTS, *faults)
    made["parameters"] = [
        {"name": name, "in": "query", "description": says, "schema": schema, **_needed(name, parameters)}
        for name, (says, schema) in parameters.items()
    ]
    return made


def _needed(name: str, parameters: _Parameters) -> dict[str, Any]:
    return {"required": True} if parameters is _RESOLVE and name == "model" else {}


def _posted(
    look: Look, name: str, says: str, found: str, body: Mapping[str, Schema], required: list[str] | None = None,
    *faults: str,
) -> dict[str, Any]:  # fmt: skip
    made = look(name, says, found, *_FAULTS, "413", *faults)
    made["requestBody"] = {
        "required": bool(required),
        "content": {"application/json": {"schema": _object(body, required or [])}},
    }
    return made


def _object(properties: Mapping[str, Schema], required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
