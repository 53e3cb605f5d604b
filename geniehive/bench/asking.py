"""One request over HTTP, timed: connected before, and read as it comes."""

import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import unquote, urlsplit

from geniehive.bench import checks
from geniehive.bench.workload import Request, Workload

_CONNECT_SECONDS = 10.0
_MOST_BYTES = 64 << 20
_LONGEST = 300
# Statuses by which an engine says that it won't do what is asked, and not that it can't now.
_HOPELESS = frozenset({401, 403, 404})
_REFUSALS = frozenset({400, 404, 405, 413, 415, 422, 501})


@dataclass(frozen=True)
class Target:
    """Where to ask, and which model. url: without "/v1". key: None where none is wanted.

    service: who answers, if it does not say so itself; "": nobody knows. pinned: no other may answer.
    """

    url: str
    model: str
    key: str | None = None
    service: str = ""
    pinned: bool = False

    def __repr__(self) -> str:
        return f"Target({bare(self.url)!r}, {self.model!r})"


@dataclass
class Asked:
    """What became of one request. Times in seconds since it was sent; tokens as the engine told them, else None."""

    number: int
    service: str = ""
    model: str = ""
    status: int = 0
    # Why there is no answer; "" if there is one. refused: the engine would not do what was asked.
    error: str = ""
    refused: bool = False
    first: float | None = None
    # Until the last piece of the answer itself, and until the end of everything.
    last: float | None = None
    total: float = 0.0
    pieces: int = 0
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    fresh: bool = False
    # By name: why it failed, None if it passed.
    checks: tuple[tuple[str, str | None], ...] = ()

    @property
    def answered(self) -> bool:
        return not self.error


class Hopeless(Exception):
    """No request will be answered: nobody listens there, or the key or the model's name is not taken."""


class Unreachable(Hopeless):
    """Nobody listens there."""


def bare(url: str) -> str:
    """Without a user and a password, should it have them."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


class Asker:
    """Asks one request after the other, over one connection as long as it lasts. ValueError for a bad URL."""

    def __init__(self, target: Target, workload: Workload, timeout: float) -> None:
        self._target = target
        self._workload = workload
        self._timeout = timeout
        parts = urlsplit(target.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            # Not quoted: there may be a password in it.
            raise ValueError("this is no URL such as http://127.0.0.1:8800")
        self._made = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._host, self._port, self._base = parts.hostname, parts.port, parts.path.rstrip("/").removesuffix("/v1")
        self._shown = bare(target.url)
        self._connection: HTTPConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ask(self, number: int, request: Request) -> Asked:
        """Hopeless. Everything else that goes wrong is in what is given."""
        asked = Asked(number, service=self._target.service, model=self._target.model, fresh=request.fresh)
        body = json.dumps(self._body(request)).encode()
        reused = self._connect()
        started = time.perf_counter()
        try:
            try:
                response = self._send(body)
            except (HTTPException, ConnectionError):
                if not reused:
                    raise
                # It was closed for being idle.
                self.close()
                self._connect()
                started = time.perf_counter()
                response = self._send(body)
            self._read(response, request, asked, started)
        except TimeoutError:
            self._fail(asked, f"silent for {self._timeout:g} s")
        except (OSError, HTTPException) as error:
            self._fail(asked, f"cut off: {error or type(error).__name__}")
        asked.total = time.perf_counter() - started
        return asked

    def _fail(self, asked: Asked, why: str) -> None:
        asked.error = why[:_LONGEST]
        self.close()

    def _body(self, request: Request) -> dict[str, Any]:
        body = {"model": self._target.model, **request.body}
        if self._workload.operation == "chat":
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def _connect(self) -> bool:
        """Whether there was a connection."""
        if self._connection is not None and self._connection.sock is not None:
            return True
        self._connection = self._made(self._host, self._port, timeout=_CONNECT_SECONDS)
        try:
            self._connection.connect()
        except ssl.SSLError as error:
            raise Unreachable(f"cannot reach {self._shown}: {error.reason or error}") from error
        except OSError as error:
            raise Unreachable(f"cannot reach {self._shown}: {error.strerror or error}") from error
        self._connection.sock.settimeout(self._timeout)
        return False

    def _send(self, body: bytes) -> HTTPResponse:
        assert self._connection is not None
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self._target.key:
            headers["Authorization"] = f"Bearer {self._target.key}"
        self._connection.request("POST", self._base + self._workload.path, body, headers)
        return self._connection.getresponse()

    def _read(self, response: HTTPResponse, request: Request, asked: Asked, started: float) -> None:
        asked.status = response.status
        told = unquote(response.getheader("x-geniehive-service") or "")
        asked.service = told or asked.service
        asked.model = unquote(response.getheader("x-geniehive-model") or "") or asked.model
        if response.status != 200:
            asked.error = f"{response.status}: {_error_text(response.read(1 << 20)) or response.reason}"[:_LONGEST]
            if response.status in _HOPELESS and not told:
                raise Hopeless(f"{self._shown} answered {asked.error}")
            asked.refused = response.status in _REFUSALS and bool(asked.service)
            if asked.refused:
                asked.checks = tuple((check.name, "the request was refused") for check in request.checks)
            return
        if self._target.pinned and asked.service != self._target.service:
            self._fail(asked, f"answered by {asked.service or 'nobody knows whom'}, not by {self._target.service}")
            return
        if self._workload.operation == "chat":
            answer = _chat(response, asked, started)
        else:
            answer = _embedding(response, asked, started)
        if answer is None:
            self.close()
        else:
            asked.checks = tuple((check.name, check(answer)) for check in request.checks)


def _chat(response: HTTPResponse, asked: Asked, started: float) -> checks.Answer | None:
    """None: there is an error in place of an answer."""
    texts: list[str] = []
    calls: dict[int, list[str]] = {}
    finish = ""
    if "event-stream" not in (response.getheader("content-type") or ""):
        asked.error = "the answer is no stream of events"
        return None
    for data in _events(response):
        now = time.perf_counter() - started
        if data == "[DONE]":
            # To the end of the body, so that the connection can be used again.
            response.read()
            asked.last = asked.last or now
            tools = tuple(checks.ToolCall(name, arguments) for _, (name, arguments) in sorted(calls.items()))
            return checks.Answer(checks.spoken("".join(texts)), tools, finish=finish)
        try:
            event = json.loads(data)
            if event.get("error"):
                asked.error = f"an error in the stream: {_error_text(data.encode())}"[:_LONGEST]
                return None
            _tokens(event.get("usage"), asked)
            choice = (event.get("choices") or [{}])[0]
            finish = choice.get("finish_reason") or finish
            delta = choice.get("delta") or {}
            piece = delta.get("content") or ""
            texts.append(piece)
            for call in delta.get("tool_calls") or ():
                held = calls.setdefault(call.get("index", 0), ["", ""])
                function = call.get("function") or {}
                held[0] += function.get("name") or ""
                held[1] += function.get("arguments") or ""
            says = piece or delta.get("reasoning_content") or delta.get("reasoning") or delta.get("tool_calls")
        except (ValueError, AttributeError, TypeError, LookupError):
            asked.error = "the stream holds what is no chat completion"
            return None
        if says:
            asked.first = now if asked.first is None else asked.first
            asked.last = now
            asked.pieces += 1
    asked.error = "the stream ended without its end mark"
    return None


def _embedding(response: HTTPResponse, asked: Asked, started: float) -> checks.Answer | None:
    content = response.read(_MOST_BYTES)
    asked.first = asked.last = time.perf_counter() - started
    try:
        found = json.loads(content)
        _tokens(found.get("usage"), asked)
        listed = sorted(found["data"], key=lambda item: item.get("index", 0))
        vectors = tuple(tuple(float(number) for number in item["embedding"]) for item in listed)
    except (ValueError, AttributeError, TypeError, LookupError, OverflowError):
        asked.error = "the answer is no list of embeddings"
        return None
    return checks.Answer(vectors=vectors)


def _events(response: HTTPResponse) -> Iterator[str]:
    """The data of each server-sent event."""
    lines: list[str] = []
    while raw := response.readline(_MOST_BYTES):
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
        elif not line and lines:
            yield "\n".join(lines)
            lines = []


def _tokens(usage: Any, asked: Asked) -> None:
    if not isinstance(usage, dict):
        return
    asked.prompt_tokens = _count(usage.get("prompt_tokens"))
    asked.completion_tokens = _count(usage.get("completion_tokens"))
    details = usage.get("prompt_tokens_details")
    asked.cached_tokens = _count(details.get("cached_tokens")) if isinstance(details, dict) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else None


def _error_text(body: bytes) -> str:
    """The message of an error in OpenAI's shape; "" if it is in none."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError):
        return ""
