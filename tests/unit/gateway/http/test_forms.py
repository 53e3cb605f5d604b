"""Forms with files over real sockets, with scripted engines behind the gateway."""

import asyncio
import contextlib
import errno
import gzip
import json
import socket
import struct
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, Any

import openai
import pytest

from gateway.core.outcome import Ending
from geniehive.kit.http1 import Measured, Timeouts
from geniehive.rules.model import Resource
from geniehive.rules.operations import Operation
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.builders import endpoint, route, served, upstream
from tests.unit.gateway.http.gateways import SECRET, Gateway, stream_head, stream_piece

PATH = "/v1/audio/transcriptions"
TYPE = "multipart/form-data; boundary=b0undary"
DEAD = "http://127.0.0.1:1"
RESET = struct.pack("ii", 1, 0)
# More than is held in memory.
SOUND = b"\r\n--b0undar\x00\xff" * 40_000
OPERATIONS = (Operation.TRANSCRIPTION, Operation.TRANSLATION, Operation.IMAGES)


def serving(model: str, upstream_name: str = "", runtime: str = "vllm", **urls: str) -> tuple[Resource, ...]:
    """As `served`, for what forms ask."""
    name = upstream_name or model
    made = [route(model, *(f"{host}/e/{name}" for host in urls), operations=OPERATIONS)]
    for host, url in urls.items():
        made += [upstream(f"{host}/e", url, runtime=runtime), endpoint(f"{host}/e", model, name)]
    return tuple(made)


def part(name: str, value: bytes, filename: str = "") -> bytes:
    more = f'; filename="{filename}"\r\nContent-Type: audio/wav' if filename else ""
    return f'--b0undary\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b0undary--\r\n"


def model_first(model: bytes = b"m", sound: bytes = SOUND) -> bytes:
    return form(part("model", model), part("file", sound, "a.wav"), part("x-unknown", b"1"))


def model_last(model: bytes = b"m", sound: bytes = SOUND) -> bytes:
    return form(part("file", sound, "a.wav"), part("x-unknown", b"1"), part("model", model))


SMALL = [model_first(sound=b"x"), model_last(sound=b"x")]
LARGE = [model_first(), model_last()]


class Engine(RawServer):
    """Records requests, and answers each as told."""

    def __init__(self, answer: bytes = b'{"text":"hello"}', status: bytes = b"200 OK", kind: bytes = b"") -> None:
        super().__init__(self._script_of)
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self._told = answer, status, b"Content-Type: %b\r\n" % (kind or b"application/json")

    async def _script_of(self, peer: Peer) -> None:
        while True:
            head, body = await peer.request()
            self.heads.append(head)
            self.bodies.append(body)
            await peer.answer(*self._told)

    @property
    def url(self) -> str:
        return str(self.origin)


async def pieces(body: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


def head(length: int | None, more: str = "", path: str = PATH) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {SECRET}\r\nContent-Type: {TYPE}\r\n{more}{framing}\r\n\r\n"
    ).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def said(body: bytes) -> dict[str, Any]:
    error = json.loads(body)["error"]
    assert isinstance(error, dict)
    return error


class Files:
    """Every temporary file that was made."""

    def __init__(self) -> None:
        self.made: list[IO[bytes]] = []

    @property
    def all_closed(self) -> bool:
        return all(file.closed for file in self.made)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    found = Files()
    make = tempfile.TemporaryFile

    def recorded(*args: Any, **more: Any) -> IO[bytes]:
        file: IO[bytes] = make(*args, **more)
        found.made.append(file)
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", recorded)
    yield found
    assert found.all_closed


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("body", [*SMALL, *LARGE])
async def test_a_form_goes_through_byte_for_byte(body: bytes, chunked: bool, files: Files) -> None:
    async with Engine() as engine, Gateway(*serving("m", a=engine.url)) as gateway:
        sent = pieces(body) if chunked else body
        answer = await gateway.ask("POST", PATH, sent, content_type=TYPE)
        assert (answer.status, answer.body) == (200, b'{"text":"hello"}')
        assert engine.bodies == [body]
        assert f"\r\ncontent-type: {TYPE}\r\n".encode() in engine.heads[0].lower().replace(b"b0undary", b"b0undary")
        # Not every engine takes chunks: a length is told wherever it is known.
        told = b"Content-Length: %d\r\n" % len(body) in engine.heads[0]
        assert told is not (chunked and body == model_first())
    assert len(files.made) == (body == model_last())


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("make", [model_first, model_last])
@pytest.mark.parametrize("sound", [b"x", SOUND])
async def test_only_the_models_name_is_replaced(make: Callable[..., bytes], sound: bytes, chunked: bool) -> None:
    async with Engine() as engine, Gateway(*serving("m", "org/real", a=engine.url)) as gateway:
        body = make(sound=sound)
        assert (await gateway.ask("POST", PATH, pieces(body) if chunked else body, content_type=TYPE)).status == 200
        assert engine.bodies == [make(b"org/real", sound)]


@pytest.mark.parametrize("make", [model_first, model_last])
@pytest.mark.parametrize("sound", [b"x", SOUND])
async def test_engines_that_want_model_name_get_it(make: Callable[..., bytes], sound: bytes) -> None:
    async with Engine() as engine, Gateway(*serving("m", "real", runtime="openai", a=engine.url)) as gateway:
        assert (await gateway.ask("POST", PATH, make(sound=sound), content_type=TYPE)).status == 200
        both = part("model", b"real") + part("model_name", b"real")
        assert engine.bodies == [make(b"real", sound).replace(part("model", b"real"), both)]


async def test_a_model_name_behind_what_was_sent_is_refused() -> None:
    async with Engine() as engine, Gateway(*serving("m", runtime="openai", a=engine.url)) as gateway:
        body = form(part("model", b"m"), part("file", SOUND, "a.wav"), part("model_name", b"other"))
        answer = await gateway.ask("POST", PATH, body, content_type=TYPE)
        assert (answer.status, said(answer.body)["param"]) == (400, "model_name")
        assert not engine.bodies
        # In a small form it is replaced.
        body = form(part("model", b"m"), part("file", b"x", "a.wav"), part("model_name", b"other"))
        assert (await gateway.ask("POST", PATH, body, content_type=TYPE)).status == 200
        assert engine.bodies == [body.replace(b"other", b"m")]


async def test_hosted_providers_get_no_field_of_ours() -> None:
    async with Engine() as engine:
        resources = [
            route("m", "a/e/m", operations=OPERATIONS),
            upstream("a/e", engine.url, runtime="openai", hosted=True),
            endpoint("a/e", "m"),
        ]
        async with Gateway(*resources) as gateway:
            assert (await gateway.ask("POST", PATH, SMALL[0], content_type=TYPE)).status == 200
            assert engine.bodies == [SMALL[0]]


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (b"text/plain; charset=utf-8", b"1\n00:00:00,000 --> 00:00:01,000\nHi\xc3\xa9\n\n"),
        (b"text/vtt", b"WEBVTT\n\n00:00.000 --> 00:01.000\nHi\n"),
        (b"application/json", b'{"task":"transcribe","segments":[]}'),
    ],
)
async def test_all_formats_of_answers_pass(kind: bytes, answer: bytes) -> None:
    async with Engine(answer, kind=kind) as engine, Gateway(*serving("m", a=engine.url)) as gateway:
        for body in (*SMALL, *LARGE):
            got = await gateway.ask("POST", PATH, body, content_type=TYPE)
            assert (got.status, got.body) == (200, answer)
            assert got.headers["Content-Type" if "Content-Type" in got.headers else "content-type"] == kind.decode()


async def test_events_pass_as_they_come() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await stream_head(peer)
        await stream_piece(peer, b'data: {"type":"transcript.text.delta"}\n\n')
        await go_on.wait()
        await stream_piece(peer, b"data: [DONE]\n\n")
        await stream_piece(peer, b"")

    async with (
        RawServer(script) as engine,
        Gateway(*serving("m", a=str(engine.origin))) as gateway,
        await gateway.open("POST", PATH, LARGE[0], content_type=TYPE) as response,
    ):
        assert await response.chunk() == b'data: {"type":"transcript.text.delta"}\n\n'
        go_on.set()
        assert await response.read() == b"data: [DONE]\n\n"


# Retries.


@pytest.mark.parametrize("body", [*SMALL, LARGE[1]])
@pytest.mark.parametrize("status", [b"502 Bad Gateway", b"503 Service Unavailable"])
async def test_what_is_here_in_whole_is_sent_again(body: bytes, status: bytes, files: Files) -> None:
    async with (
        Engine(b"{}", status) as bad,
        Engine() as good,
        Gateway(*serving("m", a=bad.url, b=good.url)) as gateway,
    ):
        for _ in range(4):
            answer = await gateway.ask("POST", PATH, body, content_type=TYPE)
            assert answer.status == 200
        assert set(bad.bodies) == set(good.bodies) == {body}


async def test_what_streams_is_not_sent_again() -> None:
    async with (
        Engine(b'{"error":{"message":"no"}}', b"503 Service Unavailable") as bad,
        Engine(b'{"error":{"message":"no"}}', b"503 Service Unavailable") as worse,
        Gateway(*serving("m", a=bad.url, b=worse.url)) as gateway,
    ):
        answer = await gateway.ask("POST", PATH, LARGE[0], content_type=TYPE)
        assert answer.status == 503
        assert len(bad.bodies) + len(worse.bodies) == 1
        assert answer.headers["x-geniehive-attempts"] == "1"


async def test_what_streams_goes_elsewhere_if_nobody_takes_the_connection() -> None:
    async with Engine() as engine, Gateway(*serving("m", a=DEAD, b=engine.url)) as gateway:
        for _ in range(3):
            assert (await gateway.ask("POST", PATH, LARGE[0], content_type=TYPE)).status == 200
        assert engine.bodies == [LARGE[0]] * 3


async def test_an_engine_that_resets_in_the_middle_of_a_stream() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.reader.readexactly(300_000)
        peer.reset()

    async with (
        RawServer(script) as one,
        RawServer(script) as two,
        Gateway(*serving("m", a=str(one.origin), b=str(two.origin))) as gateway,
    ):
        answer = await gateway.ask("POST", PATH, LARGE[0], content_type=TYPE)
        assert (answer.status, said(answer.body)["code"]) == (502, "upstream_failed")
        assert one.connections + two.connections == 1


async def test_an_early_answer_ends_the_upload_and_reaches_the_client() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b'{"error":{"message":"too long"}}', b"413 Content Too Large")
        await peer.gone()

    async with (
        RawServer(script) as engine,
        Gateway(*serving("m", a=str(engine.origin))) as gateway,
        gateway.connect() as (reader, writer),
    ):
        body = model_first(sound=bytes(4 << 20))
        writer.write(head(len(body)) + body[: 1 << 20])
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer
        (outcome,) = await gateway.ended()
        assert (outcome.ending, outcome.status) == (Ending.REFUSED, 413)
        assert [failed.kind for failed in outcome.failed] == ["refused"]


async def test_an_early_answer_is_the_engines_though_the_client_sends_on() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b'{"error":{"message":"too long"}}', b"413 Content Too Large")
        await peer.gone()

    async with RawServer(script) as engine, Gateway(*serving("m", a=str(engine.origin))) as gateway:
        async with gateway.connect() as (reader, writer):
            body = model_first(sound=bytes(8 << 20))
            writer.write(head(len(body)) + body[: 1 << 20])
            sending = asyncio.create_task(send_on(writer, body[1 << 20 :]))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413 ")
            (outcome,) = await gateway.ended()
            sending.cancel()
            await asyncio.wait([sending])
        assert (outcome.ending, outcome.status) == (Ending.REFUSED, 413)


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"\r\n--b0undary\r\nno header\r\n\r\n", 400),
        (b"\r\n" + part("model", b"again"), 400),
        (bytes(2 << 20), 413),
        (b"", 408),
    ],
)
async def test_what_the_gateway_refuses_in_the_middle_is_its_refusal(rest: bytes, status: int) -> None:
    """And none of a client that left, though the engine was asked and has not answered."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()

    async with (
        RawServer(script) as engine,
        Gateway(*serving("m", a=str(engine.origin)), max_upload=2 << 20, client_idle=0.3) as gateway,
        gateway.connect() as (reader, writer),
    ):
        begun = part("model", b"m") + part("file", SOUND, "a.wav")[:-2]
        writer.write(head(None) + chunk(begun))
        await until(lambda: engine.connections)
        if rest:
            writer.write(chunk(rest))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 %d " % status)
        (outcome,) = await gateway.ended()
        assert (outcome.ending, outcome.status, outcome.attempts) == (Ending.UNSERVED, status, 1)


async def send_on(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        for at in range(0, len(data), 1 << 16):
            writer.write(data[at : at + (1 << 16)])
            await writer.drain()


# What is refused.


@pytest.mark.parametrize("body", LARGE)
@pytest.mark.parametrize("chunked", [False, True])
async def test_more_than_may_be(body: bytes, chunked: bool, files: Files) -> None:
    async with Engine() as engine, Gateway(*serving("m", a=engine.url), max_upload=400_000) as gateway:
        async with gateway.connect() as (reader, writer):
            writer.write(head(None) + chunk(body) if chunked else head(len(body), "Expect: 100-continue\r\n"))
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"max_upload_bytes" in await reader.readuntil(b"}")
        assert not engine.bodies


@pytest.mark.parametrize(
    ("body", "content_type", "word"),
    [
        (SMALL[0], "multipart/form-data", "boundary"),
        (SMALL[0], "text/plain", "multipart/form-data"),
        (SMALL[0], "", "multipart/form-data"),
        (SMALL[0], "multipart/form-data; boundary=other", "no parts"),
        (b"", TYPE, "no body"),
        (form(part("file", b"x", "a.wav")), TYPE, "missing"),
        (form(part("file", SOUND, "a.wav")), TYPE, "missing"),
        (form(part("model", b"m"), part("model", b"n")), TYPE, "more than once"),
        (form(part("model", b"m"), part("file", SOUND, "a.wav"), part("model", b"n")), TYPE, "more than once"),
        (form(part("file", SOUND, "a.wav"), part("model", b"m"), part("model", b"n")), TYPE, "more than once"),
        (SMALL[0][:-6], TYPE, "not whole"),
        (LARGE[0][:-6], TYPE, "not whole"),
        (LARGE[1][:-6], TYPE, "not whole"),
    ],
)
async def test_forms_that_cannot_be_used(body: bytes, content_type: str, word: str, files: Files) -> None:
    async with Engine() as engine, Gateway(*serving("m", a=engine.url)) as gateway:
        answer = await gateway.ask("POST", PATH, body, content_type=content_type)
        assert answer.status == 400
        assert word in said(answer.body)["message"]
        # Not even the end of what was refused in its midst has come to the engine.
        assert not engine.bodies
        assert (await gateway.ask("POST", PATH, SMALL[0], content_type=TYPE)).status == 200


async def test_two_content_types() -> None:
    async with Gateway(*serving("m", a=DEAD)) as gateway, gateway.connect() as (reader, writer):
        writer.write(head(len(SMALL[0]), "Content-Type: multipart/form-data; boundary=x\r\n") + SMALL[0])
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")


async def test_an_unknown_model_is_told_before_the_file_has_come() -> None:
    async with Gateway(*serving("m", a=DEAD)) as gateway, gateway.connect() as (reader, writer):
        writer.write(head(50 << 20) + model_first(b"other")[:400_000])
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"connection: close" in answer


async def test_json_is_taken_where_forms_are() -> None:
    async with Engine() as engine, Gateway(*serving("m", a=engine.url)) as gateway:
        body = b'{"model":"m","url":"https://example/a.wav"}'
        assert (await gateway.ask("POST", PATH, body, content_type="application/json")).status == 200
        assert engine.bodies == [body]


async def test_a_compressed_form() -> None:
    async with Engine() as engine, Gateway(*serving("m", a=engine.url)) as gateway:
        for body in (*SMALL, *LARGE):
            packed = gzip.compress(body)
            answer = await gateway.ask("POST", PATH, packed, content_type=TYPE, content_encoding="gzip")
            assert answer.status == 200
            assert engine.bodies.pop() == body


# Clients.


@pytest.mark.parametrize("body", [*SMALL, *LARGE])
async def test_expect_continue_and_another_request_on_the_connection(body: bytes) -> None:
    async with (
        Engine() as engine,
        Gateway(*serving("m", a=engine.url)) as gateway,
        gateway.connect() as (reader, writer),
    ):
        for _ in range(2):
            writer.write(head(len(body), "Expect: 100-continue\r\n"))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readexactly(len(b'{"text":"hello"}'))
        assert engine.bodies == [body] * 2


@pytest.mark.parametrize("body", [*SMALL, *LARGE])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_that_stalls(body: bytes, chunked: bool, files: Files) -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await peer.head()
            await peer.gone()
        gone.set()

    async with RawServer(script) as engine, Gateway(*serving("m", a=str(engine.origin)), client_idle=0.1) as gateway:
        async with gateway.connect() as (reader, writer):
            begin = body[:-10]
            writer.write(head(None) + chunk(begin) if chunked else head(len(body)) + begin)
            assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
            if engine.connections:
                async with asyncio.timeout(5):
                    await gone.wait()
        assert engine.connections == (body == LARGE[0] or (chunked and body == SMALL[0]))


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("body", [*SMALL, *LARGE])
@pytest.mark.parametrize("phase", ["uploading", "waiting"])
async def test_a_client_that_leaves(body: bytes, phase: str, reset: bool, files: Files) -> None:
    began, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        began.set()
        await peer.gone()
        gone.set()

    async with RawServer(script) as engine, Gateway(*serving("m", a=str(engine.origin))) as gateway:
        async with gateway.connect() as (_, writer):
            writer.write(head(len(body)) + (body[:-10] if phase == "uploading" else body))
            if phase == "waiting" or body == LARGE[0]:
                await began.wait()
            elif body == LARGE[1]:
                await until(lambda: files.made)
            else:
                await until(lambda: gateway.handler.open)
            if reset:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()
            else:
                writer.close()
        left = time.monotonic()
        if began.is_set():
            await gone.wait()
            assert time.monotonic() - left < 0.25
        await until(lambda: not gateway.handler.open)
        await until(lambda: files.all_closed)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_leaves_while_the_engine_takes_nothing(reset: bool) -> None:
    began, look = asyncio.Event(), asyncio.Event()
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        began.set()
        await look.wait()
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await peer.gone()
        gone.set()

    async with RawServer(script) as engine, Gateway(*serving("m", a=str(engine.origin))) as gateway:
        client = socket.create_connection((gateway.origin.host, gateway.origin.port))
        client.setblocking(False)
        body = model_first(sound=bytes(64 << 20))
        data = memoryview(head(len(body)) + body)
        taken = 0
        quiet = 0
        while quiet < 20:
            try:
                taken += client.send(data[taken : taken + 65536])
                quiet = 0
            except BlockingIOError:
                quiet += 1
                await asyncio.sleep(0.01)
        # What four sockets' buffers take, and not the whole.
        assert taken < 40 << 20
        await began.wait()
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
        if not reset:
            # What it has sent fills all buffers, and its end is behind that: let a little of it go.
            look.set()
        await until(lambda: not gateway.handler.open, 5.0)
        look.set()
        async with asyncio.timeout(5):
            await gone.wait()


async def test_an_end_behind_what_is_not_read_is_noticed() -> None:
    """The engine takes nothing, and the client has sent a little more than was passed on."""

    async def script(peer: Peer) -> None:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with RawServer(script) as engine, Gateway(*serving("m", a=str(engine.origin))) as gateway:
        client = socket.create_connection((gateway.origin.host, gateway.origin.port))
        client.setblocking(False)
        body = model_first(sound=bytes(64 << 20))
        data = memoryview(head(len(body)) + body)
        taken = 0
        # Until the gateway reads no further.
        while not any(c._reading_paused for c in gateway.handler.open):
            with contextlib.suppress(BlockingIOError):
                taken += client.send(data[taken : taken + 16384])
            await asyncio.sleep(0)
        client.close()
        await until(lambda: not gateway.handler.open, 0.25)


# The disk.


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_folder_that_is_not_there(chunked: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = str(tmp_path / "gone")
    async with Engine() as engine, Gateway(*serving("m", a=engine.url), upload_dir=folder) as gateway:
        body = pieces(LARGE[1]) if chunked else LARGE[1]
        answer = await gateway.ask("POST", PATH, body, content_type=TYPE)
        assert (answer.status, said(answer.body)["code"]) == (507, "no_room")
        assert "before the file" in said(answer.body)["message"]
        assert folder not in answer.body.decode()
        assert folder in caplog.text
        # All that needs no disk goes on.
        for other in (*SMALL, LARGE[0]):
            assert (await gateway.ask("POST", PATH, other, content_type=TYPE)).status == 200


class _Full:
    """A file that takes so many bytes."""

    def __init__(self, file: IO[bytes], room: int) -> None:
        self._file = file
        self._room = room

    def write(self, data: memoryview) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self._file.write(data[: self._room])
        self._room -= taken
        return taken

    def close(self) -> None:
        self._file.close()


async def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch, files: Files) -> None:
    make = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **more: _Full(make(**more), 300_000))
    async with Engine() as engine, Gateway(*serving("m", a=engine.url)) as gateway:
        answer = await gateway.ask("POST", PATH, LARGE[1], content_type=TYPE)
        assert (answer.status, said(answer.body)["code"]) == (507, "no_room")
        assert not engine.bodies
    assert len(files.made) == 1


async def test_a_disk_that_hangs_holds_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, go_on = threading.Event(), threading.Event()
    make = tempfile.TemporaryFile

    def hang(**more: Any) -> IO[bytes]:
        hangs.set()
        go_on.wait(10)
        return make(**more)

    monkeypatch.setattr(tempfile, "TemporaryFile", hang)
    async with Engine() as engine, Gateway(*serving("m", a=engine.url), *served("c", h=engine.url)) as gateway:
        held = asyncio.create_task(gateway.ask("POST", PATH, LARGE[1], content_type=TYPE))
        try:
            await until(hangs.is_set)
            assert (await gateway.chat(b'{"model":"c"}')).status == 200
            assert (await gateway.ask("POST", PATH, LARGE[0], content_type=TYPE)).status == 200
            # A client that leaves meanwhile is let go at once, and its file closed once there is one.
            async with gateway.connect() as (_, writer):
                writer.write(head(len(LARGE[1])) + LARGE[1])
                await until(lambda: len(gateway.handler.open) == 2)
            await until(lambda: len(gateway.handler.open) == 1)
        finally:
            go_on.set()
        assert (await held).status == 200


class _Slow:
    """A file whose first read hangs."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.reads = 0
        self.hangs = False
        self.disturbed = False
        self.go_on = threading.Event()

    def seek(self, at: int) -> None:
        self.disturbed |= self.hangs
        self._file.seek(at)

    def read(self, size: int) -> bytes:
        self.reads += 1
        if self.reads == 1:
            self.hangs = True
            self.go_on.wait(10)
            self.hangs = False
        return self._file.read(size)

    def write(self, data: memoryview) -> int:
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()


async def test_a_file_is_read_by_one_at_a_time(monkeypatch: pytest.MonkeyPatch, files: Files) -> None:
    """An engine answers while the file is being read for it; the next one gets all of it all the same."""
    made: list[_Slow] = []
    make = tempfile.TemporaryFile

    def slow(**more: Any) -> _Slow:
        made.append(_Slow(make(**more)))
        return made[0]

    async def early(peer: Peer) -> None:
        await peer.head()
        await until(lambda: made[0].reads)
        await peer.answer(b"{}", b"503 Service Unavailable")
        await peer.gone()

    async def whole(peer: Peer) -> None:
        head = await peer.head()
        await asyncio.sleep(0.05)  # for a second reader, if one is let in
        made[0].go_on.set()
        body = await peer.reader.readexactly(int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]))
        await peer.answer(b"same" if body == LARGE[1] else b"other")

    monkeypatch.setattr(tempfile, "TemporaryFile", slow)
    async with (
        RawServer(early) as bad,
        RawServer(whole) as good,
        # The first in the plan is asked first.
        Gateway(*serving("m", a=str(bad.origin), b=str(good.origin))) as gateway,
    ):
        answer = await gateway.ask("POST", PATH, LARGE[1], content_type=TYPE)
        assert (answer.status, answer.body, answer.headers["x-geniehive-attempts"]) == (200, b"same", "2")
        assert not made[0].disturbed


# Real clients.


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize("size", [1000, 3 << 20])
async def test_the_openai_sdk(size: int) -> None:
    sound = bytes(range(256)) * (size // 256)
    async with (
        Engine() as engine,
        Gateway(*serving("m", "real", a=engine.url)) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=SECRET, max_retries=0) as client,
    ):
        heard = await client.audio.transcriptions.create(
            model="m", file=("é.wav", sound), timestamp_granularities=["word"]
        )
        assert heard.text == "hello"
        assert (await client.audio.translations.create(model="m", file=("a.wav", sound))).text == "hello"
        await client.images.edit(model="m", image=[("a.png", sound), ("b.png", b"2")], prompt="a cat")
        await client.images.create_variation(model="m", image=("a.png", sound))
        assert [h.split(b" ")[1] for h in engine.heads] == [
            b"/v1/audio/transcriptions", b"/v1/audio/translations", b"/v1/images/edits", b"/v1/images/variations",
        ]  # fmt: skip
        for body in engine.bodies:
            assert sound in body
            assert b'name="model"\r\n\r\nreal\r\n' in body


async def test_the_sdk_raises_what_is_right() -> None:
    async with (
        Gateway(*serving("m", a=DEAD)) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=SECRET, max_retries=0) as client,
    ):
        with pytest.raises(openai.NotFoundError):
            await client.audio.transcriptions.create(model="other", file=("a.wav", bytes(8 << 20)))
        with pytest.raises(openai.InternalServerError):
            await client.audio.transcriptions.create(model="m", file=("a.wav", bytes(8 << 20)))


async def test_a_first_byte_limit_counts_from_the_end_of_the_upload() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    limits = Timeouts(first_byte=0.2, idle=5.0)
    async with RawServer(script) as engine, Gateway(*serving("m", a=str(engine.origin)), timeouts=limits) as gateway:

        async def slowly() -> AsyncIterator[bytes]:
            body = LARGE[0]
            for at in range(0, len(body), len(body) // 4 + 1):
                yield body[at : at + len(body) // 4 + 1]
                await asyncio.sleep(0.1)

        answer = await gateway.ask("POST", PATH, Measured(slowly(), len(LARGE[0])), content_type=TYPE)
        assert answer.status == 504
