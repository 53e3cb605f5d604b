from hypothesis import given
from hypothesis import strategies as st

from gateway.core.budget import FLOOR_PER_SECOND, SHARE, WINDOW, RetryBudget


def spend(budget: RetryBudget, now: float) -> int:
    count = 0
    while budget.retry(now):
        count += 1
    return count


def test_a_hundred_retries_in_ten_seconds_however_few_requests() -> None:
    budget = RetryBudget()
    assert spend(budget, 5.0) == 100
    assert spend(budget, 14.9) == 0
    assert spend(budget, 15.0) == 100


def test_a_fifth_of_the_requests_on_top() -> None:
    budget = RetryBudget()
    for n in range(1000):
        budget.request(1.0 + n / 1000)
    assert spend(budget, 2.0) == 300


def test_old_requests_count_no_more() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.request(1.0)
    assert spend(budget, 500.0) == 100


@given(st.lists(st.tuples(st.floats(0, 4), st.integers(0, 200), st.integers(0, 200)), max_size=12))
def test_never_more_than_the_share_and_the_floor(steps: list[tuple[float, int, int]]) -> None:
    budget, now = RetryBudget(), 100.0
    requests: list[float] = []
    retries: list[float] = []
    for passed, asked, wanted in steps:
        now += passed
        for _ in range(asked):
            budget.request(now)
        requests += [now] * asked
        granted = sum(budget.retry(now) for _ in range(wanted))
        retries += [now] * granted
        within = int(now) - WINDOW + 1
        allowed = SHARE * sum(at >= within for at in requests) + FLOOR_PER_SECOND * WINDOW
        assert not granted or sum(at >= within for at in retries) <= allowed
