"""How many retries there may be, so that a failing cluster is not buried under its own retries."""

SHARE = 0.2
FLOOR_PER_SECOND = 10.0
WINDOW = 10


class RetryBudget:
    """Over the last 10 seconds: a fifth of the requests, and 10 a second however few requests there were."""

    def __init__(self) -> None:
        self._second = 0
        self._slot = 0
        self._requests = [0] * WINDOW
        self._retries = [0] * WINDOW

    def request(self, now: float) -> None:
        """A request began."""
        if now >= self._second + 1:
            self._turn_to(int(now))
        self._requests[self._slot] += 1

    def retry(self, now: float) -> bool:
        """Whether one more retry may be made; if so it is counted."""
        self._turn_to(int(now))
        allowed = SHARE * sum(self._requests) + FLOOR_PER_SECOND * WINDOW
        if sum(self._retries) + 1 > allowed:
            return False
        self._retries[self._slot] += 1
        return True

    def _turn_to(self, second: int) -> None:
        if second == self._second:
            return
        for passed in range(max(self._second + 1, second - WINDOW + 1), second + 1):
            self._requests[passed % WINDOW] = 0
            self._retries[passed % WINDOW] = 0
        self._second = second
        self._slot = second % WINDOW
