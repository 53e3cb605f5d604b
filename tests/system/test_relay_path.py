"""What a client sees, and an engine is spared, is the same by either way: direct, or by a relay with TLS."""

import asyncio
import contextlib
import json
import random
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import geniehive
from geniehive.v1 import admin_service_pb2
from geniehive.v1.credential_pb2 import PEER_KIND_GATEWAY
from tests.support.daemons import Cluster
from tests.support.processes import until
from tests.support.raw_server import Peer
from tests.support.two_ways import (
    DONE,
    EVENT,
    OWN,
    SPARED,
    STREAM,
    WAYS,
    Call,
    House,
    Loopless,
    Play,
    body_of,
    chunk,
    house_in,
)

pytestmark = pytest.mark.skipif(OWN is None, reason="this machine has no address but loopback")


@pytest.fixture(params=["uvloop", pytest.param("asyncio", marks=pytest.mark.proof)])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    async with house_in(tmp_path, Cluster if request.param == "uvloop" else Loopless) as made:
        yield made


# --- exactness


def head_of(*lines: str | bytes, status: str = "200 OK") -> bytes:
    raw = (line if isinstance(line, bytes) else line.encode() for line in lines)
    return b"\r\n".join([b"HTTP/1.1 " + status.encode(), *raw, b"", b""])


def says(data: bytes, cuts: random.Random | None = None) -> Play:
    """This answer; in pieces, cut anywhere, if there are `cuts`."""

    async def play(peer: Peer, head: bytes) -> bool:
        await body_of(peer, head)
        at = 0
        while at < len(data):
            size = len(data) if cuts is None else cuts.choice((1, 2, 3, 7, 100, 4096, 100_000))
            await peer.send(data[at : at + size])
            at += size
            if cuts is not None:
                await asyncio.sleep(0 if cuts.random() < 0.9 else 0.001)
        return True

    return play


def chunked(data: bytes, cuts: random.Random) -> bytes:
    pieces = []
    while data:
        size = cuts.choice((1, 5, 60, 1000, 70_000))
        pieces.append(chunk(data[:size]))
        data = data[size:]
    return b"".join(pieces) + b"0\r\n\r\n"


async def test_an_answer_is_the_same_by_either_way(house: House) -> None:
    await house.start()
    cuts = random.Random(7)
    text = 'data: {"choices": [{"delta": {"content": "Grüße 世界 🐝"}}]}\r\n\r\n: ping\n\n'.encode() * 300
    text += DONE
    large = random.Random(3).randbytes(20_000_000)
    events = head_of("content-type: text/event-stream", "transfer-encoding: chunked")
    answers = {
        "events, cut anywhere": events + chunked(text, cuts),
        "events, a byte a chunk": events
        + b"".join(chunk(b"%c" % byte) for byte in text[:400] + b"\n\n" + DONE)
        + b"0\r\n\r\n",
        "chunked, empty": head_of("Transfer-Encoding: chunked") + b"0\r\n\r\n",
        "chunked, no stream": head_of("Content-Type: a/b", "Transfer-Encoding: chunked") + chunked(text, cuts),
        "with trailers": head_of("Transfer-Encoding: chunked") + b"2\r\nhi\r\n0\r\nX-Later: 1\r\n\r\n",
        "by length, empty": head_of("Content-Length: 0"),
        "by length, 20 MB": head_of(f"Content-Length: {len(large)}", "Content-Type: audio/wav") + large,
        "chunked, 20 MB": head_of("Transfer-Encoding: chunked") + chunked(large, cuts),
        "no content": head_of(status="204 No Content"),
        "odd headers": head_of("CONTENT-LENGTH:2", "x-ODD-case:  A b ", "X-Twice: 1", "x-twice: 2", "X-Empty:") + b"{}",
        "bytes in a header": head_of("Content-Length: 2", b"X-Raw: caf\xe9 \xff", "X-Text: Grüße") + b"{}",
        "named by Connection": head_of("Content-Length: 2", "Connection: keep-alive, X-Hop", "X-Hop: 1") + b"{}",
        "interim": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + head_of("Content-Length: 2") + b"{}",
        "odd status": head_of("Content-Length: 2", status="299 Fine") + b"{}",
        "created": head_of("Content-Length: 2", "Location: /x", status="201 Created") + b"{}",
        "encoded": head_of("Content-Length: 2", "Content-Encoding: gzip", "Vary: Accept-Encoding") + b"\x1f\x8b",
        "an error": head_of("Content-Length: 23", "Retry-After: 3", status="429 Slow") + b'{"error":{"message":1}}',
        "an error without words": head_of("Content-Length: 0", status="418 Pot"),
        "an odd error": head_of("Transfer-Encoding: chunked", status="400 No") + chunk(b"<html>") + b"0\r\n\r\n",
    }
    seen: dict[str, dict[str, Any]] = {}
    for name, data in answers.items():
        for way in WAYS:
            house.engine.play = says(data, None if "20 MB" in name else random.Random(1))
            seen.setdefault(name, {})[way] = (await (await house.call(way)).answer(60.0)).compared
    different = {name: found for name, found in seen.items() if found["direct"] != found["relayed"]}
    assert {n: {w: (a[0], a[1], a[2][:100], a[3]) for w, a in found.items()} for n, found in different.items()} == {}
    assert seen["events, cut anywhere"]["relayed"][2] == text
    assert seen["by length, 20 MB"]["relayed"][2] == large
    assert all(found["relayed"][3] for found in seen.values())


async def test_a_question_is_the_same_by_either_way(house: House) -> None:
    await house.start()
    asked: list[tuple[bytes, bytes]] = []

    async def play(peer: Peer, head: bytes) -> bool:
        asked.append((head, await body_of(peer, head)))
        await peer.answer(b"{}")
        return True

    house.engine.play = play
    headers = (
        b"X-Raw: caf\xe9 \xff\r\nx-TWICE: 1\r\nX-Twice: 2\r\nX-Empty:\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\n"
        b"User-Agent: a\r\nAccept: */*\r\nX-Request-Id: r1\r\nContent-Type: application/json\r\nX-Api-Key: k\r\n"
        b"OpenAI-Beta: x\r\nCookie: a=b\r\nTE: trailers\r\nForwarded: for=x\r\nExpect: 100-continue\r\n"
    )
    for padding in (0, 1, 100_000, 3_000_000, 50_000_000):
        for way in WAYS:
            answer = await (await house.call(way, padding, headers)).answer(60.0) if not padding else None
            answer = answer or await (await house.call(way, padding)).answer(60.0)
            assert answer.status in (100, 200), answer
    while asked:
        (direct, body), (relayed, other) = asked.pop(0), asked.pop(0)
        assert body == other or body.replace(b"direct", b"relayed") == other
        unframed = [
            sorted(line for line in head.split(b"\r\n")[1:] if line and not NOT_SENT_ALIKE.match(line.lower()))
            for head in (direct, relayed)
        ]
        assert unframed[0] == unframed[1]


# The framing, and the names that follow the host.
NOT_SENT_ALIKE = re.compile(rb"(host|content-length|transfer-encoding|x-request-id: req-)")


# --- ends


def after(*steps: bytes | float, end: str = "fin") -> Play:
    """Sends and pauses, and then closes, or resets."""

    async def play(peer: Peer, head: bytes) -> bool:
        await body_of(peer, head)
        for step in steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                await peer.send(step)
        if end == "reset":
            peer.reset()
        return False

    return play


async def hangs(peer: Peer, head: bytes) -> bool:
    await body_of(peer, head)
    await peer.gone()
    return False


def then_hangs(*steps: bytes) -> Play:
    async def play(peer: Peer, head: bytes) -> bool:
        await body_of(peer, head)
        for step in steps:
            await peer.send(step)
        await peer.gone()
        return False

    return play


async def drips(peer: Peer, head: bytes) -> bool:
    await body_of(peer, head)
    await peer.send(STREAM)
    with contextlib.suppress(ConnectionError):
        while True:
            await peer.send(chunk(EVENT))
            await asyncio.sleep(0.1)
    return False


async def test_what_goes_wrong_ends_alike(house: House) -> None:
    await house.start("timeouts.first_byte=0.6", "timeouts.idle=0.4", "timeouts.total=1.5")
    by_length = head_of("Content-Length: 1000", "Content-Type: application/json")
    by_chunks = head_of("Transfer-Encoding: chunked", "Content-Type: application/json")
    by_end = b"HTTP/1.0 200 OK\r\nContent-Type: a/b\r\n\r\n"
    long = head_of("Content-Length: 3000000", "Content-Type: a/b")
    plays = {
        "no word": after(),
        "reset without a word": after(end="reset"),
        "half a head": after(b"HTTP/1.1 200 OK\r\nContent-"),
        "no HTTP": after(b"what?\r\n\r\n"),
        "a head alone": after(by_length),
        "short": after(by_length, b"{"),
        "short, later": after(by_length, 0.1, b"{", 0.1),
        "short and long": after(long, b"x" * 2_000_000),
        "short, reset": after(by_length, b"{", 0.1, end="reset"),
        "chunks that end": after(by_chunks, chunk(b"{")),
        "a chunk that ends": after(by_chunks, b"10\r\n{"),
        "chunks that are none": after(by_chunks, chunk(b"{"), 0.1, b"zz\r\n"),
        "by the end of the connection": after(by_end, b"all"),
        "by the end of the connection, reset": after(by_end, b"all", 0.1, end="reset"),
        "events that end": after(STREAM, chunk(EVENT), chunk(EVENT), chunk(b"data: {")),
        "events that end, later": after(STREAM, 0.1, chunk(EVENT), 0.1, chunk(EVENT), 0.1),
        "events, reset": after(STREAM, chunk(EVENT), 0.1, end="reset"),
        "first byte too late": hangs,
        "head too late": then_hangs(b"HTTP/1.1 200 OK\r\n"),
        "body too late": then_hangs(by_length),
        "body too late, chunked": then_hangs(by_chunks),
        "idle in a body": then_hangs(by_length, b"{"),
        "idle in a long body": then_hangs(long, b"x" * 100_000),
        "idle in events": then_hangs(STREAM, chunk(EVENT)),
        "idle before events": then_hangs(STREAM),
        "total": drips,
    }
    seen: dict[str, dict[str, Any]] = {}
    for name, play in plays.items():
        for way in WAYS:
            house.engine.play = play
            began = time.monotonic()
            try:
                status, _, body, whole = (await (await house.call(way)).answer()).compared
            except (asyncio.IncompleteReadError, ConnectionError):
                status, body, whole = 0, b"", False
            took = time.monotonic() - began
            if name == "total":
                body = b""
            seen.setdefault(name, {})[way] = (status, whole, told(body), round(took, 2), body[:300])
    wrong = {}
    for name, found in seen.items():
        direct, relayed = found["direct"], found["relayed"]
        if direct[:3] != relayed[:3] or abs(direct[3] - relayed[3]) > 0.25:
            wrong[name] = found
    assert wrong == {}
    for name in ("short", "chunks that end", "events that end", "events, reset", "short and long"):
        status, whole, said, *_ = seen[name]["relayed"]
        assert status != 200 or not whole or "error" in said, (name, seen[name])


def told(body: bytes) -> Any:
    """What matters of an answer: the events, and of errors their kind."""
    text = body.decode(errors="replace")
    if '"error"' not in text:
        return text if len(text) < 1000 else len(text)
    begun, _, error = text.rpartition('{"error"')
    return begun, "error", json.loads('{"error"' + error.strip().removesuffix("data: [DONE]").strip())["error"]["code"]


# --- numbers, and daemons that go


async def test_two_hundred_streams_at_once(house: House) -> None:
    await house.start()
    go = asyncio.Event()
    waiting = 0

    async def counts(peer: Peer, head: bytes) -> bool:
        nonlocal waiting
        body = json.loads(await body_of(peer, head))
        await peer.send(STREAM + chunk(EVENT))
        waiting += 1
        await go.wait()
        for number in range(50):
            await peer.send(chunk(b"data: %d %d\n\n" % (body["seed"], number)))
            await asyncio.sleep(0)
        await peer.send(chunk(DONE) + b"0\r\n\r\n")
        return True

    house.engine.play = counts
    calls = [await house.call("relayed", stream=True, seed=n) for n in range(200)]

    async def all_there() -> bool:
        return waiting == 200

    await until("200 streams", all_there, 20.0)
    go.set()
    answers = await asyncio.gather(*(call.answer(30.0) for call in calls))
    for number, answer in enumerate(answers):
        assert answer.whole
        assert answer.body == EVENT + b"".join(b"data: %d %d\n\n" % (number, n) for n in range(50)) + DONE


async def opened(house: House, way: str, go: asyncio.Event, stream: bool = True) -> tuple[Call, asyncio.Event]:
    """A call whose first event is there, or which waits for its answer; the rest comes when `go` says so."""
    gone, asked = asyncio.Event(), asyncio.Event()

    async def play(peer: Peer, head: bytes) -> bool:
        await body_of(peer, head)
        if stream:
            await peer.send(STREAM + chunk(EVENT))
        asked.set()
        leaving = asyncio.create_task(peer.gone())
        going = asyncio.create_task(go.wait())
        await asyncio.wait([leaving, going], return_when=asyncio.FIRST_COMPLETED)
        if going.done():
            leaving.cancel()
            await asyncio.wait([leaving])
            if stream:
                await peer.send(chunk(DONE) + b"0\r\n\r\n")
            else:
                await peer.answer(b"{}")
        else:
            gone.set()
            going.cancel()
        return False

    house.engine.play = play
    call = await house.call(way, stream=stream)
    async with asyncio.timeout(10):
        await asked.wait()
    if stream:
        await call.begin()
    return call, gone


async def test_a_killed_node_takes_its_streams_along_and_says_so(house: House) -> None:
    await house.start()
    call, gone = await opened(house, "relayed", asyncio.Event())
    house.cluster.nodes["relayed"].kill()
    began = time.monotonic()
    answer = await call.answer()
    assert time.monotonic() - began < 1.0
    assert b'"error"' in answer.body
    async with asyncio.timeout(1):
        await gone.wait()


async def test_a_killed_gateway_lets_the_engine_go(house: House) -> None:
    await house.start()
    for way in WAYS:
        call, gone = await opened(house, way, asyncio.Event())
        house.cluster.gateway.kill()
        async with asyncio.timeout(SPARED):
            await gone.wait()
        call.leave()
        await house.cluster.gateway.restart()
        await house.cluster.gateway.notice("ready")
        await house.serves()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_node_that_is_stopped_lets_its_calls_end(house: House, stream: bool) -> None:
    await house.start()
    go = asyncio.Event()
    call, _ = await opened(house, "relayed", go, stream)
    node = house.cluster.nodes["relayed"]
    node.signal(signal.SIGTERM)
    await asyncio.sleep(1.0)
    assert node.running, node.text()
    go.set()
    answer = await call.answer()
    assert answer.status == 200, answer
    assert answer.whole
    assert answer.body == (DONE if stream else b"{}"), answer.body
    assert await node.ended() == 0


async def test_a_gateway_whose_certificate_is_revoked_is_cut_off_at_once(house: House) -> None:
    await house.start()
    call, gone = await opened(house, "relayed", asyncio.Event())
    async with geniehive.connect(house.cluster.control_address, key=house.cluster.admin_key) as hive:
        request = admin_service_pb2.RevokeCredentialRequest(kind=PEER_KIND_GATEWAY, peer_id="direct")
        await hive.admin.RevokeCredential(request)
    async with asyncio.timeout(1):
        await gone.wait()
    answer = await call.answer()
    assert b'"error"' in answer.body


async def test_certificates_renewed_in_the_middle_of_a_stream_harm_it_not(house: House) -> None:
    # Renewed after a third of their lives, which are nine seconds.
    await house.start(control="tls.certificate_days=0.0001")
    kept = [
        house.cluster.state / "tls" / "gateway.pem",
        house.cluster.folder / "state-relayed" / "tls" / "node.pem",
    ]
    go = asyncio.Event()
    call, _ = await opened(house, "relayed", go)
    before = [path.read_bytes() for path in kept]

    async def renewed() -> bool:
        return all(path.read_bytes() != old for path, old in zip(kept, before, strict=True))

    await until("both have new certificates", renewed, 15.0)
    house.engine.play = house.engine.well
    assert await house._answers("relayed")
    go.set()
    answer = await call.answer()
    assert (answer.status, answer.whole, answer.body) == (200, True, DONE)
    for process in house.daemons:
        assert "lost control" not in process.text()
