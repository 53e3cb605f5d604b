"""Many requests, some at once: each thread has a connection of its own, and takes the next number that is left."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from geniehive.bench.asking import Asked, Asker, Target, Unreachable
from geniehive.bench.workload import Workload


@dataclass(frozen=True)
class Plan:
    """warmup: requests before all others, one by one; they count nowhere. timeout: the longest silence, in seconds."""

    requests: int
    concurrency: int = 1
    warmup: int = 1
    seed: int = 0
    timeout: float = 300.0


# Each request that is done, in no certain order, from one thread at a time.
Tell = Callable[[Asked], None]


def run(target: Target, workload: Workload, plan: Plan, tell: Tell) -> list[Asked]:
    """By their numbers. Hopeless, if it is so from the start; ValueError for a bad URL."""
    _warm_up(target, workload, plan)
    return _Run(target, workload, plan, tell).run()


def _warm_up(target: Target, workload: Workload, plan: Plan) -> None:
    asker = Asker(target, workload, plan.timeout)
    try:
        for number in range(plan.warmup):
            # Other numbers than the ones that are measured: what they ask must not be known yet.
            asker.ask(-1, workload.make(plan.seed, plan.requests + number))
    finally:
        asker.close()


class _Run:
    def __init__(self, target: Target, workload: Workload, plan: Plan, tell: Tell) -> None:
        self._target = target
        self._workload = workload
        self._plan = plan
        self._tell = tell
        self._lock = threading.Lock()
        self._next = 0
        self._found: list[Asked] = []
        self._failure: BaseException | None = None

    def run(self) -> list[Asked]:
        # Daemons: Ctrl-C ends the process, whatever they wait for.
        threads = [
            threading.Thread(target=self._work, name=f"bench {number}", daemon=True)
            for number in range(min(self._plan.concurrency, self._plan.requests))
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:
            # Ctrl-C: nobody begins another one.
            self._next = self._plan.requests
        if self._failure is not None:
            raise self._failure
        return sorted(self._found, key=lambda asked: asked.number)

    def _work(self) -> None:
        asker = Asker(self._target, self._workload, self._plan.timeout)
        try:
            while (number := self._take()) is not None:
                try:
                    asked = asker.ask(number, self._workload.make(self._plan.seed, number))
                except Unreachable as error:
                    # What was measured before is not lost by it.
                    if not self._found:
                        raise
                    asked = Asked(number, error=str(error))
                with self._lock:
                    self._found.append(asked)
                    self._tell(asked)
        except BaseException as error:  # noqa: BLE001  it is raised where `run` was called
            with self._lock:
                self._failure = self._failure or error
                self._next = self._plan.requests
        finally:
            asker.close()

    def _take(self) -> int | None:
        with self._lock:
            if self._next >= self._plan.requests:
                return None
            self._next += 1
            return self._next - 1
