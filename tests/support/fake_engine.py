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
    POST   /fake/script            {behave: {...} | [{...}] | null, add_models: [name | {...}], remove_models: [name],
                                    states: {name: state}, key: K | null}; `FakeProcess` does it for a test

Answers name who gave them: the text is "engine X", and a header `x-fake-engine: X` stands on each.
"""

import argparse
import asyncio
import base64
import dataclasses
import json
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from typing import Any, Self

from aiohttp import web

from tests.support import fake_answers, fake_forms
from tests.support.fake_answers import Question, Stream
from tests.support.fake_behaviour import INFERENCE, Behaviour
from tests.support.fake_runtimes import RUNTIMES, FakeModel, Reply, Runtime

# More would only fill memory in a soak.
KEPT_REQUESTS = 10_000


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

    def form(self) -> list[fake_forms.Part]:
        return fake_forms.parts(self.header("content-type") or "", self.body)


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
            order = self._order(request.path)
            await self._while_held(order, "question")
            body = await request.read()
            headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.raw_headers]
            self.requests.append(Recorded(request.method, request.raw_path, request.path, headers, body))
            del self.requests[:-KEPT_REQUESTS]
            self._notify()
            if order.head_delay:
                await asyncio.sleep(order.head_delay)
            await self._while_held(order, "head")
            if order.close:
                cut_by_us = True
                return self._cut(request, order.close, web.Response())
            found = self._answer(request, body, order)
            response, cut_by_us = await self._send(request, order, found)
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
        self, request: web.Request, order: Behaviour, found: Reply | Stream
    ) -> tuple[web.StreamResponse, bool]:
        """Sends the answer; says too whether it was cut on purpose."""
        status, headers = (found.status, found.headers) if isinstance(found, Reply) else (200, {})
        response = web.StreamResponse(status=status, headers=headers | order.headers)
        response.content_type = order.content_type or found.content_type
        if response.content_type in ("application/json", "text/plain", "text/html"):
            response.charset = "utf-8"
        whole = isinstance(found, Reply) and not order.flood
        given = [found.payload()] if isinstance(found, Reply) else found.pieces
        pieces = order.spoil(given)
        if whole:
            payload = b"".join(pieces)
            response.content_length = len(payload)
            half = len(payload) // 2
            halved = (order.cut_after is not None or order.hold == "body") and not order.split
            pieces = order.cut_up([payload[:half], payload[half:]] if halved else [payload])
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

    def _answer(self, request: web.Request, raw: bytes, order: Behaviour) -> Reply | Stream:
        if self._refuses(request):
            return self.runtime.no_key()
        if order.status is not None or order.body is not None:
            return Reply(b"" if order.body is None else order.body, order.status or 200)
        if order.pieces is not None:
            return Stream([piece.encode() for piece in order.pieces])
        if request.method == "POST" and request.path in INFERENCE:
            return self._infer(request, raw, order)
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            return self.runtime.bad_json()
        found = self.runtime.ask(request.method, request.path, request.query, body, self.running)
        return found or self.runtime.unknown_path(request.path)

    def _refuses(self, request: web.Request) -> bool:
        """Whether the key is missing. Clients of Messages send it in a header of their own."""
        given = request.headers
        keys = (given.get("Authorization", "").removeprefix("Bearer "), given.get("X-Api-Key"))
        return self.key is not None and self.key not in keys and self.runtime.needs_key(request.path)

    def _infer(self, request: web.Request, raw: bytes, order: Behaviour) -> Reply | Stream:
        path = request.path
        if path in self.runtime.not_served:
            return self.runtime.unknown_path(path)
        form = path in fake_forms.PATHS
        try:
            body = fake_forms.fields(fake_forms.parts(request.headers.get("Content-Type", ""), raw)) if form else None
            body = json.loads(raw) if body is None else body
        except ValueError:
            return self.runtime.bad_json()
        if not isinstance(body, dict):
            return self.runtime.bad_json()
        if form and (missing := fake_forms.missing(path, body)):
            return self.runtime.error(400, f"the form has no {missing}", "invalid_request_error", missing)
        wanted = body.get("model")
        model = self.models.get(wanted) if isinstance(wanted, str) else None
        if refused := self.runtime.refusal(model, wanted):
            return refused
        model = model or next(iter(self.models.values()), FakeModel("none"))
        self.runtime.use(model)
        words = ["engine", " ", self.name]
        if order.tokens is not None:
            words = [*words, *(f" t{n}" for n in range(4, order.tokens + 1))][: order.tokens]
        question = Question(path, body, model.name, words)
        question.extras = self.runtime.extras(question.prompt_tokens, len(words))
        return fake_forms.answer(question) if form else fake_answers.answer(question)

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
            how = orders["behave"] or []
            for order in how if isinstance(how, list) else [how]:
                self.behave(**order)
        for model in orders.get("add_models", ()):
            self.add_model(model if isinstance(model, str) else FakeModel(**model))
        for name in orders.get("remove_models", ()):
            self.remove_model(name)
        for name, state in orders.get("states", {}).items():
            self.models[name].state = state
        if "key" in orders:
            self.key = orders["key"]


def _listed(request: Recorded) -> dict[str, Any]:
    return {
        "method": request.method,
        "target": request.target,
        "path": request.path,
        "headers": request.headers,
        "body": request.body.decode(errors="replace"),
        "body_base64": base64.b64encode(request.body).decode(),
    }


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
