"""What each runtime answers about itself and its models: paths, headers, bodies and refusals, as the real ones do.

A `Runtime` is asked by path and knows no sockets; `fake_engine` serves it. `FakeModel.state` is the one word for all
runtimes: unloaded, loading, loaded, sleeping, failed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CREATED = 1795441112

_PICTURES = frozenset({"/v1/images/generations", "/v1/images/edits", "/v1/images/variations"})
_RERANK = frozenset({"/v1/rerank", "/rerank"})


@dataclass
class FakeModel:
    name: str
    state: str = "loaded"
    context: int = 4096
    max_context: int = 32768
    family: str = "llama"
    embedding: bool = False
    size: int = 96_576_768
    parameters: int = 134_515_008
    capabilities: list[str] = field(default_factory=lambda: ["completion", "tools"])


@dataclass
class Reply:
    """A whole answer. `body` of a str or bytes goes as it is, anything else as JSON."""

    body: Any = b""
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    def payload(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


def _named(body: Any) -> str:
    """The model that a body names."""
    return str(body.get("model") or body.get("name") or "") if isinstance(body, dict) else ""


class Runtime:
    """A generic OpenAI-compatible server, and what the others have in common."""

    name = "openai"
    headers: Mapping[str, str] = {}
    owner = "someone"
    # Paths that need no key.
    open_paths: frozenset[str] = frozenset()
    # Paths of clients' calls that it does not have.
    not_served: frozenset[str] = frozenset()

    def __init__(self, models: dict[str, FakeModel]) -> None:
        self.models = models

    def needs_key(self, path: str) -> bool:
        return path not in self.open_paths

    def no_key(self) -> Reply:
        return Reply(
            {
                "error": {
                    "message": "Incorrect API key provided",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": "invalid_api_key",
                }
            },
            401,
        )

    def refusal(self, model: FakeModel | None, wanted: str | None) -> Reply | None:
        """Why a request for this model can't be answered, if so."""
        if wanted is None:
            return self.error(400, "you must provide a model parameter", "invalid_request_error")
        if model is None:
            return self.error(
                404, f"The model `{wanted}` does not exist", "invalid_request_error", "model", "model_not_found"
            )
        return None

    def bad_json(self) -> Reply:
        return self.error(400, "We could not parse the JSON body of your request.", "invalid_request_error")

    def error(self, status: int, message: str, kind: str, param: Any = None, code: Any = None) -> Reply:
        return Reply({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)

    def unknown_path(self, path: str) -> Reply:
        return self.error(404, f"Invalid URL (GET {path})", "invalid_request_error")

    def use(self, model: FakeModel) -> None:
        """A request for this model is about to be answered."""

    def entry(self, model: FakeModel) -> dict[str, Any]:
        return {"id": model.name, "object": "model", "created": CREATED, "owned_by": self.owner}

    def ask(self, method: str, path: str, query: Mapping[str, str], body: Any, running: int) -> Reply | None:
        """The answer to a request that is no inference. None: no such path."""
        if method == "GET" and path == "/v1/models":
            return Reply({"object": "list", "data": [self.entry(m) for m in self.models.values()]})
        if method == "GET" and path.startswith("/v1/models/"):
            model = self.models.get(path.removeprefix("/v1/models/"))
            return Reply(self.entry(model)) if model else self.refusal(None, path.removeprefix("/v1/models/"))
        return None

    def extras(self, prompt_tokens: int, tokens: int) -> dict[str, Any]:
        """What this runtime adds to an answer."""
        return {}


class Ollama(Runtime):
    name = "ollama"
    owner = "library"
    not_served = _PICTURES | _RERANK | {"/v1/messages/count_tokens", "/v1/moderations", "/v1/audio/speech"}

    def refusal(self, model: FakeModel | None, wanted: str | None) -> Reply | None:
        if not wanted:
            return self.error(400, "model is required", "invalid_request_error")
        if model is None:
            return self.error(404, f"model '{wanted}' not found", "not_found_error")
        return None

    def unknown_path(self, path: str) -> Reply:
        return Reply("404 page not found", 404, "text/plain")

    def use(self, model: FakeModel) -> None:
        model.state = "loaded"

    def _details(self, model: FakeModel) -> dict[str, Any]:
        return {
            "parent_model": "",
            "format": "gguf",
            "family": model.family,
            "families": [model.family],
            "parameter_size": f"{model.parameters / 1e9:.1f}B",
            "quantization_level": "Q4_K_M",
        }

    def _digest(self, model: FakeModel) -> str:
        return (model.name.encode().hex() * 64)[:64]

    def ask(self, method: str, path: str, query: Mapping[str, str], body: Any, running: int) -> Reply | None:
        match method, path:
            case "GET" | "HEAD", "/":
                return Reply("Ollama is running", content_type="text/plain")
            case "GET" | "HEAD", "/api/version":
                return Reply({"version": "0.33.0"})
            case "GET", "/api/tags":
                return Reply(
                    {
                        "models": [
                            {
                                "name": m.name,
                                "model": m.name,
                                "modified_at": "2026-11-04T17:37:44.706015396Z",
                                "size": m.size,
                                "digest": self._digest(m),
                                "details": {**self._details(m), "context_length": m.max_context},
                                "capabilities": ["embedding"] if m.embedding else m.capabilities,
                            }
                            for m in self.models.values()
                        ]
                    }
                )
            case "GET", "/api/ps":
                return Reply(
                    {
                        "models": [
                            {
                                "name": m.name,
                                "model": m.name,
                                "size": m.size,
                                "digest": self._digest(m),
                                "details": self._details(m),
                                "expires_at": "2026-11-24T14:38:31.83753Z",
                                "size_vram": m.size,
                                "context_length": m.context,
                            }
                            for m in self.models.values()
                            if m.state == "loaded"
                        ]
                    }
                )
            case "POST", "/api/show":
                model = self.models.get(_named(body))
                if model is None:
                    return Reply({"error": "model not found"}, 404)
                return Reply(
                    {
                        "details": self._details(model),
                        "model_info": {
                            "general.architecture": model.family,
                            f"{model.family}.context_length": model.max_context,
                            f"{model.family}.embedding_length": 576,
                            "general.parameter_count": model.parameters,
                        },
                        "capabilities": ["embedding"] if model.embedding else model.capabilities,
                        "template": "",
                        "parameters": "",
                    }
                )
            case "POST", "/api/generate":
                model = self.models.get(_named(body))
                if model is None:
                    return Reply({"error": "model not found"}, 404)
                unload = body.get("keep_alive") == 0
                model.state = "unloaded" if unload else "loaded"
                return Reply(
                    {
                        "model": model.name,
                        "created_at": "2026-11-23T14:38:31Z",
                        "response": "",
                        "done": True,
                        "done_reason": "unload" if unload else "load",
                    }
                )
        return super().ask(method, path, query, body, running)


class LlamaCpp(Runtime):
    """One model, known at the start; any name is taken for it."""

    name = "llamacpp"
    owner = "llamacpp"
    headers: Mapping[str, str] = {"Server": "llama.cpp", "Access-Control-Allow-Origin": ""}
    open_paths = frozenset({"/health", "/v1/health", "/models", "/v1/models"})
    not_served = _PICTURES | {"/v1/moderations", "/v1/audio/speech"}
    slots = 2

    def no_key(self) -> Reply:
        return self.error(401, "Invalid API Key", "authentication_error")

    def error(self, status: int, message: str, kind: str, param: Any = None, code: Any = None) -> Reply:
        return Reply({"error": {"message": message, "type": kind, "code": status}}, status)

    def bad_json(self) -> Reply:
        return self.error(500, "[json.exception.parse_error.101] parse error", "server_error")

    def unknown_path(self, path: str) -> Reply:
        return self.error(404, "File Not Found", "not_found_error")

    @property
    def _model(self) -> FakeModel | None:
        return next(iter(self.models.values()), None)

    def _loading(self) -> Reply | None:
        model = self._model
        if model is not None and model.state == "loading":
            return self.error(503, "Loading model", "unavailable_error")
        return None

    def refusal(self, model: FakeModel | None, wanted: str | None) -> Reply | None:
        return self._loading()

    def entry(self, model: FakeModel) -> dict[str, Any]:
        return {
            "id": model.name,
            "aliases": [model.name],
            "tags": [],
            "object": "model",
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
            "created": CREATED,
            "owned_by": "llamacpp",
            "meta": {
                "vocab_type": 2,
                "n_vocab": 49152,
                "n_ctx": model.context,
                "n_ctx_train": model.max_context,
                "n_embd": 576,
                "n_params": model.parameters,
                "size": model.size,
                "ftype": "Q4_1",
            },
        }

    def extras(self, prompt_tokens: int, tokens: int) -> dict[str, Any]:
        return {
            "system_fingerprint": "b1-7e4c0a9",
            "timings": {
                "cache_n": 0,
                "prompt_n": prompt_tokens,
                "prompt_ms": 270.233,
                "prompt_per_second": 66.6,
                "predicted_n": tokens,
                "predicted_ms": 62.9 * tokens,
                "predicted_per_second": 15.9,
            },
        }

    def _slots(self, model: FakeModel, running: int) -> list[dict[str, Any]]:
        return [
            {"id": i, "n_ctx": model.context, "speculative": False, "is_processing": i < running}
            for i in range(self.slots)
        ]

    def _metrics(self, running: int) -> Reply:
        lines = []
        for name, value in (
            ("requests_processing", min(running, self.slots)),
            ("requests_deferred", max(0, running - self.slots)),
            ("predicted_tokens_seconds", 15.9),
        ):
            lines.append(f"# TYPE llamacpp:{name} gauge\nllamacpp:{name} {value}\n")
        return Reply("".join(lines), content_type="text/plain")

    def ask(self, method: str, path: str, query: Mapping[str, str], body: Any, running: int) -> Reply | None:
        if loading := self._loading():
            return loading
        match method, path:
            case "GET", "/":
                return Reply("<html>llama.cpp</html>", content_type="text/html")
            case "GET", "/health" | "/v1/health":
                return Reply({"status": "ok"})
            case "GET", "/models" | "/v1/models":
                return Reply(
                    {
                        "models": [
                            {"name": m.name, "model": m.name, "size": "", "type": "model"} for m in self.models.values()
                        ],
                        "object": "list",
                        "data": [self.entry(m) for m in self.models.values()],
                    }
                )
        model = self._model
        if model is None:
            return None
        match method, path:
            case "GET", "/props":
                return Reply(
                    {
                        "default_generation_settings": {"params": {}, "n_ctx": model.context},
                        "total_slots": self.slots,
                        "model_alias": model.name,
                        "model_ftype": "Q4_1",
                        "model_path": f"models/{model.name}.gguf",
                        "modalities": {"vision": False, "video": False, "audio": False},
                        "endpoint_slots": True,
                        "endpoint_props": False,
                        "endpoint_metrics": True,
                        "chat_template": "{{ messages }}",
                        "chat_template_caps": {"supports_tools": True, "supports_tool_calls": True},
                        "build_info": "b1-7e4c0a9",
                        "is_sleeping": model.state == "sleeping",
                    }
                )
            case "GET", "/slots":
                return Reply(self._slots(model, running))
            case "GET", "/metrics":
                return self._metrics(running)
        return None


class LlamaCppRouter(LlamaCpp):
    """Many models, loaded when asked for."""

    name = "llamacpp-router"

    def _loading(self) -> Reply | None:
        return None

    def refusal(self, model: FakeModel | None, wanted: str | None) -> Reply | None:
        if wanted is None:
            return self.error(400, "model name is missing from the request", "invalid_request_error")
        if model is None:
            return self.error(400, f"model '{wanted}' not found", "invalid_request_error")
        if model.state == "failed":
            return self.error(500, f"model name={wanted} failed to load", "server_error")
        return None

    def use(self, model: FakeModel) -> None:
        model.state = "loaded"

    def entry(self, model: FakeModel) -> dict[str, Any]:
        held = super().entry(model)
        if model.state not in ("loaded", "sleeping"):
            del held["meta"]
        failed = model.state == "failed"
        status: dict[str, Any] = {
            "value": "unloaded" if failed else model.state,
            "args": ["/opt/llama-server", "--alias", model.name],
            "preset": f"[{model.name}]\n",
        }
        if failed:
            status |= {"exit_code": 1, "failed": True}
        return {**held, "aliases": [], "status": status, "source": "preset", "can_remove": False}

    def ask(self, method: str, path: str, query: Mapping[str, str], body: Any, running: int) -> Reply | None:
        if method == "GET" and path in ("/models", "/v1/models"):
            return Reply({"data": [self.entry(m) for m in self.models.values()], "object": "list"})
        if method == "POST" and path in ("/models/load", "/models/unload"):
            model = self.models.get(_named(body))
            if model is None:
                return self.unknown_path(path)
            load = path == "/models/load"
            if load == (model.state in ("loaded", "loading", "sleeping")):
                text = "model is already running" if load else "model is not running"
                return self.error(400, text, "invalid_request_error")
            model.state = "loaded" if load else "unloaded"
            return Reply({"success": True})
        if method == "GET" and path in ("/props", "/slots", "/metrics"):
            wanted = query.get("model")
            if wanted is None:
                if path == "/props":
                    return Reply(
                        {
                            "role": "router",
                            "max_instances": 4,
                            "models_autoload": True,
                            "model_alias": "llama-server",
                            "build_info": "b1-7e4c0a9",
                        }
                    )
                return self.error(400, "model name is missing from the request", "invalid_request_error")
            model = self.models.get(wanted)
            if model is None:
                return self.error(400, f"model '{wanted}' not found", "invalid_request_error")
            if model.state not in ("loaded", "sleeping"):
                if query.get("autoload") == "false":
                    return self.error(400, "model is not loaded", "invalid_request_error")
                model.state = "loaded"  # a trap of the real one: looking loads
            elif model.state == "sleeping" and path == "/slots":
                model.state = "loaded"  # and wakes
            one = LlamaCpp({wanted: model})
            return one.ask(method, path, {}, body, running)
        return super().ask(method, path, query, body, running)


class Vllm(Runtime):
    name = "vllm"
    owner = "vllm"
    not_served = _PICTURES | {"/v1/moderations", "/v1/audio/speech"}
    headers: Mapping[str, str] = {"Server": "uvicorn"}

    def needs_key(self, path: str) -> bool:
        return path.startswith("/v1/")

    def no_key(self) -> Reply:
        return Reply({"error": "Unauthorized"}, 401)

    def refusal(self, model: FakeModel | None, wanted: str | None) -> Reply | None:
        if model is None and wanted is not None:
            message = f"The model `{wanted}` does not exist. Valid aliases: {', '.join(self.models)}."
            return self.error(404, message, "NotFoundError", "model", 404)
        return None

    def unknown_path(self, path: str) -> Reply:
        return Reply({"detail": "Not Found"}, 404)

    def bad_json(self) -> Reply:
        return self.error(400, "There was an error parsing the body", "Bad Request", None, 400)

    def entry(self, model: FakeModel) -> dict[str, Any]:
        return {
            **super().entry(model),
            "root": f"/models/{model.name}",
            "parent": None,
            "max_model_len": model.context,
            "permission": [{"id": "modelperm-1", "object": "model_permission", "allow_sampling": True}],
        }

    def ask(self, method: str, path: str, query: Mapping[str, str], body: Any, running: int) -> Reply | None:
        match method, path:
            case "GET", "/health" | "/ping":
                return Reply(b"")
            case "GET", "/version":
                return Reply({"version": "0.32.0"})
            case "GET", "/load":
                return Reply({"server_load": 0})
            case "GET", "/metrics":
                label = f'{{engine="0",model_name="{next(iter(self.models), "")}"}}'
                return Reply(
                    f"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{label} {float(running)}\n"
                    f"# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{label} 0.0\n"
                    f"# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{label} 0.1\n",
                    content_type="text/plain",
                )
        return super().ask(method, path, query, body, running)


class Sglang(Runtime):
    """Looks like Ollama at /api/tags, which is the trap."""

    name = "sglang"
    owner = "sglang"
    headers: Mapping[str, str] = {"Server": "uvicorn"}

    def needs_key(self, path: str) -> bool:
        return not path.startswith(("/health", "/metrics"))

    def unknown_path(self, path: str) -> Reply:
        return Reply({"detail": "Not Found"}, 404)

    def entry(self, model: FakeModel) -> dict[str, Any]:
        return {**super().entry(model), "root": model.name, "parent": None, "max_model_len": model.context}

    def ask(self, method: str, path: str, query: Mapping[str, str], body: Any, running: int) -> Reply | None:
        match method, path:
            case "GET", "/":
                return Reply('"SGLang is running"')
            case "GET", "/health" | "/ready":
                return Reply(b"")
            case "GET", "/model_info":
                return Reply({"model_path": next(iter(self.models), ""), "is_generation": True})
            case "GET", "/api/tags":
                return Reply({"models": [{"name": m, "model": m, "size": 0} for m in self.models]})
        return super().ask(method, path, query, body, running)


class LmStudio(Runtime):
    name = "lmstudio"
    not_served = _PICTURES | _RERANK | {"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/audio/speech"}

    def entry(self, model: FakeModel) -> dict[str, Any]:
        return {"id": model.name, "object": "model"}

    def ask(self, method: str, path: str, query: Mapping[str, str], body: Any, running: int) -> Reply | None:
        if method == "GET" and path == "/api/v1/models":
            return Reply(
                {
                    "models": [
                        {
                            "type": "embedding" if m.embedding else "llm",
                            "publisher": "someone",
                            "key": m.name,
                            "display_name": m.name,
                            "architecture": m.family,
                            "quantization": {"name": "Q4_K_M", "bits_per_weight": 4},
                            "size_bytes": m.size,
                            "loaded_instances": [{"id": m.name, "config": {"context_length": m.context}}]
                            if m.state == "loaded"
                            else [],
                            "max_context_length": m.max_context,
                            "format": "gguf",
                        }
                        for m in self.models.values()
                    ]
                }
            )
        return super().ask(method, path, query, body, running)


class Webpage(Runtime):
    """No engine at all: answers every GET with a page and 200."""

    name = "webpage"

    def ask(self, method: str, path: str, query: Mapping[str, str], body: Any, running: int) -> Reply | None:
        return Reply("<!doctype html><html></html>", content_type="text/html") if method == "GET" else None


RUNTIMES: dict[str, type[Runtime]] = {
    kind.name: kind for kind in (Runtime, Ollama, LlamaCpp, LlamaCppRouter, Vllm, Sglang, LmStudio, Webpage)
}
