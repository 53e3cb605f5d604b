"""A lean HTTP/1.1 client for upstreams: it knows connections and messages, never hosts' roles or routes.

origin       where to connect: Origin, split_url
errors       HttpError and its kinds; `.sent` says whether the server may have seen the request
limits       Timeouts, and the sizes that bound memory
head         a request's head as bytes; refuses everything that could inject a header
connection   one kept connection: asyncio.Protocol + parser, one answer at a time
upload       a streamed request body, Measured or chunked, waiting for the server to take it
response     Response: what a caller reads from
client       Client: the pool, connecting, sending again once when a kept connection had died

client = Client()
async with await client.request(origin, "GET", "/health", []) as response:
    body = await response.read(1 << 20)
"""

from geniehive.kit.http1.client import Client
from geniehive.kit.http1.errors import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    FirstByteTimeout,
    HttpError,
    IdleTimeout,
    ProtocolError,
    TooLarge,
    TotalTimeout,
    Truncated,
)
from geniehive.kit.http1.head import HeaderLines, encode_lines, join_lines, line_start
from geniehive.kit.http1.limits import Timeouts
from geniehive.kit.http1.origin import Origin, split_url
from geniehive.kit.http1.response import Response
from geniehive.kit.http1.upload import Measured

__all__ = [
    "Client",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionLost",
    "FirstByteTimeout",
    "HeaderLines",
    "HttpError",
    "IdleTimeout",
    "Measured",
    "Origin",
    "ProtocolError",
    "Response",
    "Timeouts",
    "TooLarge",
    "TotalTimeout",
    "Truncated",
    "encode_lines",
    "join_lines",
    "line_start",
    "split_url",
]
