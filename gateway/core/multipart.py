"""Forms with files (multipart/form-data): where in them the model's name stands, found as they come.

No file is held: a `Scanner` is fed the body in pieces of any size, and keeps the few bytes that may be the beginning of
a border. Nothing of a form is ever rebuilt; `cut` says which bytes are replaced by which.

Where readers of forms differ the strict reading is taken, and what could be read otherwise is refused: an engine must
not see another model than the gateway did.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

MODEL = "model"
# What some engines call it.
MODEL_NAME = "model_name"

PARTS = 1000
# Bytes of one part's headers.
HEADERS = 16 * 1024
# Bytes of a field that is read here.
VALUE = 64 * 1024

_READ = frozenset({MODEL.encode(), MODEL_NAME.encode()})
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_PARAMETER = re.compile(r';\s*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;"]*)\s*', re.DOTALL)
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(.*?)[ \t]*", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PLAIN = frozenset({b"7bit", b"8bit", b"binary"})
# White space after a border, up to the line's end.
_PADDING = re.compile(rb"[ \t]{0,64}")
# So much of a piece is joined to what was held of the last one, instead of all of it.
_JOINED = 4096


class FormProblem(Exception):
    """A form that can't be used. `param`: the field that is to blame, "" for the form itself."""

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class Field(NamedTuple):
    """A value, and the bytes of the body that it is: from `start` to before `end`."""

    value: str
    start: int
    end: int


class Edit(NamedTuple):
    """The bytes from `start` to before `end` give way to `new`."""

    start: int
    end: int
    new: bytes


def boundary(content_type: str) -> bytes:
    """What stands between the parts. FormProblem unless this is the type of a form."""
    kind, semicolon, rest = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        shown = f"not {kind.strip()[:100]!r}" if kind.strip() else "and there is none"
        raise FormProblem(f"Send a form: the content-type must be multipart/form-data, {shown}")
    found = [value for name, value in _parameters(semicolon + rest) if name.lower() == "boundary"]
    if len(found) != 1:
        raise FormProblem("The content-type multipart/form-data must have one boundary")
    if not _BOUNDARY.fullmatch(found[0]):
        raise FormProblem("The boundary in the content-type must be 1 to 70 characters of those that RFC 2046 allows")
    return found[0].encode("ascii")


class Scanner:
    """Of one form, by its boundary. After a FormProblem it is of no more use."""

    __slots__ = ("_border", "_fields", "_held", "_kept", "_name", "_parts", "_position", "_start", "_where", "ended")

    def __init__(self, boundary: bytes) -> None:
        # The last border has come.
        self.ended = False
        self._border = b"\r\n--" + boundary
        self._fields: dict[bytes, Field] = {}
        # The end of what was fed, as far as it may mean something together with what follows. The first border begins a
        # line too, though nothing need stand before it.
        self._held = b"\r\n"
        self._position = 0
        self._where = _CONTENT
        self._parts = 0
        # Of the field that is being read.
        self._name = b""
        self._kept = bytearray()
        self._start = 0

    @property
    def model(self) -> Field | None:
        return self._fields.get(b"model")

    @property
    def model_name(self) -> Field | None:
        return self._fields.get(b"model_name")

    def feed(self, piece: bytes) -> None:
        """The next bytes of the body."""
        held, size = self._held, len(piece)
        if self._where is _AFTER:
            at = size
        elif not held:
            at = self._read(piece, 0, self._position, False)
        else:
            # Joined to all of the piece, its megabytes would be copied.
            first = piece if size <= _JOINED else piece[:_JOINED]
            at = self._read(held + first, 0, self._position - len(held), False) - len(held)
            if size > _JOINED:
                if at >= 0:
                    at = self._read(piece, at, self._position, False)
                else:
                    at = self._read(held + piece, at + len(held), self._position - len(held), False) - len(held)
        self._held = piece[at:] if at >= 0 else held[at:] + piece
        self._position += size

    def finish(self) -> None:
        """The body has ended. FormProblem if that is not the end of the form, or nothing names a model."""
        if self._held and self._where is not _AFTER:
            self._read(self._held, 0, self._position - len(self._held), True)
            self._held = b""
        if not self._position:
            raise FormProblem("The request has no body; send a form")
        if not self.ended:
            if not self._parts:
                raise FormProblem("The form has no parts: the boundary of the content-type is not in the body")
            raise FormProblem("The form is not whole: the body ends before its last boundary")
        if self.model is None:
            message = '"model" is missing in the form: name a model; GET /v1/models lists them'
            raise FormProblem(message, MODEL)

    def _read(self, data: bytes, at: int, base: int, last: bool) -> int:
        """Reads `data` from `at` on; where it stands in the body, `base` says. Gives from where on it is to be kept.

        last: nothing follows.
        """
        size = len(data)
        while at < size:
            if self._where is _HEADERS:
                end = at if data.startswith(b"\r\n", at) else data.find(b"\r\n\r\n", at)
                if (end if end >= 0 else size - 3) - at > HEADERS:
                    raise FormProblem(f"A part of the form has headers of more than {HEADERS} bytes")
                if end < 0:
                    return at
                at = self._begin_part(data[at:end], base, end + (4 if end > at else 2))
            elif self._where is _CONTENT:
                found = data.find(self._border, at)
                if found < 0:
                    sure = size if last else max(at, size - len(self._border) + 1)
                    self._keep(data, at, sure)
                    return sure
                after = found + len(self._border)
                what, next_at = _border_end(data, after, last)
                if what is _UNSURE:
                    self._keep(data, at, found)
                    return found
                if what is _NO_BORDER:
                    self._keep(data, at, after)
                    at = after
                    continue
                self._keep(data, at, found)
                self._end_part(base + found)
                if what is _LAST_BORDER:
                    self.ended = True
                    self._where = _AFTER
                    return size
                self._where = _HEADERS
                at = next_at
            else:
                return size
        return at

    def _begin_part(self, headers: bytes, base: int, at: int) -> int:
        self._parts += 1
        if self._parts > PARTS:
            raise FormProblem(f"The form has more than {PARTS} parts")
        name = _part_name(headers)
        if name in self._fields:
            raise FormProblem(f'"{name.decode()}" stands in the form more than once', name.decode())
        self._name = name if name in _READ else b""
        self._kept.clear()
        self._start = base + at
        self._where = _CONTENT
        return at

    def _keep(self, data: bytes, start: int, end: int) -> None:
        if self._name:
            self._kept += data[start:end]
            if len(self._kept) > VALUE:
                raise FormProblem(f'"{self._name.decode()}" is longer than {VALUE} bytes', self._name.decode())

    def _end_part(self, end: int) -> None:
        if not self._name:
            return
        name = self._name.decode()
        try:
            value = self._kept.decode()
        except UnicodeDecodeError:
            raise FormProblem(f'"{name}" is not UTF-8', name) from None
        if not value and name == MODEL:
            raise FormProblem('"model" is empty: name a model; GET /v1/models lists them', name)
        self._fields[self._name] = Field(value, self._start, end)
        self._name = b""


def edits(border: bytes, model: Field, model_name: Field | None, name: str, also: bool) -> list[Edit]:
    """What gives a form the model's name `name`; nothing, if it has it.

    also: as `model_name`, too, which is put behind `model` if there is none.
    """
    new = name.encode()
    made = [] if name == model.value else [Edit(model.start, model.end, new)]
    if also:
        if model_name is None:
            more = b'\r\n--%b\r\nContent-Disposition: form-data; name="model_name"\r\n\r\n%b' % (border, new)
            made = [Edit(model.start, model.end, new + more)]
        elif name != model_name.value:
            made.append(Edit(model_name.start, model_name.end, new))
    return sorted(made)


def cut(changes: Iterable[Edit], size: int) -> list[bytes | range]:
    """A body of `size` bytes with these changes: new bytes, and ranges of old ones, in turn."""
    pieces: list[bytes | range] = []
    at = 0
    for change in changes:
        pieces += [range(at, change.start), change.new]
        at = change.end
    pieces.append(range(at, size))
    return [piece for piece in pieces if len(piece)]


def length(pieces: Sequence[bytes | range]) -> int:
    return sum(map(len, pieces))


# Where a scanner is: in a part's headers, in its content (or before the first part), or behind the last border.
_HEADERS, _CONTENT, _AFTER = "headers", "content", "after"
# What follows a border's text.
_BORDER, _LAST_BORDER, _NO_BORDER, _UNSURE = "border", "last", "none", "unsure"


def _border_end(data: bytes, at: int, last: bool) -> tuple[str, int]:
    """What the bytes behind a border's text make of it, and where its line ends."""
    kind = _BORDER
    if data.startswith(b"--", at):
        kind = _LAST_BORDER
        at += 2
    elif data[at : at + 1] == b"-" and at + 1 == len(data) and not last:
        return _UNSURE, at
    match = _PADDING.match(data, at)
    assert match is not None
    end = match.end()
    if data.startswith(b"\r\n", end):
        return kind, end + 2
    if end == len(data) or (data[end : end + 1] == b"\r" and end + 1 == len(data)):
        if not last:
            return _UNSURE, at
        if kind is _LAST_BORDER:
            return kind, end
    return _NO_BORDER, at


def _part_name(headers: bytes) -> bytes:
    """The field that a part is. FormProblem for headers that can't be read in one way only."""
    dispositions = []
    encoded = False
    for line in headers.split(b"\r\n"):
        match = _HEADER.fullmatch(line)
        if match is None or b"\r" in line or b"\n" in line or b"\0" in line:
            raise FormProblem("A part of the form has a malformed header, or none; line breaks must be escaped")
        lowered = match[1].lower()
        if lowered == b"content-disposition":
            dispositions.append(match[2])
        elif lowered == b"content-transfer-encoding":
            encoded = match[2].lower() not in _PLAIN
    if len(dispositions) != 1:
        raise FormProblem("Each part of the form must have one header Content-Disposition")
    kind, semicolon, rest = dispositions[0].decode("utf-8", "surrogateescape").partition(";")
    parameters = _parameters(semicolon + rest)
    names = [value for name, value in parameters if name.lower() in ("name", "name*")]
    if kind.strip().lower() != "form-data" or len(names) != 1 or any(name.lower() == "name*" for name, _ in parameters):
        raise FormProblem('Each part of the form must be "form-data" with one name')
    name = names[0].encode("utf-8", "surrogateescape")
    plain = unquote_to_bytes(_ESCAPED.sub(r"\1", names[0]).encode("utf-8", "surrogateescape")).strip()
    if plain in _READ:
        word = plain.decode()
        if name != plain:
            raise FormProblem(f'Write the name of the field "{word}" without escapes and blanks', word)
        if encoded:
            raise FormProblem(f'"{word}" must not be encoded', word)
        if any(p.lower() in ("filename", "filename*") for p, _ in parameters):
            raise FormProblem(f'"{word}" must be a field of the form, not a file', word)
    return name


def _parameters(text: str) -> list[tuple[str, str]]:
    """Names and values, each begun by a semicolon; quotes are taken off, escapes in them stay. FormProblem for more."""
    found = []
    at = 0
    text = text.rstrip().removesuffix(";")
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None:
            raise FormProblem('A header of the form is malformed: its parameters must be name=value or name="value"')
        value = match[2]
        found.append((match[1], value[1:-1] if value.startswith('"') else value))
        at = match.end()
    return found
