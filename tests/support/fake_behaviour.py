"""How a fake engine misbehaves: what a test orders, and what that makes of an answer's bytes."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from geniehive.rules.operations import BY_PATH

INFERENCE = frozenset(BY_PATH)


@dataclasses.dataclass(eq=False)
class Behaviour:
    """How to answer. What is not said is done well.

    where      "inference", "all", or the beginning of a path
    times      for so many requests, then well again; None: until `behave_well`
    hold       "question": takes no byte of the body until `behave_well`; "head": no byte of an answer until then;
               "body": head and first piece, then nothing until then
    head_delay, chunk_delay  seconds
    close      closes without a byte of an answer: "fin" or "reset"
    cut_after  closes after so many pieces of a body (0: after the head); a body that is no stream has two
    cut        how: "fin" or "reset"
    status, headers, body   this answer in place of its own
    content_type  of whatever is answered; a `body` is JSON if nothing is said
    pieces     these pieces as the body of a 200 stream, in place of its own
    tokens     how many content pieces an answer has (default: the 3 of "engine X")
    split      sizes in bytes at which its pieces are cut anew, in turn, the last for ever: (1,) is byte by byte
    flood      its pieces over and over, as fast as they are taken, and never an end
    mistyped   in all JSON, numbers are texts, texts are numbers and lists are objects
    """

    where: str = "inference"
    times: int | None = None
    hold: str | None = None
    head_delay: float = 0.0
    chunk_delay: float = 0.0
    close: str | None = None
    cut_after: int | None = None
    cut: str = "fin"
    status: int | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: Any = None
    content_type: str | None = None
    pieces: list[str] | None = None
    tokens: int | None = None
    split: Iterable[int] = ()
    flood: bool = False
    mistyped: bool = False

    def covers(self, path: str) -> bool:
        if self.where == "inference":
            return path in INFERENCE
        return self.where == "all" or path.startswith(self.where)

    def spoil(self, pieces: Iterable[bytes]) -> Iterable[bytes]:
        """What is written of these pieces."""
        if self.mistyped:
            pieces = [mistyped(piece) for piece in pieces]
        return self.cut_up(itertools.cycle(pieces) if self.flood else pieces)

    def cut_up(self, pieces: Iterable[bytes]) -> Iterable[bytes]:
        return cut_anew(pieces, list(self.split)) if self.split else pieces


def cut_anew(pieces: Iterable[bytes], sizes: list[int]) -> Iterator[bytes]:
    """The same bytes in pieces of these sizes in turn, the last for ever."""
    wanted = itertools.chain(sizes, itertools.repeat(sizes[-1]))
    size = next(wanted)
    kept = b""
    for piece in pieces:
        kept += piece
        while len(kept) >= size:
            yield kept[:size]
            kept = kept[size:]
            size = next(wanted)
    if kept:
        yield kept


def mistyped(piece: bytes) -> bytes:
    """JSON, alone or in the data lines of events, whose values have wrong types; anything else as it is."""
    lines = []
    for line in piece.split(b"\n"):
        start = b"data: " if line.startswith(b"data: ") else b""
        try:
            lines.append(start + json.dumps(_mistyped(json.loads(line.removeprefix(start)))).encode())
        except ValueError:
            lines.append(line)
    return b"\n".join(lines)


def _mistyped(value: Any) -> Any:
    match value:
        case dict():
            return {key: _mistyped(inner) for key, inner in value.items()}
        case list():
            return {str(number): _mistyped(inner) for number, inner in enumerate(value)}
        case str():
            return len(value)
        case None:
            return []
        case _:
            return str(value)
