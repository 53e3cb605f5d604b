"""How endpoints fare, as gateways saw it: speeds, times, lengths of answers, over the last minutes.

What is learned fades with time, but never wholly: an endpoint that rests keeps the last figures it had, as a weak
opinion that some requests change. What benchmarks measured counts like a few requests, so that it speaks where there
are no others. What is told of it (`Changes`) is rounded to bands and stays as long as it is nearly right: the tables of
gateways are to rest.
"""

from collections.abc import Callable, Iterable, Iterator
from math import floor, log10
from typing import NamedTuple

from geniehive.rules.histogram import BOUNDS, quantile
from geniehive.rules.model import ServiceLoad, Speed

# Seconds after which what was seen counts half.
HALF_LIFE = 600.0
# Seconds between two changes of what is told of one endpoint, or one name.
SETTLED = 60.0
# Times that a figure must differ from what was told of it.
_SPEED_BAND = 1.2
_LATENCY_BAND = 1.5
_LENGTH_BAND = 1.3
# So much must have been seen before anything is told.
_ENOUGH_PREFILL, _ENOUGH_DECODE = 500.0, 50.0
_ENOUGH_ANSWERS = 3.0
# So much never fades.
_LEAST_PREFILL, _LEAST_DECODE, _LEAST_COLD = 5_000.0, 500.0, 1.0
_LEAST_ANSWERS = 20.0
# And at most so many times that is taken over from before a restart.
_RESTORED = 2.0
# Tokens for which a benchmark counts.
_BENCHMARK_PREFILL, _BENCHMARK_DECODE = 2_000.0, 200.0
# Names of which lengths are known; beyond these the one not heard of for longest is forgotten.
_MOST_NAMES = 10_000


class EndpointOutcomes(NamedTuple):
    """What one process of a gateway saw of one endpoint ("endpoint/...") under one name, since its last report.

    model: as clients wrote it. gateway: the process, its instance id. duration: counts by rules.histogram.BOUNDS. The
    others are as in the contract's Outcomes.
    """

    endpoint: str
    model: str
    gateway: str
    attempts: int = 0
    connect: int = 0
    upstream: int = 0
    timeout: int = 0
    cut: int = 0
    succeeded: int = 0
    completion_tokens: int = 0
    with_tokens: int = 0
    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    cold_starts: int = 0
    cold_start_seconds: float = 0.0
    duration: tuple[int, ...] = ()


class Changes(NamedTuple):
    """What is to be told anew: by endpoint, by endpoint, by name."""

    speeds: dict[str, Speed]
    latencies: dict[str, float]
    expected: dict[str, int]


class _Sum:
    """So much in so many seconds, or of so many."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.count = 0.0
        self.total = 0.0

    def fade(self, factor: float, least: float) -> None:
        if self.count > least:
            factor = max(factor, least / self.count)
            self.count *= factor
            self.total *= factor


class _Endpoint:
    __slots__ = (
        "at", "benchmark", "changed", "cold", "decode", "duration", "latency", "latency_changed", "prefill", "speed",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        # When what was seen faded last.
        self.at = now
        # Count: tokens. Total: seconds. Of `cold` the count is of starts.
        self.prefill = _Sum()
        self.decode = _Sum()
        self.cold = _Sum()
        self.duration: list[float] = []
        # Tokens a second, of prefill and of decode; None: not measured.
        self.benchmark: tuple[float | None, float | None] = (None, None)
        # What is told, and since when.
        self.speed = Speed()
        self.changed = float("-inf")
        self.latency: float | None = None
        self.latency_changed = float("-inf")

    def add(self, row: EndpointOutcomes) -> None:
        if row.prefill_seconds > 0:
            self.prefill.count += row.prefill_tokens
            self.prefill.total += row.prefill_seconds
        if row.decode_seconds > 0:
            self.decode.count += row.decode_tokens
            self.decode.total += row.decode_seconds
        self.cold.count += row.cold_starts
        self.cold.total += row.cold_start_seconds
        if row.duration:
            had = self.duration or [0.0] * len(row.duration)
            self.duration = [before + count for before, count in zip(had, row.duration, strict=True)]

    def fade(self, factor: float) -> None:
        self.prefill.fade(factor, _LEAST_PREFILL)
        self.decode.fade(factor, _LEAST_DECODE)
        self.cold.fade(factor, _LEAST_COLD)
        answers = sum(self.duration)
        if answers > _LEAST_ANSWERS:
            factor = max(factor, _LEAST_ANSWERS / answers)
            self.duration = [count * factor for count in self.duration]

    def learned(self) -> Speed:
        """As it is now, not rounded."""
        prefill, decode = self.benchmark
        return Speed(
            prefill_tokens_per_second=_rate(self.prefill, prefill, _BENCHMARK_PREFILL, _ENOUGH_PREFILL),
            decode_tokens_per_second=_rate(self.decode, decode, _BENCHMARK_DECODE, _ENOUGH_DECODE),
            load_seconds=self.cold.total / self.cold.count if self.cold.count > 0.5 and self.cold.total > 0 else None,
        )

    def median(self) -> float | None:
        return quantile(BOUNDS, self.duration, 0.5) if sum(self.duration) >= _ENOUGH_ANSWERS else None


class _Name:
    """Answers under one name. Count: requests. Total: their tokens."""

    __slots__ = ("at", "changed", "expected", "lengths")

    def __init__(self, now: float) -> None:
        self.at = now
        self.lengths = _Sum()
        self.expected: int | None = None
        self.changed = float("-inf")


class Figures:
    """Times: in seconds, on the clock that only grows. load_of: what a service is busy with; None: it is not known."""

    def __init__(self, load_of: Callable[[str], ServiceLoad | None] = lambda service: None) -> None:
        self._load_of = load_of
        self._endpoints: dict[str, _Endpoint] = {}
        # Those heard of last stand last.
        self._names: dict[str, _Name] = {}
        # What is told of these is wrong, and was changed too short a time ago.
        self._unsettled: set[str] = set()
        self._unsettled_names: set[str] = set()

    def __len__(self) -> int:
        return len(self._endpoints)

    def __iter__(self) -> Iterator[str]:
        return iter(self._endpoints)

    # Questions.

    def speed(self, endpoint: str) -> Speed | None:
        """As told."""
        found = self._endpoints.get(endpoint)
        return None if found is None or found.speed == Speed() else found.speed

    def decode(self, endpoint: str) -> float | None:
        """Tokens a second that one request alone gets."""
        found = self._endpoints.get(endpoint)
        return None if found is None else found.learned().decode_tokens_per_second

    def latency_p50(self, endpoint: str) -> float | None:
        """The median of whole answers, in seconds."""
        found = self._endpoints.get(endpoint)
        return None if found is None else found.median()

    def queue(self, service: str) -> int | None:
        """Requests that wait in the engine now."""
        load = self._load_of(service)
        return None if load is None else load.queued

    def expected(self, model: str) -> int | None:
        """Tokens of an answer under this name, as told."""
        found = self._names.get(model)
        return None if found is None else found.expected

    # What happens.

    def restore(self, rows: Iterable[EndpointOutcomes], now: float) -> Changes:
        """What was seen before a restart: an opinion that the first minutes may change."""
        endpoints, names = self._add(rows, now)
        for endpoint in endpoints:
            found = self._endpoints[endpoint]
            found.prefill.fade(0.0, _RESTORED * _LEAST_PREFILL)
            found.decode.fade(0.0, _RESTORED * _LEAST_DECODE)
            found.cold.fade(0.0, _RESTORED * _LEAST_COLD)
            answers = sum(found.duration)
            if answers > _RESTORED * _LEAST_ANSWERS:
                found.duration = [count * _RESTORED * _LEAST_ANSWERS / answers for count in found.duration]
        for name in names:
            self._names[name].lengths.fade(0.0, _RESTORED * _LEAST_ANSWERS)
        return self._judge(endpoints, names, now)

    def take(self, rows: Iterable[EndpointOutcomes], now: float) -> Changes:
        """What a gateway reported."""
        return self._judge(*self._add(rows, now), now)

    def benchmarked(self, endpoint: str, prefill: float | None, decode: float | None, now: float) -> Changes:
        """Tokens a second that were measured; None: they were not, and what was known of it stays."""
        found = self._endpoint(endpoint, now)
        before = found.benchmark
        found.benchmark = (prefill or before[0], decode or before[1])
        return self._judge({endpoint}, set(), now)

    def settle(self, now: float) -> Changes:
        """To be called now and then: what could not be told yet."""
        return self._judge(self._unsettled & self._endpoints.keys(), self._unsettled_names & self._names.keys(), now)

    def forget(self, endpoint: str) -> None:
        self._endpoints.pop(endpoint, None)
        self._unsettled.discard(endpoint)

    def _add(self, rows: Iterable[EndpointOutcomes], now: float) -> tuple[set[str], set[str]]:
        endpoints: set[str] = set()
        names: set[str] = set()
        for row in rows:
            endpoints.add(row.endpoint)
            self._endpoint(row.endpoint, now).add(row)
            if row.with_tokens and row.model:
                names.add(row.model)
                lengths = self._name(row.model, now).lengths
                lengths.count += row.with_tokens
                lengths.total += row.completion_tokens
        return endpoints, names

    def _endpoint(self, endpoint: str, now: float) -> _Endpoint:
        found = self._endpoints.get(endpoint)
        if found is None:
            found = self._endpoints[endpoint] = _Endpoint(now)
        elif now > found.at:
            found.fade(0.5 ** ((now - found.at) / HALF_LIFE))
            found.at = now
        return found

    def _name(self, model: str, now: float) -> _Name:
        found = self._names.pop(model, None)
        if found is None:
            found = _Name(now)
            if len(self._names) >= _MOST_NAMES:
                oldest = next(iter(self._names))
                del self._names[oldest]
                self._unsettled_names.discard(oldest)
        elif now > found.at:
            found.lengths.fade(0.5 ** ((now - found.at) / HALF_LIFE), _LEAST_ANSWERS)
            found.at = now
        self._names[model] = found
        return found

    def _judge(self, endpoints: Iterable[str], names: Iterable[str], now: float) -> Changes:
        changes = Changes({}, {}, {})
        for endpoint in endpoints:
            self._unsettled.discard(endpoint)
            found = self._endpoints[endpoint]
            self._judge_speed(endpoint, found, now, changes)
            latency = found.median()
            if latency is not None and _differs(found.latency, latency, _LATENCY_BAND):
                if found.latency is None or found.latency_changed + SETTLED <= now:
                    changes.latencies[endpoint] = found.latency = band(latency)
                    found.latency_changed = now
                else:
                    self._unsettled.add(endpoint)
        for name in names:
            self._unsettled_names.discard(name)
            self._judge_length(name, self._names[name], now, changes)
        return changes

    def _judge_speed(self, endpoint: str, found: _Endpoint, now: float, changes: Changes) -> None:
        told = found.speed
        settled = found.changed + SETTLED <= now
        figures: dict[str, float | None] = {}
        unsettled = False
        learned = found.learned()
        for name in ("prefill_tokens_per_second", "decode_tokens_per_second", "load_seconds"):
            held, value = getattr(told, name), getattr(learned, name)
            figures[name] = held
            if value is not None and _differs(held, value, _SPEED_BAND):
                # What nobody knew is told at once.
                if held is None or settled:
                    figures[name] = band(value)
                else:
                    unsettled = True
        speed = Speed(**figures)
        if speed != told:
            found.speed = changes.speeds[endpoint] = speed
            found.changed = now
        if unsettled:
            self._unsettled.add(endpoint)

    def _judge_length(self, name: str, found: _Name, now: float, changes: Changes) -> None:
        lengths = found.lengths
        if lengths.count < _ENOUGH_ANSWERS:
            return
        value = max(1.0, lengths.total / lengths.count)
        if not _differs(found.expected, value, _LENGTH_BAND):
            return
        if found.expected is not None and found.changed + SETTLED > now:
            self._unsettled_names.add(name)
            return
        changes.expected[name] = found.expected = round(band(value))
        found.changed = now


def band(value: float) -> float:
    """Rounded to two digits."""
    return round(value, 1 - floor(log10(value)))


def _differs(told: float | None, value: float, times: float) -> bool:
    return told is None or not told / times <= value <= told * times


def _rate(seen: _Sum, benchmark: float | None, weight: float, enough: float) -> float | None:
    """Tokens a second; None: too little is known."""
    tokens, seconds = seen.count, seen.total
    if benchmark is not None:
        return (tokens + weight) / (seconds + weight / benchmark)
    return tokens / seconds if tokens >= enough and seconds > 0 else None
