"""Large files through the processes of a cluster: whole, and not in their memory."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.daemons import Cluster
from tests.support.processes import until
from tests.support.raw_server import Peer, RawServer

MB = 1 << 20
SIZE = 25 * MB
UPLOADS = 6
# What the processes may grow by.
ROOM = 20 * MB
BOUNDARY = "----b0undary"
JSON = b"Content-Type: application/json\r\n"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what a process holds")


def head(name: str, more: str = "") -> bytes:
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()


def beginning_and_end(model_first: bool) -> tuple[bytes, bytes]:
    """What stands before and behind the file."""
    model = head("model") + b"whisper\r\n"
    file = head("file", '; filename="a.wav"')
    end = f"--{BOUNDARY}--\r\n".encode()
    return (model + file, b"\r\n" + end) if model_first else (file, b"\r\n" + model + end)


class Engine(RawServer):
    """Takes a form and answers with its digest. `pace`: seconds that it rests after each piece."""

    def __init__(self) -> None:
        super().__init__(self._serve_peer)
        self.pace = 0.0
        self.began = 0

    async def _serve_peer(self, peer: Peer) -> None:
        while True:
            asked = await peer.head()
            if asked.startswith(b"GET"):
                await peer.answer(
                    b'{"object":"list","data":[{"id":"whisper","object":"model","owned_by":"vllm"}]}', extra=JSON
                )
                continue
            assert b"Content-Length: " in asked, "a length was given, and must be passed on"
            left = int(asked.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
            self.began += 1
            digest = hashlib.sha256()
            while left:
                piece = await peer.reader.read(min(left, 64 * 1024))
                if not piece:
                    return
                left -= len(piece)
                digest.update(piece)
                if self.pace:
                    await asyncio.sleep(self.pace)
            await peer.answer(b'{"text":"%b"}' % digest.hexdigest().encode(), extra=JSON)


class Held:
    """By how much a process grew at most."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak from now on
        self._before = self._bytes("VmRSS")
        stat = Path(f"/proc/{pid}/stat")
        self._cpu = lambda: sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")
        self._cpu_before = self._cpu()

    def growth(self) -> int:
        return self._bytes("VmHWM") - self._before

    def cpu(self) -> float:
        return self._cpu() - self._cpu_before

    def _bytes(self, what: str) -> int:
        line = next(line for line in self._status.read_text().splitlines() if line.startswith(what))
        return int(line.split()[1]) * 1024


async def upload(cluster: Cluster, model_first: bool) -> None:
    before, behind = beginning_and_end(model_first)
    block = os.urandom(MB)
    digest = hashlib.sha256()

    async def body() -> AsyncIterator[bytes]:
        for piece in (before, *[block] * (SIZE // MB), behind):
            digest.update(piece)
            yield piece

    headers = {
        **cluster.headers(),
        "content-type": f"multipart/form-data; boundary={BOUNDARY}",
        "content-length": str(len(before) + SIZE + len(behind)),
    }
    url = f"{cluster.url}/v1/audio/transcriptions"
    async with cluster.http.post(url, data=body(), headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        assert (await answer.json())["text"] == digest.hexdigest()


@pytest.mark.proof
@pytest.mark.parametrize("model_first", [True, False])
@pytest.mark.parametrize("way", ["direct", "relay"])
async def test_six_files_at_once(cluster: Cluster, way: str, model_first: bool) -> None:
    async with Engine() as engine:
        await cluster.start_control()
        await cluster.start_gateway("gateway_id=box", wait=False)
        entry = {
            "name": "stt", "url": str(engine.origin), "operations": ["transcription"], "way": way,
            # It is sent no `model_name`, so that a form comes as it was sent.
            "runtime": "vllm",
        }  # fmt: skip
        node = await cluster.start_node("box", {}, settings=[entry])

        async def listed() -> bool:
            return "whisper" in await cluster.models()

        await until("the model is listed", listed)
        engine.pace = 0.002
        held = {"gateway": Held(cluster.gateway.pid), "node": Held(node.pid)}
        await asyncio.gather(*(upload(cluster, model_first) for _ in range(UPLOADS)))
        for name, process in held.items():
            grew, cpu = process.growth(), process.cpu()
            print(f"{name}: {grew / MB:.1f} MB more at most, {cpu * 1000 / (UPLOADS * SIZE / MB):.2f} ms of CPU per MB")
            assert grew < ROOM, name
        assert engine.began == UPLOADS
