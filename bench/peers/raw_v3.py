"""No aiohttp: httptools + asyncio.Protocol on both sides, uvloop. The limit of one Python process; not a product.
usage: raw_v3.py PORT UPSTREAM_PORT"""

import asyncio
import gc
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
import httptools
import uvloop
from lean_upstream import Pool

PORT, UP = int(sys.argv[1]), int(sys.argv[2])
pool = None


class Server(asyncio.Protocol):
    def connection_made(self, tr):
        self.tr, self.queue, self.task = tr, [], None
        self.parser = httptools.HttpRequestParser(self)
        self.can_write = asyncio.Event()
        self.can_write.set()

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_message_begin(self):
        self.body, self.ctype = [], b"application/json"

    def on_url(self, url):
        self.url = url

    def on_header(self, k, v):
        if k.lower() == b"content-type":
            self.ctype = v

    def on_body(self, b):
        self.body.append(b)

    def on_message_complete(self):
        self.queue.append((self.parser.get_method(), self.url, self.ctype, b"".join(self.body)))
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self.serve())

    def pause_writing(self):
        self.can_write.clear()

    def resume_writing(self):
        self.can_write.set()

    def connection_lost(self, exc):
        self.can_write.set()
        if self.task:
            self.task.cancel()

    async def serve(self):
        try:
            while self.queue:
                m, url, ctype, body = self.queue.pop(0)
                up = await pool.request(
                    b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
                    % (m, url, ctype, len(body), body)
                )
                try:
                    chunked, ct = False, b"application/json"
                    for k, v in up.headers:
                        k = k.lower()
                        if k == b"content-type":
                            ct = v
                        elif k == b"transfer-encoding":
                            chunked = True
                    if not chunked:
                        b = await up.read()
                        self.tr.write(
                            b"HTTP/1.1 %d OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
                            % (up.status, ct, len(b), b)
                        )
                        continue
                    head = b"HTTP/1.1 %d OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % (up.status, ct)
                    while True:
                        b = await up.chunk()
                        if not b:
                            break
                        self.tr.write(b"%b%x\r\n%b\r\n%b" % (head, len(b), b, b"0\r\n\r\n" if up.done else b""))
                        head = b""
                        if up.done and not up.buf:
                            break
                        if not self.can_write.is_set():
                            await self.can_write.wait()
                finally:
                    up.release()
        finally:
            self.task = None


async def main():
    global pool
    loop = asyncio.get_running_loop()
    pool = Pool("127.0.0.1", UP, loop)
    await loop.create_server(Server, "127.0.0.1", PORT, backlog=1024)
    gc.collect()
    gc.freeze()
    gc.set_threshold(10000, 50, 100)
    await asyncio.Event().wait()


uvloop.run(main())
