"""What came of a run: figures for each service and model that answered."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from geniehive.bench.asking import Asked

# Of a shorter prompt the time to the first token is mostly other things than reading it.
LEAST_PROMPT = 64
# Of a shorter answer the time between its first and its last token says little.
LEAST_ANSWER = 8


@dataclass(frozen=True)
class Figures:
    """Of one model of one service, or of all. None: nothing was told or measured.

    failed: requests without an answer that can be checked. passed: those of which all checks passed.
    correctness: share of checks passed; of a request that the engine refused none is.
    """

    service: str
    model: str
    requests: int
    failed: int
    refused: int
    passed: int
    checks: int
    checks_passed: int
    first_p50: float | None
    first_p95: float | None
    total_p50: float | None
    total_p95: float | None
    prefill_rate: float | None
    decode_rate: float | None
    prompt_tokens: int
    completion_tokens: int

    @property
    def correctness(self) -> float | None:
        return self.checks_passed / self.checks if self.checks else None

    @property
    def judged(self) -> int:
        """Requests that `correctness` is of."""
        return self.requests - self.failed

    @property
    def pass_rate(self) -> float | None:
        return self.passed / self.judged if self.judged else None


def by_service(results: Iterable[Asked]) -> list[Figures]:
    """One for each that answered; by name.

    Requests without an answer, of which nobody knows who should have given it, are under no name.
    """
    groups: dict[tuple[str, str], list[Asked]] = {}
    for asked in results:
        groups.setdefault((asked.service, asked.model), []).append(asked)
    return [_figures(*name, groups[name]) for name in sorted(groups)]


def together(results: Sequence[Asked]) -> Figures:
    return _figures("", "", results)


def _figures(service: str, model: str, results: Sequence[Asked]) -> Figures:
    answered = [asked for asked in results if asked.answered]
    refused = sum(asked.refused for asked in results)
    firsts = [asked.first for asked in answered if asked.first is not None]
    totals = [asked.total for asked in answered]
    return Figures(
        service=service,
        model=model,
        requests=len(results),
        failed=len(results) - len(answered) - refused,
        refused=refused,
        passed=sum(all(why is None for _, why in asked.checks) for asked in answered),
        checks=sum(len(asked.checks) for asked in results),
        checks_passed=sum(why is None for asked in results for _, why in asked.checks),
        first_p50=quantile(firsts, 0.5),
        first_p95=quantile(firsts, 0.95),
        total_p50=quantile(totals, 0.5),
        total_p95=quantile(totals, 0.95),
        prefill_rate=_rate(map(_prefill, answered)),
        decode_rate=_rate(map(_decode, answered)),
        prompt_tokens=sum(asked.prompt_tokens or 0 for asked in answered),
        completion_tokens=sum(asked.completion_tokens or 0 for asked in answered),
    )


def _prefill(asked: Asked) -> tuple[int, float] | None:
    """Tokens of the prompt that were read, and the seconds until the first of the answer."""
    if asked.first is None or asked.prompt_tokens is None:
        return None
    if asked.cached_tokens is None and not asked.fresh:
        # It may have been known.
        return None
    read = asked.prompt_tokens - (asked.cached_tokens or 0)
    return (read, asked.first) if read >= LEAST_PROMPT and asked.first > 0 else None


def _decode(asked: Asked) -> tuple[int, float] | None:
    """Tokens after the first, and the seconds that they took."""
    if asked.first is None or asked.last is None or (asked.completion_tokens or 0) < LEAST_ANSWER:
        return None
    # Of an answer in one piece nobody knows when it was begun.
    spent = asked.last - asked.first
    return ((asked.completion_tokens or 0) - 1, spent) if asked.pieces > 1 and spent > 0 else None


def _rate(parts: Iterable[tuple[int, float] | None]) -> float | None:
    found = [part for part in parts if part is not None]
    seconds = sum(part[1] for part in found)
    return sum(part[0] for part in found) / seconds if seconds > 0 else None


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest of which so many are no greater."""
    if not values:
        return None
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]
