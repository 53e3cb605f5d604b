"""Streams of events on their way to the client: what they tell of tokens, whether they came to their end, and the one
event that is taken out of them.

An engine that the gateway asked for usage sends an event for it that the client must not see. Everything else goes on
byte for byte, in the same write as it came: of an event that is not whole only that is held back which may still turn
out to be that event.
"""

import re
from collections import deque
from enum import Enum

import msgspec

from gateway.core.outcome import Tokens
from gateway.core.usage import MARK, TIMINGS, Count

_BORDERS = (b"\n\n", b"\r\n\r\n")
# Where an event ends: at an empty line. Of "\r\n" the second byte may be yet to come.
_BORDER = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?=[^\n]))")
# Lines before an event's first field: comments, and empty ones.
_COMMENTS = re.compile(rb"(?:(?::[^\r\n]*)?(?:\r\n|\n|\r(?=[^\n])))*")
# An event with a choice in it, or with none but otherwise than an empty list, is not for usage alone.
_CHOICE = re.compile(rb'"choices"[ \t\r\n]*:[ \t\r\n]*(?:\[[ \t\r\n]*[^\] \t\r\n]|[^\[ \t\r\n])')
_NULL = MARK + b":null"
# The usage event is smaller than that.
_HELD_LIMIT = 16 * 1024
# Of an event that is not whole so much is kept, to be looked at when it is; of a larger one its end.
_KEPT_LIMIT = 256 * 1024
_KEPT_END = 16 * 1024
_KEPT_HEAD = 1024
# The last pieces tell whether a stream came to its end.
_LAST = 4


class End(Enum):
    """How the streams of an API end when nothing went wrong."""

    # They don't say.
    NONE = b"", rb""
    # Some engines leave "[DONE]" out.
    CHAT = b"data: [DONE]", rb'data: ?\[DONE\]|"finish_reason"[ \t\r\n]*:[ \t\r\n]*"'
    MESSAGES = b'"type":"message_stop"', rb'"type"[ \t\r\n]*:[ \t\r\n]*"message_stop"'
    RESPONSES = (
        b'"type":"response.completed"',
        rb'"type"[ \t\r\n]*:[ \t\r\n]*"response\.(?:completed|failed|incomplete|cancelled)"',
    )

    def __init__(self, usual: bytes, pattern: bytes) -> None:
        self.usual = usual
        self.pattern = re.compile(pattern)


# An engine's own error in the stream, in any API's words.
_ERROR = re.compile(
    rb'(?:^|[\r\n])(?:event: ?error[\r\n]|data: ?\{[ \t]*"(?:error"[ \t]*:[ \t]*[{"]|type"[ \t]*:[ \t]*"error"))|'
    rb'"type"[ \t]*:[ \t]*"response\.failed"'
)


class _Chunk(msgspec.Struct, gc=False):
    choices: list[msgspec.Raw]
    usage: msgspec.Raw


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class Events:
    """asked: the gateway asked for usage, and the client did not. timed: the engine sends timings, asked or not."""

    __slots__ = ("_asked", "_count", "_end", "_kept", "_last", "_let_go", "_mark", "_sent", "_trimmed")

    def __init__(self, end: End, asked: bool = False, timed: bool = False) -> None:
        self._end = end
        self._asked = asked
        # What to look for.
        self._mark = TIMINGS if timed else MARK
        self._count = Count()
        self._last: deque[bytes] = deque(maxlen=_LAST)
        # The event that is not whole yet: what is kept of it, how much of that was given out, whether the rest may
        # follow at once, and whether its beginning is kept no more.
        self._kept = bytearray()
        self._sent = 0
        self._let_go = not asked
        self._trimmed = False

    @property
    def tokens(self) -> Tokens | None:
        return self._count.tokens

    def feed(self, piece: bytes) -> bytes:
        """What the client gets of it now, maybe nothing."""
        if self._kept or not piece.endswith(_BORDERS):
            return self._feed_part(piece)
        if piece.rfind(self._mark) >= 0:
            if self._mark is TIMINGS:
                self._count.look_timings(piece)
            elif (marks := piece.count(MARK)) != piece.count(_NULL):
                if self._asked or marks > 1:
                    return self._feed_part(piece)
                self._count.look(piece)
        self._last.append(piece)
        return piece

    def finish(self) -> bytes:
        """There is no more: what was held back, if it is for the client."""
        left = b""
        if self._kept:
            rest, self._kept = bytes(self._kept), bytearray()
            left = self._whole(rest)
        if self._mark is TIMINGS and self._count.tokens is None:
            self._count.look(self._tail())
        return left

    @property
    def ended(self) -> bool:
        """Whether the last that came is what streams of this API end with."""
        end = self._end
        if self._last and end.usual in self._last[-1]:
            return True
        return end.pattern.search(self._tail()) is not None

    @property
    def failed(self) -> bool:
        """Whether an error that the engine tells is among the last that came."""
        tail = self._tail()
        return (b"error" in tail or b"failed" in tail) and _ERROR.search(tail) is not None

    def _tail(self) -> bytes:
        return b"".join((*self._last, self._kept))

    def _feed_part(self, piece: bytes) -> bytes:
        """A piece that is not made of whole events, or has one that may have to be taken out."""
        kept = self._kept
        # An end of three bytes may be the beginning of a border.
        seen = max(0, len(kept) - 3)
        # Without a line's end there is no border; of "\r" that was the last the meaning is known only now.
        maybe = b"\n" in piece or b"\r" in piece or kept.endswith(b"\r")
        kept += piece
        if not maybe:
            return self._part()
        out: list[bytes] = []
        start = 0
        for border in _BORDER.finditer(kept, seen):
            out.append(self._whole(bytes(kept[start : border.end()])))
            start = border.end()
        if start:
            del kept[:start]
        if kept:
            out.append(self._part())
        return out[0] if len(out) == 1 else b"".join(out)

    def _whole(self, event: bytes) -> bytes:
        """What is to be given out yet of an event that has come to its end."""
        sent, let_go = self._sent, self._let_go
        self._sent, self._let_go, self._trimmed = 0, not self._asked, False
        self._last.append(event)
        if self._mark in event:
            self._count.look_timings(event) if self._mark is TIMINGS else self._count.look(event)
            if not let_go and _is_for_usage(event):
                return event[sent : _comments_end(event, 0)]
        return event[sent:] if sent else event

    def _part(self) -> bytes:
        """What is to be given out now of the event that is not whole."""
        kept = self._kept
        if not self._let_go:
            begins = _comments_end(kept, self._sent)
            if len(kept) - begins <= _HELD_LIMIT and not _CHOICE.search(kept, begins):
                out = bytes(kept[self._sent : begins])
                self._sent = begins
                return out
            self._let_go = True
        out = bytes(kept[self._sent :])
        if len(kept) > _KEPT_LIMIT:
            self._trim()
        self._sent = len(kept)
        return out

    def _trim(self) -> None:
        if not self._trimmed:
            self._trimmed = True
            self._last.append(bytes(self._kept[:_KEPT_HEAD]))
        if self._mark is MARK:
            self._count.look(bytes(self._kept))
        del self._kept[:-_KEPT_END]


def _comments_end(event: bytes | bytearray, start: int) -> int:
    found = _COMMENTS.match(event, start)
    return found.end() if found is not None else start


def _is_for_usage(event: bytes) -> bool:
    """Whether it is the event that engines send only to who asks for usage."""
    data = b"\n".join(line[5:] for line in event.splitlines() if line.startswith(b"data:"))
    try:
        chunk = _decode_chunk(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return not chunk.choices and bytes(chunk.usage).startswith(b"{")
