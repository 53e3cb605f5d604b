"""How simulated gateways choose: by GenieHive's strategies, with its own code, or by others to compare with."""

import random
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

from msgspec import structs

from bench.routing.clients import HOT_PREFIX
from bench.routing.engines import MODEL_SIZES, Engine, Request
from gateway.core.asking import BLOCK_TOKENS, Ask
from gateway.core.balance import Balance
from gateway.core.flight import Flight
from gateway.core.outcome import Tokens
from gateway.core.plan import Candidate, Choice, Lane, Plan, TierPlan
from geniehive.rules.model import BenchmarkSample, ServiceLoad, Speed, Strategy
from geniehive.rules.operations import Operation
from geniehive_control.core import scoring

_STALE_AFTER = 10.0
# Of scores: the parts of runtime and benchmark for services, from how many answers the median is, and every how many
# seconds weights are made.
_RUNTIME, _BENCHMARK = 0.45, 0.35
_LATELY = 15
_WEIGHED_EVERY = 10.0
_NOBODY: set[str] = set()
_HOT_BLOCKS = tuple(range(1, HOT_PREFIX // BLOCK_TOKENS + 1))


class Gateway:
    """strategy: of its tiers. gateways: how many it takes to do as it does. chance: for those who choose by it."""

    def __init__(self, engines: list[Engine], strategy: Strategy, gateways: int, chance: random.Random) -> None:
        self.balance = Balance(gateways=gateways)
        self.chance = chance
        self.engines = engines
        self._strategy = strategy
        self._plans: dict[str, Plan] = {}
        self._models: list[frozenset[str]] = [engine.sample.models for engine in engines]
        # Where each gateway begins its turn is chance.
        self._turned = chance.randrange(len(engines))

    def sampled(self, engine: Engine, now: float) -> None:
        """A new load sample of it is there, and the table says what it has in memory."""
        sample = engine.sample
        load = ServiceLoad(
            service=f"e{engine.number}/s", age_seconds=now - sample.at, running=sample.running, queued=sample.queued
        )
        self.balance.loads.take((load,), _STALE_AFTER, self.balance.own_at, now)
        if self._models[engine.number] != sample.models:
            self._models[engine.number] = sample.models
            self._plans.clear()

    def send(self, request: Request, now: float) -> int:
        """The engine that gets it."""
        plan = self._plans.get(request.model)
        if plan is None:
            plan = self._plans[request.model] = self._plan(request.model)
        ask = _ask(request)
        choice = self.choose(plan, ask, now)
        request.flight = self.balance.started(choice, now, ask)
        return int(choice.candidate.host[1:])

    def choose(self, plan: Plan, ask: Ask, now: float) -> Choice:
        choice = self.balance.choose(plan, _NOBODY, now, ask)
        assert isinstance(choice, Choice)
        return choice

    def has(self, candidate: Candidate, now: float) -> int:
        """Requests there, as far as is known here."""
        sample = self.balance.loads.others(candidate.load_key, now)
        return self.balance.own_at(candidate.load_key, now) + (sample.others if sample is not None else 0)

    def _first(self, plan: Plan, rank: Callable[[Candidate], Any]) -> Choice:
        """Of the least, the first from where the turn begins."""
        tier = plan.tiers[0]
        self._turned += 1
        begin = self._turned % len(tier.candidates)
        chosen = min(tier.candidates[begin:] + tier.candidates[:begin], key=rank)
        return Choice(chosen, chosen.lanes[0], tier.label)

    def first(self, request: Request, now: float) -> None:
        assert isinstance(request.flight, Flight)
        request.flight.first(now)

    def done(self, request: Request, now: float) -> None:
        assert isinstance(request.flight, Flight)
        tokens = Tokens(round(request.prompt), round(request.output), round(request.hit))
        self.balance.ended(request.flight, now, now - request.came, tokens, True)

    def _plan(self, model: str) -> Plan:
        candidates = [self._candidate(engine, model) for engine in self.engines]
        candidates = candidates[self._turned :] + candidates[: self._turned]
        return Plan(model, (TierPlan((model, Operation.CHAT, 0), model, tuple(candidates), self._strategy),))

    def _candidate(self, engine: Engine, model: str) -> Candidate:
        service = f"e{engine.number}/s"
        return Candidate(
            endpoint=f"endpoint/{service}/{model}",
            service=service,
            host=f"e{engine.number}",
            asset_id=model,
            upstream_name=model,
            lanes=(Lane(service, f"http://e{engine.number}"),),
            load_key=service,
            slots=engine.slots,
            slots_known=True,
            loaded=model in self._models[engine.number],
            weight=self._weight(engine, model),
            speed=self._speed(engine),
        )

    def _weight(self, engine: Engine, model: str) -> int:
        return 0

    def _speed(self, engine: Engine) -> Speed | None:
        """As control would tell it."""
        return None


def _ask(request: Request) -> Ask:
    blocks: tuple[int, ...] = ()
    if request.hot:
        blocks = (*_HOT_BLOCKS, -request.number)
    return Ask(
        route=request.model,
        prompt_tokens=int(request.prompt),
        conversation=None if request.hot else request.conversation,
        blocks=blocks,
    )


class _Measured(Gateway):
    """It has been told what a benchmark of each engine measured."""

    def _speed(self, engine: Engine) -> Speed | None:
        return Speed(decode_tokens_per_second=engine.decode, prefill_tokens_per_second=engine.prefill)


class _Scored(Gateway):
    """By match scores, as control makes them of a benchmark of each engine, and of how long its answers took lately."""

    def __init__(self, engines: list[Engine], strategy: Strategy, gateways: int, chance: random.Random) -> None:
        super().__init__(engines, strategy, gateways, chance)
        self._durations: dict[tuple[int, str], deque[float]] = {}
        self._weighed = 0.0

    def done(self, request: Request, now: float) -> None:
        super().done(request, now)
        durations = self._durations.setdefault((request.engine, request.model), deque(maxlen=_LATELY))
        durations.append(now - request.came)
        if now >= self._weighed + _WEIGHED_EVERY:
            self._weighed = now
            self._plans.clear()

    def _weight(self, engine: Engine, model: str) -> int:
        durations = self._durations.get((engine.number, model))
        found = scoring.Runtime(
            loaded=model in self._models[engine.number],
            p50_seconds=median(durations) if durations else None,
            tokens_per_second=engine.decode,
        )
        sample = BenchmarkSample(
            sample_id="s",
            service=f"e{engine.number}/s",
            asset_id=model,
            workload="chat.short_reasoning/1",
            measured=0.0,
            request_count=10,
            decode_tokens_per_second=engine.decode,
        )
        terms = (scoring.runtime(_RUNTIME, found), scoring.benchmark(_BENCHMARK, (sample,)))
        return scoring.weight(terms)[0]


class _ScoredByLooks(Gateway):
    """By the same score of what the gateway sees itself: the speed of answers, which is its benchmark, how long the
    latest took, who waits. Of equal ones whoever has the fewest requests.
    """

    # Whether a benchmark of each engine was made before the run.
    benchmarked = False

    def __init__(self, engines: list[Engine], strategy: Strategy, gateways: int, chance: random.Random) -> None:
        super().__init__(engines, strategy, gateways, chance)
        self._speeds: dict[str, float] = {}
        if self.benchmarked:
            for engine in engines:
                self._speeds |= {f"endpoint/e{engine.number}/s/{model}": engine.decode for model in MODEL_SIZES}
        self._durations: dict[str, deque[float]] = {}

    def done(self, request: Request, now: float) -> None:
        super().done(request, now)
        endpoint = f"endpoint/e{request.engine}/s/{request.model}"
        speed = request.output / max(now - request.first, 1e-3)
        before = self._speeds.get(endpoint, speed)
        self._speeds[endpoint] = before + 0.2 * (speed - before)
        self._durations.setdefault(endpoint, deque(maxlen=_LATELY)).append(now - request.came)

    def choose(self, plan: Plan, ask: Ask, now: float) -> Choice:
        return self._first(plan, lambda c: (-self._score(c, self.has(c, now)), self.has(c, now)))

    def _score(self, candidate: Candidate, count: int) -> float:
        speed = self._speeds.get(candidate.endpoint, 0.0)
        durations = self._durations.get(candidate.endpoint)
        runtime = 0.35 if candidate.loaded else 0.0
        if durations:
            p50 = median(durations)
            runtime += 0.30 if p50 < 0.5 else 0.20 if p50 < 1.5 else 0.10 if p50 < 3.0 else 0.05
        runtime += 0.20 if speed >= 40 else 0.10 if speed >= 20 else 0.0
        waiting = count - candidate.slots
        runtime -= 0.20 if waiting >= 5 else 0.10 if waiting >= 2 else 0.0
        runtime -= 0.10 if waiting >= 0 else 0.0
        return _RUNTIME * min(1.0, max(0.0, runtime)) + _BENCHMARK * 0.55 * min(1.0, speed / 60)


class _ScoredByBenchmark(_ScoredByLooks):
    benchmarked = True


class _LoadedByCount(Gateway):
    """Those whose model is in memory; of them whoever has the fewest requests."""

    def choose(self, plan: Plan, ask: Ask, now: float) -> Choice:
        return self._first(plan, lambda c: (not c.loaded, self.has(c, now)))


class _LeastByCount(Gateway):
    """Whoever has the fewest requests."""

    def choose(self, plan: Plan, ask: Ask, now: float) -> Choice:
        return self._first(plan, lambda c: self.has(c, now))


class _OfTwo(Gateway):
    """The one of two, picked at random, that has fewer requests."""

    def choose(self, plan: Plan, ask: Ask, now: float) -> Choice:
        tier = plan.tiers[0]
        one, other = self.chance.sample(tier.candidates, 2)
        chosen = one if self.has(one, now) <= self.has(other, now) else other
        return Choice(chosen, chosen.lanes[0], tier.label)


class _Forgetful(Gateway):
    """It does not know what engines have in their caches."""

    def choose(self, plan: Plan, ask: Ask, now: float) -> Choice:
        return super().choose(plan, structs.replace(ask, conversation=None, blocks=()), now)


_Make = Callable[[list[Engine], int, random.Random], Gateway]


def _by(strategy: Strategy, made: type[Gateway] = Gateway) -> _Make:
    return lambda engines, gateways, chance: made(engines, strategy, 1, chance)


SOONEST = "soonest"
MEASURED = "soonest, benchmarked"
MIRRORED = "soonest, mirrored"
FORGETFUL = "soonest, no affinity"
# How strategies are usually meant: requests are counted, and a score is of what one sees and of benchmarks.
RIVALS = ("loaded_first", "scored, benchmarked", "least_loaded", "round_robin", "random of two")
# The same where nobody has benchmarks.
UNTOLD = ("loaded_first", "scored", "least_loaded", "round_robin", "random of two")
# As GenieHive has them: requests for each slot count, and a score is control's, of a benchmark too.
STRONGER = ("loaded_first per slot", "scored per slot", "least_loaded per slot")
STRATEGIES: dict[str, _Make] = {
    SOONEST: _by(Strategy.SOONEST),
    MEASURED: _by(Strategy.SOONEST, _Measured),
    MIRRORED: lambda engines, gateways, chance: Gateway(engines, Strategy.SOONEST, gateways, chance),
    FORGETFUL: _by(Strategy.SOONEST, _Forgetful),
    "loaded_first": _by(Strategy.LOADED_FIRST, _LoadedByCount),
    "scored": _by(Strategy.SCORED, _ScoredByLooks),
    "scored, benchmarked": _by(Strategy.SCORED, _ScoredByBenchmark),
    "least_loaded": _by(Strategy.LEAST_LOADED, _LeastByCount),
    "round_robin": _by(Strategy.ROUND_ROBIN),
    "random of two": _by(Strategy.ROUND_ROBIN, _OfTwo),
    "loaded_first per slot": _by(Strategy.LOADED_FIRST),
    "scored per slot": _by(Strategy.SCORED, _Scored),
    "least_loaded per slot": _by(Strategy.LEAST_LOADED),
}
