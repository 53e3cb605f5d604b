import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive_node.engines import told

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(ANYTHING)
def test_nothing_an_engine_tells_breaks_the_reading(value: object) -> None:
    assert isinstance(told.table(value), dict)
    assert all(isinstance(t, dict) for t in told.tables(value))
    assert all(isinstance(w, str) for w in told.words(value))
    assert len(told.word(value)) <= 200
    for number in (told.whole(value), told.count(value)):
        assert number is None or 0 < number <= told.UINT64


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3.2B", 3_200_000_000),
        ("137M", 137_000_000),
        ("134.5 m", 134_500_000),
        (7, 7),
        ("big", None),
        ("", None),
        ("9" * 400 + "B", None),
    ],
)
def test_counts(text: object, number: int | None) -> None:
    assert told.count(text) == number


@given(st.binary(max_size=20))
def test_no_text_breaks_the_reading_of_a_gauge(text: bytes) -> None:
    number = told.gauge(text)
    assert number is None or 0 <= number <= told.UINT32


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"0", 0),
        (b"2", 2),
        (b"3.0", 3),
        (b"1e3", 1000),
        (b"9e12", None),
        (b"1e999", None),
        (b"NaN", None),
        (b"-1", None),
    ],
)
def test_gauges(text: bytes, number: int | None) -> None:
    assert told.gauge(text) == number


def test_whole_numbers_fit_or_are_not_known() -> None:
    assert told.whole(4096) == 4096
    assert told.whole(0) is told.whole(-1) is told.whole(True) is told.whole(4096.0) is told.whole(2**32) is None
    assert told.whole(2**32, told.UINT64) == 2**32


def test_versions() -> None:
    assert told.version("0.13.3-rc1") == (0, 13, 3)
    assert told.version("v0.14") >= (0, 14)
    assert told.version("main") == ()
