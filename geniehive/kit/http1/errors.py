"""What can go wrong between us and an upstream.

All are HttpError. `sent` is False only when it is certain that no byte of the request reached the server, so
that sending it elsewhere cannot do its work twice. The message is for people and names the origin.
"""


class HttpError(Exception):
    """An upstream could not be asked, or did not answer properly."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class ConnectFailed(HttpError):
    """No connection: refused, no route, unknown name, TLS refused, or the client is closed."""


class ConnectTimeout(HttpError):
    """No connection (TLS handshake included) within `Timeouts.connect`."""


class FirstByteTimeout(HttpError):
    """The request was sent; no complete response head came within `Timeouts.first_byte`."""


class IdleTimeout(HttpError):
    """In the middle of a body the server sent nothing, or took nothing, for `Timeouts.idle`."""


class TotalTimeout(HttpError):
    """The answer was not complete within `Timeouts.total`."""


class ConnectionLost(HttpError):
    """The connection ended before a complete response head."""


class Truncated(HttpError):
    """The connection ended in the middle of the response body."""


class ProtocolError(HttpError):
    """The server sent something that is not an HTTP/1.1 answer, or one that we don't accept (101, endless heads)."""


class TooLarge(HttpError):
    """The body is longer than the limit given to `Response.read`."""
