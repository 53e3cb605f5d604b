from gateway.core.budget import RetryBudget


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
