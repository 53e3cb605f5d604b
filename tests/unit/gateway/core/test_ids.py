import pytest

from gateway.core.ids import is_sane


@pytest.mark.parametrize("good", ["a", "req-1", "018f2b1e-7e6f", "A.b_c:d/e+f=@", "x" * 128])
def test_sane(good: str) -> None:
    assert is_sane(good)


@pytest.mark.parametrize("bad", ["", "a b", "a\n", "x" * 129, "ä", '"'])
def test_not_sane(bad: str) -> None:
    assert not is_sane(bad)
