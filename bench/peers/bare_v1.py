"""Bare aiohttp pass-through with the settings that matter; every one can be switched off to see what it is worth.
usage: bare_v1.py PORT UPSTREAM_PORT [no-uvloop] [access-log] [decompress] [limit100] [always-stream] [no-gcfreeze]
       [reuseport] [work] [work-orjson] [lowlevel] [parsed-headers]"""

import asyncio
import gc
import sys

import aiohttp
from aiohttp import web
from yarl import URL

PORT, UP = int(sys.argv[1]), f"http://127.0.0.1:{sys.argv[2]}"
opt = set(sys.argv[3:])
URLS = {p: URL(UP + p) for p in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/health")}
PASS = ("Content-Type", "Accept")
WORK = "work" in opt or "work-orjson" in opt
if WORK:
    import msgspec
    import orjson

    class Head(msgspec.Struct):
        model: str
        stream: bool = False

    peek = (
        msgspec.json.Decoder(Head).decode
        if "work" in opt
        else lambda b: Head(*(lambda d: (d["model"], d.get("stream", False)))(orjson.loads(b)))
    )
    TABLE = {f"model-{i}": URLS for i in range(500)} | {"mock-model": URLS, "mock-embed": URLS}
    KEYS = {"sk-bench": "bench"}
    stats = {}
client = None


async def handle(request):
    body = await request.read()
    path = request.path
    url = URLS.get(path)
    if WORK:
        if body:
            head = peek(body)
            url = TABLE[head.model][path]
        who = KEYS.get(request.headers.get("Authorization", "")[7:])
        stats[who, path] = stats.get((who, path), 0) + 1
    if "all-headers" in opt:
        headers = {
            k: v
            for k, v in request.headers.items()
            if k.lower() not in ("host", "connection", "content-length", "transfer-encoding")
        }
    else:
        headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
    async with client.request(
        request.method,
        url or UP + request.path_qs,
        data=body or None,
        headers=headers,
        skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept"),
    ) as up:
        ctype = up.headers.get("Content-Type", "application/json")
        if up.content_length is not None and "always-stream" not in opt:
            return web.Response(body=await up.read(), status=up.status, headers={"Content-Type": ctype})
        resp = web.StreamResponse(status=up.status, headers={"Content-Type": ctype})
        await resp.prepare(request)
        content = up.content
        while True:
            chunk = await content.readany()
            if not chunk:
                break
            await resp.write(chunk)
        await resp.write_eof()
        return resp


async def main():
    global client
    client = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=100 if "limit100" in opt else 0, keepalive_timeout=75, use_dns_cache=True),
        auto_decompress="decompress" in opt,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5)
        if "timeout-total" not in opt
        else aiohttp.ClientTimeout(total=300),
        read_bufsize=2**16,
    )
    if "lowlevel" in opt:
        runner = web.ServerRunner(web.Server(handle, access_log=None))
    else:
        app = web.Application(client_max_size=64 * 2**20)
        for p in URLS:
            app.router.add_route("*", p, handle)
        app.router.add_route("*", "/{tail:.*}", handle)
        kw = {} if "access-log" in opt else {"access_log": None}
        if "access-log" in opt:
            import logging

            logging.basicConfig(level=logging.INFO, filename="/dev/null")
        runner = web.AppRunner(app, handle_signals=True, **kw)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", PORT, backlog=1024, reuse_port="reuseport" in opt or None).start()
    if "no-gcfreeze" not in opt:
        gc.collect()
        gc.freeze()
        gc.set_threshold(10000, 50, 100)
    await asyncio.Event().wait()


if "no-uvloop" in opt:
    asyncio.run(main())
else:
    import uvloop

    uvloop.run(main())
