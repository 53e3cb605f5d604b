"""What is asked, and when: chats, bursts of them, agents whose conversations grow, prompts that begin alike."""

import math
import random
from collections.abc import Iterator

from bench.routing.engines import Engine, Request
from bench.routing.fleets import Scenario

# Tokens of a prompt and of an answer, in the mean, as far as they cost work: for the rate that loads a fleet so much.
_WORK = {"chat": (800.0, 200.0), "agent": (1100.0, 120.0), "hot": (0.7 * 300 + 0.3 * 800, 0.7 * 120 + 0.3 * 200)}
# Of those that begin alike: the tokens they share, and their part of all.
HOT_PREFIX = 3000
_HOT_PART = 0.7


def rate(engines: list[Engine], kind: str, utilisation: float) -> float:
    """Requests a second that keep the fleet so busy, if all of it is used."""
    prompt, output = _WORK[kind]
    most = sum(1 / (prompt * read + output * write) for read, write in (engine.capacity for engine in engines))
    return utilisation * most


class Clients:
    """About `count` requests."""

    def __init__(self, scenario: Scenario, count: int, per_second: float, seed: int) -> None:
        self._scenario = scenario
        self._count = count
        self._rate = per_second
        self._random = random.Random(seed)
        self._models = [model for model, _ in scenario.models]
        self._weights = [weight for _, weight in scenario.models]
        self._made = 0
        self._conversations = 0

    def _lognormal(self, mean: float, sigma: float) -> float:
        return max(1.0, self._random.lognormvariate(math.log(mean) - sigma * sigma / 2, sigma))

    def _request(self, when: float) -> Request:
        chance = self._random
        model = chance.choices(self._models, self._weights)[0]
        gateway = chance.randrange(self._scenario.gateways)
        prompt = self._lognormal(3000, 0.5) if chance.random() < 0.2 else self._lognormal(250, 0.6)
        self._made += 1
        return Request(self._made, when, model, gateway, prompt, self._lognormal(200, 0.8))

    def first(self) -> Iterator[Request]:
        """Those that come whatever happens, agents' first turns."""
        chance, made, when = self._random, 0, 0.0
        while made < self._count:
            if self._scenario.kind == "agent":
                when += chance.expovariate(self._rate / 8.0)
                request = self._request(when)
                self._conversations += 1
                request.conversation = self._conversations
                request.turns = 1 + min(40, int(chance.expovariate(1 / 7.5)))
                request.prompt = self._lognormal(4000, 0.4)
                request.output = self._lognormal(120, 0.7)
                made += request.turns
                yield request
            elif self._scenario.burst > 1:
                when += chance.expovariate(self._rate / self._scenario.burst)
                for _ in range(1 + int(chance.expovariate(1 / (self._scenario.burst - 0.5)))):
                    made += 1
                    yield self._hot(self._request(when + chance.random() * 0.3))
            else:
                when += chance.expovariate(self._rate)
                made += 1
                yield self._hot(self._request(when))

    def _hot(self, request: Request) -> Request:
        if self._scenario.kind == "hot" and self._random.random() < _HOT_PART:
            request.hot = True
            request.conversation = 0
            request.prefix = HOT_PREFIX
            request.prompt = HOT_PREFIX + self._lognormal(150, 0.5)
            request.output = self._lognormal(120, 0.6)
        return request

    def after(self, request: Request, now: float) -> Request | None:
        """What follows upon an answer: an agent's next turn."""
        if request.turns <= 1:
            return None
        chance = self._random
        self._made += 1
        # What was said is in the prompt, and what is new.
        prefix = request.prompt + request.output
        came = now + chance.uniform(0.3, 2.5)
        prompt = prefix + self._lognormal(600, 0.8)
        turn = Request(self._made, came, request.model, request.gateway, prompt, self._lognormal(120, 0.7))
        turn.conversation, turn.prefix, turn.turns = request.conversation, prefix, request.turns - 1
        return turn
