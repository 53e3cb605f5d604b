"""The model's name in a body: read and replaced, all else byte for byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.body import BodyProblem, Named, read


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model":"m"}', "m"),
        (b' { "n" : 4096 , "model" :\n"org/m:8b" } \n', "org/m:8b"),
        (rb'{"model":"a\/b\u00e9"}', "a/bé"),
        ('{"model":"模型","x":"é"}'.encode(), "模型"),
        (b'{"tools":[{"properties":{"model":{"type":"string"}}}],"model":"m"}', "m"),
        (b'{"role":"model","model":"model"}', "model"),
        (b'{"messages":"say \\"model\\": \\"x\\"","model":"m"}', "m"),
        (rb'{"mod\u0065l":"m"}', "m"),
        (rb'{"abc":"m","mod\u0065l":"m"}', "m"),
        (rb'{"x":"\ud83d","model":"m"}', "m"),  # half a surrogate pair: JSON allows it
        (rb'{"x":"\ud83d cut","model":"m","model2":1}', "m"),
    ],
)
def test_read_and_replace(body: bytes, model: str) -> None:
    named = read(body)
    assert named.model == model
    assert named.renamed(model) is body
    renamed = named.renamed("n")
    assert renamed == body[: named.start] + b'"n"' + body[named.end :]
    assert read(renamed).model == "n"
    assert {**json.loads(body), "model": "n"} == json.loads(renamed)


def test_nothing_else_is_rebuilt() -> None:
    body = b'{"max_tokens":4096,"big":123456789012345678901234567890,"f":1.0e0 ,"model":"a","z":{"b":1,"a":2}}'
    expected = b'{"max_tokens":4096,"big":123456789012345678901234567890,"f":1.0e0 ,"model":"b","z":{"b":1,"a":2}}'
    assert read(body).renamed("b") == expected


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b"", "", "no body"),
        (b"{", "", "not valid JSON"),
        (b"nonsense", "", "not valid JSON"),
        (b'{"model":"m"} x', "", "not valid JSON"),
        (b'{"model":"m",}', "", "not valid JSON"),
        (rb'{"x":"\ud83d","model":"m"', "", "not valid JSON"),
        (rb'{"x":"\ud83d" "model":"m"}', "", "not valid JSON"),
        (b"[]", "", "JSON object"),
        (b'"model"', "", "JSON object"),
        (b"{}", "model", "missing"),
        (b'{"x":{"model":"m"}}', "model", "missing"),
        (b'{"model":null}', "model", "string"),
        (b'{"model":["m"]}', "model", "string"),
        (b'{"model":""}', "model", "empty"),
        (rb'{"model":"\ud83d"}', "model", "surrogate"),
        (b'{"model":"a","model":"b"}', "model", "more than once"),
        (b'{"model":"a","model":"a"}', "model", "more than once"),
        (rb'{"model":"a","mod\u0065l":"b"}', "model", "more than once"),
        (b'{"model":"\xff"}', "", "UTF-8"),
        (b'{"x":' + b"[" * 100_000, "", "nested"),
        (b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "", "nested"),
    ],
)
def test_problems_are_named(body: bytes, param: str, says: str) -> None:
    with pytest.raises(BodyProblem, match=says) as caught:
        read(body)
    assert caught.value.param == param


KEYS = st.text(max_size=5) | st.just("model")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(
    before=st.dictionaries(st.text(max_size=6).filter(lambda k: k != "model"), VALUES, max_size=3),
    after=st.dictionaries(st.text(max_size=6).filter(lambda k: k != "model"), VALUES, max_size=3),
    model=st.text(min_size=1, max_size=20),
    other=st.text(min_size=1, max_size=20),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_any_body(
    before: dict[str, object],
    after: dict[str, object],
    model: str,
    other: str,
    ascii_only: bool,
    indent: int | None,
) -> None:
    content = {**before, "model": model, **after}
    body = json.dumps(content, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    named = read(body)
    assert named.model == model
    assert json.loads(body[named.start : named.end]) == model
    assert json.loads(named.renamed(other)) == {**content, "model": other}


@pytest.mark.parametrize(
    ("body", "stream", "options"),
    [
        (b'{"model":"m"}', False, b""),
        (b'{"model":"m","stream":false}', False, b""),
        (b'{"model":"m","stream":null,"stream_options":null}', False, b"null"),
        (b'{"stream" : true ,"model":"m","stream_options": { "a":1 } }', True, b'{ "a":1 }'),
        (b'{"x":{"stream":true,"stream_options":{}},"model":"m"}', False, b""),
        # Read by the exact walk.
        (b'{"x":{"model":1},"model":"m","stream":true,"stream_options":{"a":[]}}', True, b'{"a":[]}'),
        (rb'{"x":"\ud83d","model":"m","stream":true}', True, b""),
        (b'{"model":"m","stream":"yes"}', False, b""),
        (b'{"model":"m","stream":1,"stream_options":7}', False, b"7"),
    ],
)
def test_whether_a_stream_is_wanted(body: bytes, stream: bool, options: bytes) -> None:
    named = read(body)
    assert (named.stream, named.options) == (stream, options)


WANTED = b'"stream_options":{"include_usage":true}'


@pytest.mark.parametrize(
    ("body", "asking"),
    [
        (b' { "model":"m","stream":true}', b" {" + WANTED + b', "model":"m","stream":true}'),
        (b'{"stream_options" : null,"model":"m"}', b'{"stream_options" : {"include_usage":true},"model":"m"}'),
        (b'{"model":"m","stream_options":{ }}', b'{"model":"m","stream_options":{"include_usage":true}}'),
        (
            b'{"model":"m","stream_options":{ "x": 1.0 }}',
            b'{"model":"m","stream_options":{"include_usage":true,"x": 1.0 }}',
        ),
        (
            b'{"stream_options":{"x":1,"include_usage" : false},"model":"m"}',
            b'{"stream_options":{"x":1,"include_usage" : true},"model":"m"}',
        ),
        (
            b'{"model":"m","stream_options":{"include_usage":null}}',
            b'{"model":"m","stream_options":{"include_usage":true}}',
        ),
        # The client asks itself.
        (b'{"model":"m","stream_options":{"include_usage":true}}', None),
        (rb'{"model":"m","stream_options":{"include\u005fusage":true}}', None),
        # For the engine to refuse.
        (b'{"model":"m","stream_options":[]}', None),
        (b'{"model":"m","stream_options":"x"}', None),
        (b'{"model":"m","stream_options":{"include_usage":"yes"}}', None),
        # No safe place.
        (b'{"model":"m","stream_options":{},"stream_options":{}}', None),
        (b'{"model":"m","x":"stream_options","stream_options":{}}', None),
        (rb'{"model":"m","stream\u005foptions":{}}', None),
        (rb'{"model":"m","stream_options":{"include\u005fusage":false}}', None),
        (rb'{"model":"m","stream_options":{"x":{"include_usage":false},"include_usage":false}}', None),
    ],
)
def test_asking_for_usage(body: bytes, asking: bytes | None) -> None:
    made = read(body).asking()
    assert (made and made.body) == asking
    if made is not None:
        again = read(made.body)
        assert again == Named(made.body, "m", made.start, made.end, again.stream, again.options, again.head)
        assert again.asking() is None
        assert read(made.renamed("other")).model == "other"


OPTIONS = st.none() | st.dictionaries(st.sampled_from(["include_usage", "a", "b"]), VALUES, max_size=3)


@given(
    fields=st.dictionaries(
        st.text(max_size=6).filter(lambda k: k not in ("model", "stream_options")), VALUES, max_size=3
    ),
    options=st.none() | st.tuples(OPTIONS),
    first=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_asking_changes_nothing_else(
    fields: dict[str, object], options: tuple[dict[str, object] | None] | None, first: bool, indent: int | None
) -> None:
    content: dict[str, object] = {"model": "m", **fields}
    if options is not None:
        content = {"stream_options": options[0], **content} if first else {**content, "stream_options": options[0]}
    made = read(json.dumps(content, indent=indent).encode()).asking()
    given = (options and options[0]) or {}
    if made is None:
        asked = given.get("include_usage")
        assert (asked is not None and asked is not False) or "stream_options" in json.dumps(fields)
        return
    assert json.loads(made.body) == {**content, "stream_options": {**given, "include_usage": True}}
    assert json.loads(made.body[made.start : made.end]) == "m"
