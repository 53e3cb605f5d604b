"""aiohttp server, lean upstream client (lean_upstream.py), uvloop: the fastest shape that keeps aiohttp's server.
usage: bare_v2.py PORT UPSTREAM_PORT [app] [no-uvloop] [work] [reuseport] [fast]
'app' uses web.Application with its router instead of the low-level web.Server."""

import asyncio
import gc
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
from aiohttp import web
from lean_upstream import Pool
from multidict import CIMultiDict

PORT, UP = int(sys.argv[1]), int(sys.argv[2])
opt = set(sys.argv[3:])
HEAD = {
    p: f"POST {p} HTTP/1.1\r\nHost: 127.0.0.1:{UP}\r\nContent-Type: application/json\r\nContent-Length: ".encode()
    for p in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
}
WORK = "work" in opt
if WORK:
    import msgspec

    class Head(msgspec.Struct):
        model: str
        stream: bool = False

    peek = msgspec.json.Decoder(Head).decode
    TABLE = {f"model-{i}": HEAD for i in range(500)} | {"mock-model": HEAD, "mock-embed": HEAD}
    KEYS = {"sk-bench": "bench"}
    stats = {}
pool = None


class Whole(web.Response):
    """A finished answer written in one piece, without aiohttp's header building: no Date, no Server, no signals."""

    def __init__(self, status, ctype, body):
        self._data = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
            status,
            b"OK" if status == 200 else b"-",
            ctype,
            len(body),
            body,
        )
        self._status = status
        self._keep_alive = None

    async def prepare(self, request):
        tr = request.transport
        if tr is None or tr.is_closing():
            raise ConnectionResetError("client gone")
        self._keep_alive = request.keep_alive
        tr.write(self._data)

    async def write_eof(self, data=b""):
        pass


FAST = "fast" in opt


async def handle(request):
    body = await request.read()
    path = request.path
    if WORK:
        who = KEYS.get(request.headers.get("Authorization", "")[7:])
        stats[who, path] = stats.get((who, path), 0) + 1
    if request.method == "POST":
        head = TABLE[peek(body).model][path] if WORK else HEAD[path]
        data = b"%b%d\r\n\r\n%b" % (head, len(body), body)
    else:
        data = f"GET {request.path_qs} HTTP/1.1\r\nHost: 127.0.0.1:{UP}\r\n\r\n".encode()
    up = await pool.request(data)
    try:
        chunked, ctype = False, "application/json"
        for k, v in up.headers:
            k = k.lower()
            if k == b"content-type":
                ctype = v.decode("latin-1")
            elif k == b"transfer-encoding":
                chunked = True
        if not chunked and FAST:
            return Whole(up.status, ctype.encode("latin-1"), await up.read())
        if not chunked:
            return web.Response(body=await up.read(), status=up.status, headers=CIMultiDict({"Content-Type": ctype}))
        resp = web.StreamResponse(status=up.status, headers=CIMultiDict({"Content-Type": ctype}))
        await resp.prepare(request)
        while True:
            b = await up.chunk()
            if not b:
                break
            await resp.write(b)
        await resp.write_eof()
        return resp
    finally:
        up.release()


async def main():
    global pool
    pool = Pool("127.0.0.1", UP, asyncio.get_running_loop())
    if "app" in opt:
        app = web.Application(client_max_size=64 * 2**20)
        for p in HEAD:
            app.router.add_post(p, handle)
        app.router.add_route("*", "/{tail:.*}", handle)
        runner = web.AppRunner(app, access_log=None, handle_signals=True)
    else:
        runner = web.ServerRunner(web.Server(handle, access_log=None), handle_signals=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", PORT, backlog=1024, reuse_port="reuseport" in opt or None).start()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10000, 50, 100)
    await asyncio.Event().wait()


if "no-uvloop" in opt:
    asyncio.run(main())
else:
    import uvloop

    uvloop.run(main())
