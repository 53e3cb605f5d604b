"""A scriptable engine on a real socket, inside a test or as a process of its own.

    async with FakeEngine("ollama", ["qwen3:8b"], name="A") as engine:
        engine.url                                  # "http://127.0.0.1:PORT"
        engine.behave(cut_after=2, times=1)         # misbehave once
        await engine.until(lambda: engine.clients_left == 1)

    python -m tests.support.fake_engine --port P --runtime vllm --models a,b [--key K] [--name X]

As a process it prints `{"notice": "ready", "url": ...}` and is driven by HTTP, below paths that no engine has:

    GET    /fake/state             {name, runtime, models, running, served, clients_left}
    GET    /fake/requests?path=P   [{method, target, path, headers: [[name, value]], body, body_base64}], oldest first
    DELETE /fake/requests          forgets them
    POST   /fake/script            {behave: {...} | null, add_models: [name | {...}], remove_models: [name],
                                    states: {name: state}, key: K | null}; `FakeProcess` does it for a test

Answers name who gave them: the text is "engine X", and a header `x-fake-engine: X` stands on each.
"""

import argparse
import asyncio
import base64
import dataclasses
import hashlib
import json
import signal
import socket
import struct
import sys
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from tests.support.fake_runtimes import RUNTIMES, FakeModel, Reply, Runtime

INFERENCE = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
# More would only fill memory in a soak.
KEPT_REQUESTS = 10_000
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclasses.dataclass
class Recorded:
    method: str
    target: str  # path with query, as it came
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclasses.dataclass(eq=False)
class Behaviour:
    """How to answer. What is not said is done well.

    where      "inference", "all", or the beginning of a path
    times      for so many requests, then well again; None: until `behave_well`
    hold       "head": no byte until `behave_well`; "body": head and first piece, then nothing until `behave_well`
    head_delay, chunk_delay  seconds
    close      closes without a byte of an answer: "fin" or "reset"
    cut_after  closes after so many pieces of a body (0: after the head); a body that is no stream has two
    cut        how: "fin" or "reset"
    status, headers, body, content_type   this answer in place of its own
    pieces     these pieces as the body of a 200 stream, in place of its own
    tokens     how many content pieces an answer has (default: the 3 of "engine X")
    """

    where: str = "inference"
    times: int | None = None
    hold: str | None = None
    head_delay: float = 0.0
    chunk_delay: float = 0.0
    close: str | None = None
    cut_after: int | None = None
    cut: str = "fin"
    status: int | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    pieces: list[str] | None = None
    tokens: int | None = None

    def covers(self, path: str) -> bool:
        if self.where == "inference":
            return path in INFERENCE
        return self.where == "all" or path.startswith(self.where)


class FakeEngine:
    """One engine. `models` are names or FakeModels; `port` 0 takes a free one, anew at each start.

    After `stop` it can be started again, on the same port, with what it had: an engine that comes back.
    """

    def __init__(
        self,
        runtime: str = "openai",
        models: Iterable[str | FakeModel] = ("test-model",),
        *,
        name: str = "X",
        key: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.models: dict[str, FakeModel] = {}
        for model in models:
            self.add_model(model)
        self.runtime: Runtime = RUNTIMES[runtime](self.models)
        self.name = name
        self.key = key
        self.host = host
        self.port = port
        self.requests: list[Recorded] = []
        self.running = 0  # inference requests that are open
        self.served = 0  # inference requests answered to the end
        self.clients_left = 0  # requests whose client went away before the end
        self._behaviours: list[Behaviour] = []
        self._holding: set[Behaviour] = set()  # outlives `times`
        self._changed = asyncio.Event()
        self._stopping = False
        self._runner: web.AppRunner | None = None

    # --- life

    async def start(self) -> None:
        self._stopping = False
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        app.on_response_prepare.append(self._headers)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Closes the port and every connection, as a killed process does."""
        self._stopping = True
        if self._runner is not None:
            assert self._runner.server is not None
            for connection in self._runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    # --- orders

    def add_model(self, model: str | FakeModel) -> FakeModel:
        made = FakeModel(model) if isinstance(model, str) else model
        self.models[made.name] = made
        return made

    def remove_model(self, name: str) -> None:
        del self.models[name]

    def behave(self, **how: Any) -> Behaviour:
        """Behaves so from now on. Several orders hold at once; the first that covers a request counts."""
        order = Behaviour(**how)
        self._behaviours.append(order)
        if order.hold:
            self._holding.add(order)
        return order

    def behave_well(self) -> None:
        """Forgets every order, and lets go what they hold."""
        self._behaviours.clear()
        self._holding.clear()
        self._notify()

    async def until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Waits until something that this engine counts or records is so. TimeoutError if it never is."""
        async with asyncio.timeout(timeout):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def calls(self, path: str | None = None) -> list[Recorded]:
        """The inference requests so far, or those of one path."""
        return [r for r in self.requests if (r.path == path if path else r.path in INFERENCE)]

    def _notify(self) -> None:
        self._changed.set()

    # --- requests

    async def _headers(self, request: web.Request, response: web.StreamResponse) -> None:
        # aiohttp has named itself by now, which would give the fake away.
        if "aiohttp" in response.headers.get("Server", ""):
            del response.headers["Server"]
        for name, value in self.runtime.headers.items():
            response.headers.setdefault(name, value)
        response.headers["x-fake-engine"] = self.name

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/fake/"):
            return await self._control(request)
        inference = request.path in INFERENCE
        cut_by_us = False
        self.running += inference
        self._notify()
        try:
            body = await request.read()
            headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.raw_headers]
            self.requests.append(Recorded(request.method, request.raw_path, request.path, headers, body))
            del self.requests[:-KEPT_REQUESTS]
            self._notify()
            order = self._order(request.path)
            if order.head_delay:
                await asyncio.sleep(order.head_delay)
            await self._while_held(order, "head")
            if order.close:
                cut_by_us = True
                return self._cut(request, order.close, web.Response())
            found = self._answer(request, body, order)
            if isinstance(found, Reply):
                response, cut_by_us = await self._send(request, order, [found.payload()], found, whole=True)
            else:
                head = Reply(content_type="text/event-stream")
                response, cut_by_us = await self._send(request, order, found, head, whole=False)
            self.served += inference and not cut_by_us
            return response
        except (asyncio.CancelledError, ConnectionError):
            if not cut_by_us and not self._stopping:
                self.clients_left += 1
            raise
        finally:
            self.running -= inference
            self._notify()

    def _order(self, path: str) -> Behaviour:
        for order in self._behaviours:
            if order.covers(path):
                if order.times is not None:
                    order.times -= 1
                    if order.times <= 0:
                        self._behaviours.remove(order)
                return order
        return Behaviour()

    async def _while_held(self, order: Behaviour, point: str) -> None:
        while order.hold == point and order in self._holding:
            self._changed.clear()
            await self._changed.wait()

    async def _send(
        self, request: web.Request, order: Behaviour, pieces: list[bytes], head: Reply, *, whole: bool
    ) -> tuple[web.StreamResponse, bool]:
        """Sends the answer; says too whether it was cut on purpose."""
        response = web.StreamResponse(status=head.status, headers=head.headers | order.headers)
        response.content_type = head.content_type
        if head.content_type in ("application/json", "text/plain", "text/html"):
            response.charset = "utf-8"
        if whole:
            payload = pieces[0]
            response.content_length = len(payload)
            half = len(payload) // 2
            pieces = [payload] if order.cut_after is None and order.hold != "body" else [payload[:half], payload[half:]]
        await response.prepare(request)
        if request.method == "HEAD":
            return response, False
        for number, piece in enumerate(pieces):
            if order.cut_after is not None and number >= order.cut_after:
                return self._cut(request, order.cut, response), True
            if number:
                await self._while_held(order, "body")
                if order.chunk_delay:
                    await asyncio.sleep(order.chunk_delay)
            await response.write(piece)
        if order.cut_after is not None and not whole:
            return self._cut(request, order.cut, response), True
        await response.write_eof()
        return response, False

    def _cut(self, request: web.Request, how: str, response: web.StreamResponse) -> web.StreamResponse:
        transport = request.transport
        if transport is not None:
            if how == "reset":
                # Zero linger turns the close into a reset.
                linger = struct.pack("ii", 1, 0)
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                transport.abort()
            else:
                transport.close()
        return response

    def _answer(self, request: web.Request, raw: bytes, order: Behaviour) -> Reply | list[bytes]:
        refused = self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}"
        if refused and self.runtime.needs_key(request.path):
            return self.runtime.no_key()
        if order.status is not None or order.body is not None:
            return Reply(b"" if order.body is None else order.body, order.status or 200, order.content_type)
        if order.pieces is not None:
            return [piece.encode() for piece in order.pieces]
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            return self.runtime.bad_json()
        if request.method == "POST" and request.path in INFERENCE:
            if not isinstance(body, dict):
                return self.runtime.bad_json()
            return self._infer(request.path, body, order)
        found = self.runtime.ask(request.method, request.path, request.query, body, self.running)
        return found or self.runtime.unknown_path(request.path)

    # --- inference

    def _infer(self, path: str, body: dict[str, Any], order: Behaviour) -> Reply | list[bytes]:
        wanted = body.get("model")
        model = self.models.get(wanted) if isinstance(wanted, str) else None
        if refused := self.runtime.refusal(model, wanted):
            return refused
        model = model or next(iter(self.models.values()), FakeModel("none"))
        self.runtime.use(model)
        if path == "/v1/embeddings":
            return Reply(self._embeddings(model, body))
        words = ["engine", " ", self.name]
        if order.tokens is not None:
            words = [*words, *(f" t{n}" for n in range(4, order.tokens + 1))][: order.tokens]
        chat = path == "/v1/chat/completions"
        prompt = len(json.dumps(body.get("messages") or body.get("prompt") or "")) // 4 + 1
        usage = {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}
        extras = self.runtime.extras(prompt, len(words))
        base = {"id": "chatcmpl-fake" if chat else "cmpl-fake", "created": 1795441112, "model": model.name}
        if body.get("stream"):
            options = body.get("stream_options") or {}
            return self._stream(base, chat, words, usage if options.get("include_usage") else None, extras)
        text = "".join(words)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text, "logprobs": None}
        kind = "chat.completion" if chat else "text_completion"
        return Reply({**base, "object": kind, "choices": [choice], "usage": usage, **extras})

    def _stream(
        self, base: dict[str, Any], chat: bool, words: list[str], usage: Any, extras: dict[str, Any]
    ) -> list[bytes]:
        base = {**base, "object": "chat.completion.chunk" if chat else "text_completion"}

        def event(content: str | None, finish: str | None = None, **more: Any) -> bytes:
            choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
            if chat:
                choice["delta"] = {} if content is None else {"content": content}
            else:
                choice["text"] = content or ""
            return _sse({**base, "choices": [choice], **more})

        events = [event(word) for word in words]
        if chat:
            opening = {"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": ""}}
            events.insert(0, _sse({**base, "choices": [opening]}))
        events.append(event(None, "stop", **({} if usage else extras)))
        if usage:
            events.append(_sse({**base, "choices": [], "usage": usage, **extras}))
        return [*events, b"data: [DONE]\n\n"]

    def _embeddings(self, model: FakeModel, body: dict[str, Any]) -> dict[str, Any]:
        given = body.get("input", "")
        inputs = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
        data = []
        for index, item in enumerate(inputs):
            digest = hashlib.sha256(json.dumps(item).encode()).digest()
            vector = [(byte - 128) / 128 for byte in digest[:8]]
            packed = base64.b64encode(struct.pack("<8f", *vector)).decode()
            embedding = packed if body.get("encoding_format") == "base64" else vector
            data.append({"object": "embedding", "index": index, "embedding": embedding})
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        return {"object": "list", "model": model.name, "data": data, "usage": usage}

    # --- driven by HTTP

    async def _control(self, request: web.Request) -> web.Response:
        match request.method, request.path:
            case "GET", "/fake/state":
                return web.json_response(self.state())
            case "GET", "/fake/requests":
                wanted = request.query.get("path")
                return web.json_response([_listed(r) for r in self.requests if wanted in (None, r.path)])
            case "DELETE", "/fake/requests":
                self.requests.clear()
                return web.json_response({})
            case "POST", "/fake/script":
                self.script(await request.json())
                return web.json_response(self.state())
        return web.json_response({"error": f"no {request.method} {request.path}"}, status=404)

    def state(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "runtime": self.runtime.name,
            "models": [dataclasses.asdict(model) for model in self.models.values()],
            "running": self.running,
            "served": self.served,
            "clients_left": self.clients_left,
        }

    def script(self, orders: dict[str, Any]) -> None:
        """What POST /fake/script does."""
        unknown = orders.keys() - {"behave", "add_models", "remove_models", "states", "key"}
        if unknown:
            raise web.HTTPBadRequest(text=f"unknown orders: {', '.join(sorted(unknown))}")
        if "behave" in orders:
            self.behave_well()
            if orders["behave"] is not None:
                self.behave(**orders["behave"])
        for model in orders.get("add_models", ()):
            self.add_model(model if isinstance(model, str) else FakeModel(**model))
        for name in orders.get("remove_models", ()):
            self.remove_model(name)
        for name, state in orders.get("states", {}).items():
            self.models[name].state = state
        if "key" in orders:
            self.key = orders["key"]


def _sse(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _listed(request: Recorded) -> dict[str, Any]:
    return {
        "method": request.method,
        "target": request.target,
        "path": request.path,
        "headers": request.headers,
        "body": request.body.decode(errors="replace"),
        "body_base64": base64.b64encode(request.body).decode(),
    }


class FakeProcess:
    """A fake engine as a process, which a test may kill, stop and start again on its port.

    async with FakeProcess("ollama", ["qwen3:8b"], name="A") as engine: ...
    """

    def __init__(
        self,
        runtime: str = "openai",
        models: Iterable[str] = ("test-model",),
        *,
        name: str = "X",
        key: str | None = None,
        port: int = 0,
    ) -> None:
        self.port = port
        self.name = name
        self._arguments = ["--runtime", runtime, "--models", ",".join(models), "--name", name]
        if key is not None:
            self._arguments += ["--key", key]
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts it, on the port it had if it had one, and returns when it serves."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.fake_engine",
            "--port",
            str(self.port),
            *self._arguments,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the fake engine {self.name} ended with {await self.process.wait()}")
        self.port = int(json.loads(line)["url"].rpartition(":")[2])

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        """kill -9, and waits for the end."""
        if self.process is not None:
            if self.process.returncode is None:
                self.process.kill()
            await self.process.wait()
            self.process = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.kill()

    async def script(self, **orders: Any) -> Any:
        return await self._call("POST", "/fake/script", json.dumps(orders).encode())

    async def state(self) -> Any:
        return await self._call("GET", "/fake/state")

    async def requests(self, path: str = "") -> Any:
        return await self._call("GET", "/fake/requests" + (f"?path={path}" if path else ""))

    async def _call(self, method: str, path: str, body: bytes | None = None) -> Any:
        def call() -> Any:
            request = urllib.request.Request(self.url + path, data=body, method=method)
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)

        return await asyncio.to_thread(call)


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    tasks = []
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if not sys.stdin.isatty():
        # Ends with the test that started it, however that ends.
        reader = asyncio.StreamReader()
        try:
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        except (OSError, ValueError):
            pass
        else:
            tasks.append(asyncio.create_task(_stop_at_end(reader, stop)))
    models = [name for name in arguments.models.split(",") if name]
    engine = FakeEngine(arguments.runtime, models, name=arguments.name, key=arguments.key, port=arguments.port)
    async with engine:
        print(json.dumps({"notice": "ready", "url": engine.url}), flush=True)
        await stop.wait()
    for task in tasks:
        task.cancel()


async def _stop_at_end(reader: asyncio.StreamReader, stop: asyncio.Event) -> None:
    while await reader.read(4096):
        pass
    stop.set()


def main() -> None:
    parser = argparse.ArgumentParser(description="A scriptable fake engine.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--runtime", choices=sorted(RUNTIMES), default="openai")
    parser.add_argument("--models", default="test-model", help="comma-separated")
    parser.add_argument("--key")
    parser.add_argument("--name", default="X")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
