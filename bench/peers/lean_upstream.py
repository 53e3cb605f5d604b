"""A lean HTTP/1.1 upstream client for a proxy: asyncio.Protocol + httptools, keep-alive pool per (host, port).
One task switch per non-streamed answer; chunks that arrive in one read leave in one piece; back-pressure both ways;
a request is sent again once only when a kept connection was closed before any byte of an answer."""

import asyncio
from collections import deque

import httptools

HIGH = 1 << 20  # bytes buffered from an upstream before its reading is paused


class UpstreamClosed(ConnectionError):
    pass


class Conn(asyncio.Protocol):
    __slots__ = (
        "buf",
        "done",
        "exc",
        "head_done",
        "headers",
        "keep",
        "loop",
        "parser",
        "paused",
        "pool",
        "size",
        "status",
        "tr",
        "used",
        "waiter",
    )

    def __init__(self, pool):
        self.pool, self.loop, self.tr, self.used, self.paused = pool, pool.loop, None, False, False
        self.exc = self.waiter = None
        self.done = True

    def connection_made(self, tr):
        self.tr = tr

    def start(self, data):
        self.parser = httptools.HttpResponseParser(self)
        self.headers, self.buf, self.size = [], [], 0
        self.done = self.head_done = False
        self.status = 0
        self.tr.write(data)

    def data_received(self, data):
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as e:
            self.exc = UpstreamClosed(str(e))
            self.tr.abort()
        w = self.waiter
        if w is not None and (self.head_done or self.exc):
            self.waiter = None
            if not w.done():
                w.set_result(None)

    def on_header(self, k, v):
        self.headers.append((k, v))

    def on_headers_complete(self):
        self.status = self.parser.get_status_code()
        self.head_done = self.status != 100
        if not self.head_done:
            self.headers = []

    def on_body(self, b):
        self.buf.append(b)
        self.size += len(b)
        if self.size > HIGH and not self.paused:
            self.paused = True
            self.tr.pause_reading()

    def on_message_complete(self):
        if self.head_done:
            self.done = True
            self.keep = self.parser.should_keep_alive()

    def connection_lost(self, exc):
        self.tr = None
        if not self.done:
            self.exc = self.exc or UpstreamClosed("upstream closed the connection")
        w, self.waiter = self.waiter, None
        if w is not None and not w.done():
            w.set_result(None)
        self.pool.lost(self)

    async def wait(self):
        self.waiter = self.loop.create_future()
        await self.waiter
        if self.exc and not self.head_done:
            raise self.exc

    def take(self):
        b = self.buf
        out = b[0] if len(b) == 1 else b"".join(b)
        self.buf, self.size = [], 0
        if self.paused and self.tr:
            self.paused = False
            self.tr.resume_reading()
        return out

    async def read(self):  # whole body
        while not self.done:
            await self.wait()
            if self.exc and not self.done:
                raise self.exc
        return self.take()

    async def chunk(self):  # what has arrived; b"" at the end
        while not self.buf:
            if self.done:
                return b""
            if self.exc:
                raise self.exc
            await self.wait()
        return self.take()

    def release(self):
        if self.done and self.keep and self.tr is not None and not self.tr.is_closing():
            self.used = True
            self.pool.idle.append(self)
        elif self.tr is not None:
            self.tr.abort()


class Pool:
    def __init__(self, host, port, loop):
        self.host, self.port, self.loop, self.idle = host, port, loop, deque()

    def lost(self, c):
        try:
            self.idle.remove(c)
        except ValueError:
            pass

    async def request(self, data):
        """Sends and returns the Conn once the answer's head is there; the caller must release() it."""
        while True:
            if self.idle:
                c = self.idle.pop()
            else:
                _, c = await self.loop.create_connection(lambda: Conn(self), self.host, self.port)
            try:
                c.start(data)
                while not c.head_done:
                    await c.wait()
                return c
            except UpstreamClosed:
                if not c.used:
                    raise
            except BaseException:
                if c.tr is not None:
                    c.tr.abort()
                raise
