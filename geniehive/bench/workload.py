"""What is asked: requests and the checks of their answers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from geniehive.bench.checks import Check

PATHS = {"chat": "/v1/chat/completions", "embeddings": "/v1/embeddings"}


@dataclass(frozen=True)
class Request:
    """body: without the model's name. fresh: no engine can have seen its beginning before."""

    body: dict[str, Any]
    checks: tuple[Check, ...]
    fresh: bool = False


@dataclass(frozen=True)
class Workload:
    """name: with its version, "chat.short_reasoning/1". operation: one of PATHS.

    make: the request of a number, from 0, by a seed: the same for the same two.
    """

    name: str
    operation: str
    summary: str
    make: Callable[[int, int], Request] = field(repr=False)
    # How many requests a run has if nobody says.
    usual: int = 20

    @property
    def path(self) -> str:
        return PATHS[self.operation]
