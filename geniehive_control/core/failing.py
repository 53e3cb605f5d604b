"""Which services fail what gateways send them, as all gateways together report it.

A service that failed half of what it took within WINDOW, and no less than LEAST requests, is left out for a while, and
longer each time. Then it is on trial: gateways try it with one request at a time, and what becomes of these decides.
One model that fails beside another of its service that serves does not take out the service; gateways leave that out by
themselves. A connection that fails counts only if control does not get there either: else it is the gateway's own
affair. Refusals, and whatever clients did wrong, count for nothing.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

# Seconds that count.
WINDOW = 30.0
LEAST = 5
SHARE = 0.5
FIRST_OUT, LONGEST_OUT = 10.0, 300.0
# A trial that nothing was heard of for so long is over, and so is the memory of earlier ones.
TRIAL, REMEMBERED = 60.0, 600.0


class Row(Protocol):
    """What gateways saw of one endpoint: sums over an interval."""

    @property
    def endpoint(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def connect(self) -> int: ...
    @property
    def upstream(self) -> int: ...
    @property
    def timeout(self) -> int: ...
    @property
    def cut(self) -> int: ...


class Sum(NamedTuple):
    """failed: of the attempts, connections that failed aside; those are `unconnected`."""

    attempts: int = 0
    failed: int = 0
    unconnected: int = 0


class _State:
    """Of a service. out: until when it is left out; trial: until when it is on trial. None: neither."""

    __slots__ = ("latest", "out", "span", "trial", "window", "words")

    def __init__(self) -> None:
        # By endpoint, with the time of each report.
        self.window: dict[str, deque[tuple[float, Sum]]] = {}
        self.latest = 0.0
        self.out: float | None = None
        self.trial: float | None = None
        self.span = 0.0
        self.words = ""

    def sums(self, now: float) -> dict[str, Sum]:
        found = {}
        for endpoint, reports in list(self.window.items()):
            while reports and reports[0][0] <= now - WINDOW:
                reports.popleft()
            if reports:
                found[endpoint] = Sum(*(sum(column) for column in zip(*(r for _, r in reports), strict=True)))
            else:
                del self.window[endpoint]
        return found


class Failing:
    """What is known of every service. Times are of the clock that only grows.

    answering: whether control gets there itself.
    """

    def __init__(self, answering: Callable[[str], bool]) -> None:
        self._answering = answering
        self._states: dict[str, _State] = {}
        # When something is to be looked at without a report; None: nothing is.
        self.due: float | None = None

    def take(self, rows: Iterable[Row], now: float) -> set[str]:
        """What gateways report. Gives the services of which something else is known now."""
        touched = set()
        for row in rows:
            service = service_of(row.endpoint)
            if not row.attempts or service is None:
                continue
            state = self._states.get(service)
            if state is None:
                state = self._states[service] = _State()
            seen = Sum(row.attempts, row.upstream + row.timeout + row.cut, row.connect)
            state.window.setdefault(row.endpoint, deque()).append((now, seen))
            state.latest = now
            touched.add(service)
        changed = {service for service in touched if self._judge(service, self._states[service], now)}
        self._plan()
        return changed

    def tick(self, now: float) -> set[str]:
        """`due` has come."""
        changed = set()
        for service, state in list(self._states.items()):
            if state.out is not None and state.out <= now:
                self._try(state, now)
                changed.add(service)
            elif state.trial is not None and state.trial <= now:
                state.trial = None
                changed.add(service)
            elif state.out is None and state.trial is None and state.span and state.latest + REMEMBERED <= now:
                del self._states[service]
        self._plan()
        return changed

    def recovered(self, service: str, now: float) -> bool:
        """Control found it broken, and now finds it well. Whether that changed anything."""
        state = self._states.get(service)
        if state is None or state.out is None:
            return False
        self._try(state, now)
        self._plan()
        return True

    def drop(self, service: str) -> None:
        """It is away."""
        self._states.pop(service, None)

    def out(self, service: str) -> str:
        """Why it is left out, in words; empty: it is not."""
        state = self._states.get(service)
        return state.words if state is not None and state.out is not None else ""

    def trial(self, service: str) -> str:
        """Why it is on trial, in words; empty: it is not."""
        state = self._states.get(service)
        return state.words if state is not None and state.trial is not None else ""

    def _judge(self, service: str, state: _State, now: float) -> bool:
        if state.out is not None:
            return False
        sums = state.sums(now)
        by_endpoint = [self._shares(service, found) for found in sums.values()]
        attempts, failed = (sum(column) for column in zip(*by_endpoint, strict=True))
        if state.trial is not None:
            if failed and failed >= SHARE * attempts:
                self._leave_out(state, attempts, failed, now)
                return True
            if attempts > failed:
                state.trial = None
                return True
            return False
        if attempts < LEAST or failed < SHARE * attempts:
            return False
        if any(a >= LEAST and f < SHARE * a for a, f in by_endpoint):
            return False
        self._leave_out(state, attempts, failed, now)
        return True

    def _shares(self, service: str, found: Sum) -> tuple[int, int]:
        """Attempts and failures that count."""
        if found.unconnected and self._answering(service):
            return found.attempts - found.unconnected, found.failed
        return found.attempts, found.failed + found.unconnected

    def _leave_out(self, state: _State, attempts: int, failed: int, now: float) -> None:
        state.span = min(LONGEST_OUT, state.span * 2) if state.span else FIRST_OUT
        state.out, state.trial = now + state.span, None
        state.words = f"{failed} of the last {attempts} requests that gateways sent it failed"
        state.window.clear()

    @staticmethod
    def _try(state: _State, now: float) -> None:
        state.out, state.trial = None, now + TRIAL
        state.window.clear()

    def _plan(self) -> None:
        waits = []
        for state in self._states.values():
            if state.out is not None:
                waits.append(state.out)
            elif state.trial is not None:
                waits.append(state.trial)
            elif state.span:
                waits.append(state.latest + REMEMBERED)
        self.due = min(waits, default=None)


def service_of(endpoint: str) -> str | None:
    """ "endpoint/gpu-1/ollama/qwen3:8b" -> "gpu-1/ollama"."""
    parts = endpoint.split("/", 3)
    return f"{parts[1]}/{parts[2]}" if len(parts) == 4 and parts[0] == "endpoint" else None
