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
    [("3.2B", 3_200_000_000), ("137M", 137_000_000), ("134.5 m", 134_500_000), (7, 7), ("big", None), ("", None)],
)
def test_counts(text: object, number: int | None) -> None:
    assert told.count(text) == number


def test_whole_numbers_fit_or_are_not_known() -> None:
    assert told.whole(4096) == 4096
    assert told.whole(0) is told.whole(-1) is told.whole(True) is told.whole(4096.0) is told.whole(2**32) is None
    assert told.whole(2**32, told.UINT64) == 2**32


def test_versions() -> None:
    assert told.version("0.13.3-rc1") == (0, 13, 3)
    assert told.version("v0.14") >= (0, 14)
    assert told.version("main") == ()
