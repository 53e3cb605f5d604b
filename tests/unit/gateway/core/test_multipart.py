import re
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.multipart import (
    HEADERS,
    PARTS,
    VALUE,
    FormProblem,
    Scanner,
    boundary,
    cut,
    edits,
    length,
)

BORDER = b"b0undary"
MODEL = (b'Content-Disposition: form-data; name="model"', b"m")


def form(*parts: tuple[bytes, bytes], before: bytes = b"", after: bytes = b"\r\n", border: bytes = BORDER) -> bytes:
    """Of parts' headers and contents."""
    body = b"".join(b"--%b\r\n%b\r\n\r\n%b\r\n" % (border, headers, content) for headers, content in parts)
    return before + body + b"--%b--" % border + after


def field(name: str, value: bytes) -> tuple[bytes, bytes]:
    return f'Content-Disposition: form-data; name="{name}"'.encode(), value


def file(content: bytes, name: str = "file", filename: str = "a.wav") -> tuple[bytes, bytes]:
    head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\nContent-Type: audio/wav'
    return head.encode(), content


def scan(pieces: Iterable[bytes], border: bytes = BORDER) -> Scanner:
    scanner = Scanner(border)
    for piece in pieces:
        scanner.feed(piece)
    scanner.finish()
    return scanner


def in_pieces(body: bytes, sizes: Iterable[int]) -> Iterable[bytes]:
    at = 0
    for size in sizes:
        yield body[at : at + size]
        at += size
    yield body[at:]


def renamed(body: bytes, scanner: Scanner, name: str, also: bool = False) -> bytes:
    assert scanner.model is not None
    pieces = cut(edits(BORDER, scanner.model, scanner.model_name, name, also), len(body))
    made = b"".join(p if isinstance(p, bytes) else body[p.start : p.stop] for p in pieces)
    assert length(pieces) == len(made)
    return made


def problem(body: bytes, border: bytes = BORDER) -> FormProblem:
    """The same, however the body comes."""
    said = []
    for size in (1, 7, 5000, len(body) or 1):
        with pytest.raises(FormProblem) as raised:
            scan((body[at : at + size] for at in range(0, len(body), size)), border)
        said.append((raised.value.message, raised.value.param))
    assert len(set(said)) == 1, said
    return raised.value


# Text that looks like borders, or almost.
LOOK_ALIKES = st.lists(
    st.sampled_from(
        [b"\r\n", b"\r", b"\n", b"--", b"-", b"--" + BORDER[:-1], b"--" + BORDER, b"x", b" ", b"\t", b"--\r\n", b"\0"]
    )
    | st.binary(max_size=20),
    max_size=12,
).map(b"".join)
TRUE_BORDER = re.compile(rb"\r\n--" + BORDER + rb"(?:--)?[ \t]*(?:\r|\Z)")


@given(
    content=LOOK_ALIKES.filter(lambda content: not TRUE_BORDER.search(b"\r\n" + content)),
    others=st.lists(st.tuples(st.text(st.characters(codec="utf-8", exclude_characters='"\\%\r\n\0'), max_size=9),
                              st.binary(max_size=30).filter(lambda b: b"--" not in b)), max_size=3),
    where=st.integers(0, 4),
    name=st.text(min_size=1, max_size=20),
    new=st.text(min_size=1, max_size=20),
    sizes=st.lists(st.integers(0, 40), max_size=60),
    before=st.sampled_from([b"", b"\r\n", b"a preamble\r\n", b"--b0undaryX\r\n"]),
    after=st.sampled_from([b"", b"\r\n", b" \t\r\nmore", b"\r\njunk\r\n--b0undary\r\njunk"]),
)  # fmt: skip
@example(b"\r\n--b0undary-", [], 0, "m", "n", [1] * 400, b"", b"")
@example(b"\r\n--b0undary--x", [], 1, "m", "n", [1] * 400, b"", b"")
def test_any_split_gives_the_same_and_all_but_the_name_stays(
    content: bytes,
    others: list[tuple[str, bytes]],
    where: int,
    name: str,
    new: str,
    sizes: list[int],
    before: bytes,
    after: bytes,
) -> None:
    parts = [file(content), *(field(f"x-{key}", value) for key, value in others)]
    parts.insert(min(where, len(parts)), field("model", name.encode()))
    body = form(*parts, before=before, after=after)
    scanner = scan(in_pieces(body, sizes))
    assert scanner.ended
    assert scanner.model is not None
    assert scanner.model.value == name
    assert body[scanner.model.start : scanner.model.end] == name.encode()
    assert renamed(body, scanner, name) == body
    parts[min(where, len(parts) - 1)] = field("model", new.encode())
    assert renamed(body, scanner, new) == form(*parts, before=before, after=after)


@pytest.mark.parametrize("size", [1, 3, 4096, 4097, 65536, 1 << 20])
def test_a_large_file_with_a_border_that_is_split_anywhere(size: int) -> None:
    content = (b"\r\n--b0undar" * 1000 + b"\r\n--b0undaryy\r\n--b0undary-" + bytes(3000)) * 10
    body = form(file(content), field("model", b"whisper-1"), field("language", b"en"))
    scanner = scan(body[at : at + size] for at in range(0, len(body), size))
    assert renamed(body, scanner, "w") == form(file(content), field("model", b"w"), field("language", b"en"))


@pytest.mark.parametrize("where", range(1, 120))
def test_headers_that_are_split_anywhere(where: int) -> None:
    long = (MODEL[0] + b"\r\nX-Long: " + b"x" * 6000, b"m")
    body = form(field("a", b""), long, file(b"x" * 9000))
    assert renamed(body, scan(in_pieces(body, [where, 4200])), "n") == body.replace(b"\r\nm\r\n", b"\r\nn\r\n")


def test_nothing_of_a_file_is_kept() -> None:
    scanner = Scanner(BORDER)
    scanner.feed(form(file(b"")).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    for _ in range(100):
        scanner.feed(bytes(65536))
        assert len(scanner._held) <= 80
        assert not scanner._kept


def test_the_model_is_known_before_the_rest_has_come() -> None:
    scanner = Scanner(BORDER)
    whole = form(field("model", b"m"), file(b"x"))
    begin, border, _ = whole.partition(b'\r\n--b0undary\r\nContent-Disposition: form-data; name="file"')
    scanner.feed(begin)
    assert scanner.model is None
    scanner.feed(border[:14])
    assert scanner.model is not None
    assert not scanner.ended


@pytest.mark.parametrize("at_first", [True, False])
@pytest.mark.parametrize(("model_name", "kept"), [(None, False), (b"m2", False), (b"real", True), (b"", False)])
def test_the_name_in_a_second_field(at_first: bool, model_name: bytes | None, kept: bool) -> None:
    given = [field("model", b"alias")]
    if model_name is not None:
        given.insert(0 if at_first else 1, field("model_name", model_name))
    body = form(*given, file(b"x"))
    wanted = [field("model", b"real"), field("model_name", b"real")]
    if at_first and model_name is not None:
        wanted.reverse()
    scanner = scan([body])
    assert renamed(body, scanner, "real", True) == form(*wanted, file(b"x"))
    assert renamed(body, scanner, "alias", False) == body


@pytest.mark.parametrize(
    ("content_type", "found"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; boundary="a b:c"', b"a b:c"),
        ("Multipart/Form-Data;boundary=----WebKitFormBoundaryX; charset=utf-8", b"----WebKitFormBoundaryX"),
        ("multipart/form-data; charset=utf-8; BOUNDARY=abc;", b"abc"),
        ("multipart/form-data; boundary=" + "a" * 70, b"a" * 70),
    ],
)
def test_boundaries(content_type: str, found: bytes) -> None:
    assert boundary(content_type) == found


@pytest.mark.parametrize(
    "content_type",
    [
        "", "application/json", "multipart/mixed; boundary=a", "multipart/form-data", "multipart/form-data; boundary=",
        "multipart/form-data; boundary=a; boundary=b", 'multipart/form-data; boundary="a', "multipart/form-data; a",
        "multipart/form-data; boundary=" + "a" * 71, 'multipart/form-data; boundary="a "',
        "multipart/form-data; boundary=a\xe4", 'multipart/form-data; boundary="a\\"b"',
    ],
)  # fmt: skip
def test_no_boundary(content_type: str) -> None:
    with pytest.raises(FormProblem):
        boundary(content_type)


@pytest.mark.parametrize(
    "filename", ["a b.wav", 'a\\"b;name=\\"model.wav', "größe–音.wav", "a'b;c=d.wav", "a%22b.wav", "C:\\\\a.wav", ""]
)
def test_names_of_files(filename: str) -> None:
    body = form(file(b"x", filename=filename), MODEL)
    assert renamed(body, scan([body]), "n") == form(file(b"x", filename=filename), field("model", b"n"))


@pytest.mark.parametrize(
    "header",
    [
        b'Content-Disposition: form-data; name="file"; filename="a\r\nb"',
        b'Content-Disposition: form-data; name="file"; filename="a\nb"',
        b'Content-Disposition: form-data; name="file"; filename="a\rb"',
        b'Content-Disposition: form-data; name="file"; filename="a\0b"',
        b'Content-Disposition: form-data; name="file"; filename="a"b"',
        b'Content-Disposition: form-data; name="file";\r\n filename="a"',
        b'Content-Disposition: form-data; name="file"; name="model"',
        b"Content-Disposition: form-data; name=\"file\"; name*=UTF-8''model",
        b"Content-Disposition: form-data; name*=UTF-8''model",
        b'Content-Disposition: form-data; name="mod\\el"',
        b'Content-Disposition: form-data; name="mod%65l"',
        b'Content-Disposition: form-data; name=" model "',
        b'Content-Disposition: form-data; name="model"; filename="a"',
        b'Content-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: base64',
        b'Content-Disposition: form-data; name="x"\r\nContent-Disposition: form-data; name="model"',
        b'Content-Disposition : form-data; name="x"',
        b'Content-Disposition: attachment; name="x"',
        b"Content-Disposition: form-data",
        b"Content-Type: text/plain",
        b"X",
        b"",
    ],
)
def test_headers_that_could_be_read_otherwise(header: bytes) -> None:
    assert problem(form((header, b"x"), field("model", b"m")))


def test_what_else_is_no_form() -> None:
    assert "no body" in problem(b"").message
    assert "no parts" in problem(b"hello").message
    assert "no parts" in problem(form(MODEL), b"other").message
    assert "not whole" in problem(form(MODEL)[:-4]).message
    assert "not whole" in problem(form(MODEL, file(b"x" * 9000))[:-50]).message
    assert "not whole" in problem(form(MODEL)[:-7]).message
    assert problem(form(file(b"x"))).param == "model"
    assert "missing" in problem(b"--b0undary--\r\n").message
    assert "more than once" in problem(form(MODEL, MODEL)).message
    assert "empty" in problem(form(field("model", b""))).message
    assert "UTF-8" in problem(form(field("model", b"\xff"))).message


def test_sizes_are_bounded() -> None:
    assert "longer" in problem(form(field("model", b"m" * (VALUE + 1)))).message
    assert scan([form(field("model", b"m" * VALUE))]).model is not None
    assert "headers" in problem(form((MODEL[0] + b"\r\nX: " + b"x" * HEADERS * 2, b"m"))).message
    many = [field("x", b"")] * PARTS
    assert "parts" in problem(form(MODEL, *many)).message
    assert scan([form(MODEL, *many[1:])]).ended


@given(st.binary(max_size=200) | LOOK_ALIKES, st.lists(st.integers(0, 9), max_size=40))
def test_no_bytes_break_it(body: bytes, sizes: list[int]) -> None:
    for whole in (body, b"--b0undary\r\n" + body, form(MODEL) + body, form((b"Content-Disposition: " + body, b""))):
        found = []
        for pieces in ([whole], in_pieces(whole, sizes)):
            try:
                found.append(scan(pieces).model)
            except FormProblem as error:
                found.append(error.message)
        assert found[0] == found[1]
