"""What aiohttp's server lacks where its peers send broken HTTP."""

import re

from aiohttp import web

# Where aiohttp's words end and its quotation begins: of the line at fault, or of the first bytes of what is too long.
_QUOTATION = re.compile(r"\n\s*\n|[:\s]*\b(?:bytearray\()?b['\"]")


class Connection(web.RequestHandler):
    """A connection whose request body, once it turns out to be malformed, ends with `web.RequestPayloadError`.

    aiohttp by itself answers malformed HTTP only after the request before it; whoever reads the body of that request
    would wait until the peer leaves. The connection is closed after the answer.
    """

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        queued = len(self._messages)
        super().data_received(data)
        request = self._current_request
        if request is None or len(self._messages) == queued or request.content.is_eof():
            return
        # Behind a body that has not ended nothing can come but the error that ended the parsing.
        error, _ = self._messages.pop()
        request.content.set_exception(web.RequestPayloadError(fault(getattr(error, "message", None))))
        request.content.feed_eof()  # else aiohttp would wait for the rest of it, too
        self.close()


def fault(message: str | None) -> str:
    """What aiohttp says is wrong with a request, in one line, without what it quotes: that may be a key."""
    words = _QUOTATION.split(message or "", maxsplit=1)[0]
    return " ".join(words.split())[:200] or "malformed request"
