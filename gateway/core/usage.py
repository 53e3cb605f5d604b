"""Tokens, as engines tell them in their answers: found by the key "usage", with nothing else of an answer decoded; or,
in streams of llama.cpp, by the key "timings", which it sends unasked.

Where such a key stands between quotes it is a key: inside a string its quotes would have backslashes before them.
"""

from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec

from gateway.core.outcome import Tokens

MARK = b'"usage"'
TIMINGS = b'"timings"'
# Of an answer that is not held whole, so much of the end is kept to look at.
_TAIL = 16 * 1024
# Of a whole answer, so much of its end and of its beginning is looked at: embeddings have a megabyte between them.
_LOOKED_AT = 64 * 1024
# What a usage object is smaller than.
_LONGEST = 8 * 1024

T = TypeVar("T")
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class _Details(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None


class _Usage(msgspec.Struct, gc=False):
    """Each API's words for it: chat and embeddings; responses, messages and images; rerank."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    total_tokens: _Count | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    # Anthropic's `input_tokens` are those that were not taken from a cache.
    cache_read_input_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None


class _Timings(msgspec.Struct, gc=False):
    """prompt_n: without those taken from the cache."""

    prompt_n: _Count
    predicted_n: _Count
    cache_n: _Count = 0


_usage = msgspec.json.Decoder(_Usage).decode
_timings = msgspec.json.Decoder(_Timings).decode


class Count:
    """What an answer has told so far. Engines may tell it in parts, and again with more."""

    __slots__ = ("_cached", "_completion", "_prompt")

    def __init__(self) -> None:
        self._prompt: int | None = None
        self._completion: int | None = None
        self._cached = 0

    @property
    def tokens(self) -> Tokens | None:
        if self._prompt is None and self._completion is None:
            return None
        return Tokens(self._prompt or 0, self._completion or 0, min(self._cached, self._prompt or 0))

    def look(self, data: bytes) -> None:
        """Takes the last usage object in these bytes, if there is one. They may begin and end anywhere."""
        at = len(data)
        while (at := data.rfind(MARK, 0, at)) >= 0:
            if (found := _object(data, at + len(MARK), _usage)) is not None:
                self._take(found)
                return

    def look_timings(self, data: bytes) -> None:
        """The same with llama.cpp's timings."""
        at = data.rfind(TIMINGS)
        if at >= 0 and (found := _object(data, at + len(TIMINGS), _timings)) is not None:
            self._prompt, self._cached, self._completion = (
                found.cache_n + found.prompt_n,
                found.cache_n,
                found.predicted_n,
            )

    def _take(self, usage: _Usage) -> None:
        details = usage.prompt_tokens_details or usage.input_tokens_details
        if details is not None and details.cached_tokens is not None:
            self._cached = details.cached_tokens
        prompt = usage.prompt_tokens if usage.prompt_tokens is not None else usage.input_tokens
        if usage.cache_read_input_tokens is not None:
            self._cached = usage.cache_read_input_tokens
            if prompt is not None:
                prompt += usage.cache_read_input_tokens
        if usage.cache_creation_input_tokens is not None and prompt is not None:
            prompt += usage.cache_creation_input_tokens
        completion = usage.completion_tokens if usage.completion_tokens is not None else usage.output_tokens
        if prompt is None and completion is None:
            prompt = usage.total_tokens
        if prompt is not None:
            self._prompt = prompt
        if completion is not None:
            self._completion = completion


def tokens_of(body: bytes) -> Tokens | None:
    """Of a whole answer. On the way of every request: about a microsecond."""
    if len(body) > _LOOKED_AT:
        return _last_of(body[-_LOOKED_AT:]) or _last_of(body[:_LOOKED_AT])
    at = body.rfind(MARK)
    if at < 0:
        return None
    usage = _object(body, at + len(MARK), _usage)
    if usage is None or (prompt := usage.prompt_tokens) is None:
        return _last_of(body)
    details = usage.prompt_tokens_details
    cached = 0 if details is None else min(details.cached_tokens or 0, prompt)
    return Tokens(prompt, usage.completion_tokens or 0, cached)


def _last_of(data: bytes) -> Tokens | None:
    count = Count()
    count.look(data)
    return count.tokens


class Tail:
    """The end of an answer that goes by in pieces and is no stream of events."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept = b""

    def pass_by(self, piece: bytes) -> None:
        self._kept = piece[-_TAIL:] if len(piece) >= _TAIL else (self._kept + piece)[-_TAIL:]

    @property
    def tokens(self) -> Tokens | None:
        return _last_of(self._kept)


def _object(data: bytes, at: int, decode: Callable[[bytes], T]) -> T | None:
    """The object that is the value of a key that ends at `at`; None if there is none, or it makes no sense."""
    start = data.find(b"{", at, at + 16)
    if start < 0 or (start != at + 1 and data[at:start].strip(b" \t\r\n") != b":"):
        return None
    limit = start + _LONGEST
    # Each brace that opens takes one more that closes; what these are inside of strings, no engine sends.
    end = data.find(b"}", start, limit) + 1
    opened = data.find(b"{", start + 1, end)
    while opened >= 0 and end:
        end = data.find(b"}", end, limit) + 1
        opened = data.find(b"{", opened + 1, end)
    if not end:
        return None
    try:
        return decode(data[start:end])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
