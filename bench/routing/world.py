"""One run: time goes on, requests come, gateways send them to engines, engines answer."""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from heapq import heappop, heappush
from math import inf

from bench.routing.clients import Clients, rate
from bench.routing.engines import Engine, Request
from bench.routing.fleets import SCENARIOS
from bench.routing.rivals import STRATEGIES, Gateway

# Seconds between two samples of an engine's load; each has its own rhythm.
_PERIODS = (0.5, 2.0)


class World:
    """engines, done: as they are after `run`."""

    def __init__(self, engines: list[Engine], gateways: list[Gateway], clients: Clients) -> None:
        self.engines = engines
        self.done: list[Request] = []
        self._gateways = gateways
        self._clients = clients
        self._events: list[tuple[float, int, Request | None, Engine | None, int]] = []
        self._count = 0

    def _at(self, when: float, request: Request | None = None, engine: Engine | None = None) -> None:
        self._count += 1
        version = 0
        if engine is not None:
            engine.version += 1
            version = engine.version
        if when < inf:
            heappush(self._events, (when, self._count, request, engine, version))

    def run(self) -> None:
        self.send_all(self._clients.first())

    def send_all(self, requests: Iterable[Request]) -> None:
        """And go on until all are answered."""
        for coming in requests:
            self._at(coming.came, coming)
        while self._events:
            now, _, request, engine, version = heappop(self._events)
            if request is not None:
                self._send(request, now)
            elif engine is not None and version == engine.version:
                self._happen(engine, now)

    def _send(self, request: Request, now: float) -> None:
        for engine in self.engines:
            self._sample(engine, now)
        number = self._gateways[request.gateway].send(request, now)
        request.engine = number
        engine = self.engines[number]
        engine.advance(now)
        engine.enqueue(request)
        engine.admit(now)
        self._at(engine.next_time(), engine=engine)

    def _happen(self, engine: Engine, now: float) -> None:
        self._sample(engine, now)
        engine.advance(now)
        first, done = engine.happen(now)
        if first is not None:
            self._gateways[first.gateway].first(first, now)
        for request in done:
            self._gateways[request.gateway].done(request, now)
            self.done.append(request)
            following = self._clients.after(request, now)
            if following is not None:
                self._at(following.came, following)
        engine.admit(now)
        self._at(engine.next_time(), engine=engine)

    def _sample(self, engine: Engine, now: float) -> None:
        if engine.take_sample(now):
            for gateway in self._gateways:
                gateway.sampled(engine, now)


def run(scenario: str, strategy: str, utilisation: float, seed: int, count: int = 800) -> World:
    """The same seed brings the same requests to every strategy."""
    what = SCENARIOS[scenario]
    engines = what.fleet()
    chance = random.Random(seed * 7919 + 13)
    models = [model for model, _ in what.models]
    for engine in engines:
        engine.period = chance.uniform(*_PERIODS)
        engine.phase = -chance.random() * engine.period
        warm = random.Random(seed * 31 + engine.number)
        for model in warm.sample(models, len(models))[: engine.fits]:
            engine.warm(model)
        engine.take_sample(0.0)
    make = STRATEGIES[strategy]
    gateways = [make(engines, what.gateways, random.Random(chance.random())) for _ in range(what.gateways)]
    clients = Clients(what, count, rate(engines, what.kind, utilisation), seed * 101 + 7)
    world = World(engines, gateways, clients)
    world.run()
    return world


def burst(strategy: str, gateways: int, seed: int, count: int = 16) -> float:
    """What part of so many that come at once, to four equal hosts of four slots, goes to the host that gets most."""
    what = replace(SCENARIOS["4 alike, 4 slots"], gateways=gateways)
    engines = what.fleet()
    chance = random.Random(seed * 7919 + 13)
    for engine in engines:
        engine.period = chance.uniform(*_PERIODS)
        engine.phase = -chance.random() * engine.period
        engine.warm("m0")
        engine.take_sample(0.0)
    make = STRATEGIES[strategy]
    made = [make(engines, gateways, random.Random(chance.random())) for _ in range(gateways)]
    # Something went before, so that they know the hosts.
    before = Clients(what, 100, rate(engines, what.kind, 0.3), seed * 101 + 7)
    world = World(engines, made, before)
    world.run()
    start = max(request.done for request in world.done) + 10.0
    requests = list(Clients(what, count, 1.0, seed * 103 + 11).first())[:count]
    for request in requests:
        request.came = start + chance.random() * 0.3
    world.send_all(requests)
    return max(Counter(request.engine for request in requests).values()) / count
