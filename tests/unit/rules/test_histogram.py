from hypothesis import given
from hypothesis import strategies as st

from geniehive.rules.histogram import BOUNDS, quantile, rebin

counts = st.lists(st.integers(0, 1000), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1)


def test_bounds_grow() -> None:
    assert list(BOUNDS) == sorted(set(BOUNDS))


def test_a_quantile_lies_where_it_was_counted() -> None:
    assert quantile((1.0, 2.0, 4.0), (0, 4, 0, 0), 0.5) == 1.5
    assert quantile((1.0, 2.0, 4.0), (4, 0, 0, 0), 1.0) == 1.0
    assert quantile((1.0, 2.0, 4.0), (1, 0, 1, 0), 0.5) == 1.0
    assert quantile((1.0, 2.0, 4.0), (0, 0, 0, 3), 0.5) == 4.0, "above all bounds nothing more is known"
    assert quantile((1.0, 2.0, 4.0), (0, 0, 0, 0), 0.5) is None
    assert quantile((), (), 0.5) is None


@given(counts, st.floats(0, 1), st.floats(0, 1))
def test_quantiles_grow_with_their_share(counted: list[int], one: float, other: float) -> None:
    low, high = (quantile(BOUNDS, counted, share) for share in sorted((one, other)))
    assert (low is None) is (high is None) is (sum(counted) == 0)
    if low is not None and high is not None:
        assert 0 <= low <= high + 1e-9
        assert high <= BOUNDS[-1]


def test_other_buckets_keep_what_was_below_a_bound_below_it() -> None:
    assert rebin((0.5, 1.0), (1, 2, 3), (0.5, 0.9, 2.0)) == [1, 0, 2, 3]
    assert rebin((1.0, 8.0), (1, 2, 3), (0.5, 2.0)) == [0, 1, 5]
    assert rebin((), (3,), (1.0,)) == [0, 3]


@given(counts)
def test_nothing_is_lost_in_other_buckets(counted: list[int]) -> None:
    assert rebin(BOUNDS, counted, BOUNDS) == counted
    assert sum(rebin(BOUNDS, counted, (0.3, 7.0))) == sum(counted)
