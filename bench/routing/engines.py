"""A simulated engine. Seconds and tokens.

It writes up to `slots` answers at once, each the slower the more there are, and reads one prompt after the other,
beside writing: both slow one another. A model that is not in memory is loaded first, and everybody behind waits.
"""

from collections import OrderedDict, deque
from heapq import heappop, heappush
from math import floor, inf

# Of an engine's load time, by model.
MODEL_SIZES = {"m0": 1.0, "m1": 0.5, "m2": 2.0, "m3": 1.0}
# What is left of the speeds of writing and reading while both are done.
_WRITING_WHILE_READING = 0.5
_READING_WHILE_WRITING = 0.6
_EPSILON = 1e-6


class Request:
    """came, first, done: times. prefix: tokens of the prompt that were in the conversation's earlier ones."""

    __slots__ = (
        "came", "conversation", "done", "engine", "first", "flight", "gateway", "hit", "hot", "model", "number",
        "output", "prefix", "prompt", "turns", "unread",
    )  # fmt: skip

    def __init__(self, number: int, came: float, model: str, gateway: int, prompt: float, output: float) -> None:
        self.number = number
        self.came = came
        self.model = model
        self.gateway = gateway
        self.prompt = prompt
        self.output = output
        self.conversation: int | None = None
        self.hot = False
        self.prefix = 0.0
        self.turns = 1
        self.engine = -1
        self.hit = 0.0
        self.unread = 0.0
        self.first = 0.0
        self.done = 0.0
        self.flight: object = None


class Sample:
    """What the engine says of itself. models: in memory, or being loaded."""

    __slots__ = ("at", "models", "queued", "running")

    def __init__(self, at: float, running: int, queued: int, models: frozenset[str]) -> None:
        self.at = at
        self.running = running
        self.queued = queued
        self.models = models


class Engine:
    """decode: tokens a second of an answer that is written alone; each is slope * (others) slower. prefill: prompt
    tokens a second. load: seconds, for a model of size 1. fits: how many models are in memory at most.
    """

    __slots__ = (
        "_active", "_cache", "_left", "_loaded", "_loading", "_progress", "_queue", "_reading", "_time", "_writing",
        "decode", "fits", "load", "loads", "number", "period", "phase", "prefill", "sample", "sampled_next", "slope",
        "slots", "version",
    )  # fmt: skip

    def __init__(
        self, number: int, decode: float, slots: int, slope: float, prefill: float, load: float = 8.0, fits: int = 99
    ) -> None:
        self.number = number
        self.decode = decode
        self.slots = slots
        self.slope = slope
        self.prefill = prefill
        self.load = load
        self.fits = fits
        # Loads that were begun.
        self.loads = 0
        # Grows with each change of when something happens next.
        self.version = 0
        self.period = 1.0
        self.phase = 0.0
        self.sample = Sample(0.0, 0, 0, frozenset())
        self.sampled_next = 0.0
        self._time = 0.0
        # Tokens that each answer has got since the beginning; an answer is done at a mark.
        self._progress = 0.0
        self._writing: list[tuple[float, int, Request]] = []
        self._reading: deque[Request] = deque()
        # Of the prompt that is read.
        self._left = 0.0
        self._queue: deque[Request] = deque()
        self._loaded: OrderedDict[str, None] = OrderedDict()
        self._loading: tuple[str, float] | None = None
        self._cache: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._active: dict[str, int] = {}

    @property
    def capacity(self) -> tuple[float, float]:
        """Seconds for a token of a prompt, and for one of all answers together."""
        return 1 / self.prefill, (1 + self.slope * (self.slots - 1)) / (self.slots * self.decode)

    def warm(self, model: str) -> None:
        self._loaded[model] = None

    def take_sample(self, now: float) -> bool:
        """Whether there is a new one. To be asked before anything changes."""
        if now < self.sampled_next:
            return False
        at = self.phase + floor((now - self.phase) / self.period) * self.period
        models = frozenset(self._loaded) | ({self._loading[0]} if self._loading else set())
        self.sample = Sample(at, len(self._writing) + len(self._reading), len(self._queue), models)
        self.sampled_next = at + self.period
        return True

    def _rates(self) -> tuple[float, float]:
        """Of each answer, and of the prompt."""
        batch = len(self._writing)
        writing = self.decode / (1 + self.slope * (batch - 1)) if batch else 0.0
        reading = self.prefill if self._reading else 0.0
        if batch and self._reading:
            writing *= _WRITING_WHILE_READING
            reading *= _READING_WHILE_WRITING
        return writing, reading

    def next_time(self) -> float:
        """When something happens here; inf: nothing will."""
        when = inf
        writing, reading = self._rates()
        if self._reading:
            when = self._time + max(self._left, 0.0) / reading
        if self._writing:
            when = min(when, self._time + max(self._writing[0][0] - self._progress, 0.0) / writing)
        return min(when, self._loading[1]) if self._loading else when

    def advance(self, now: float) -> None:
        passed = now - self._time
        if passed > 0:
            if self._writing or self._reading:
                writing, reading = self._rates()
                self._progress += writing * passed
                self._left -= reading * passed
            self._time = now

    def happen(self, now: float) -> tuple[Request | None, list[Request]]:
        """Whose first token is there, and whose last."""
        if self._loading and self._loading[1] <= now + 1e-9:
            self._loaded[self._loading[0]] = None
            self._loading = None
        first: Request | None = None
        if self._reading and self._left <= _EPSILON:
            first = self._reading.popleft()
            first.first = now
            heappush(self._writing, (self._progress + first.output, first.number, first))
            if self._reading:
                self._left = self._reading[0].unread
        done = []
        while self._writing and self._writing[0][0] <= self._progress + _EPSILON:
            request = heappop(self._writing)[2]
            request.done = now
            self._active[request.model] -= 1
            key = (request.model, request.conversation)
            if not request.hot and key in self._cache:
                self._cache[key] = request.prompt + request.output  # type: ignore[index]
            done.append(request)
        return first, done

    def enqueue(self, request: Request) -> None:
        self._queue.append(request)

    def admit(self, now: float) -> None:
        """Whoever is next gets a free slot, if the model is there."""
        while self._queue and len(self._writing) + len(self._reading) < self.slots:
            request = self._queue[0]
            model = request.model
            if model not in self._loaded:
                self._begin_to_load(model, now)
                return
            self._queue.popleft()
            self._loaded.move_to_end(model)
            self._active[model] = self._active.get(model, 0) + 1
            self._find_in_cache(request)
            if not self._reading:
                self._left = request.unread
            self._reading.append(request)

    def _find_in_cache(self, request: Request) -> None:
        named = request.conversation is not None
        key = (request.model, request.conversation if request.conversation is not None else -1 - request.number)
        held = self._cache.pop(key, 0.0) if named else 0.0
        request.hit = min(held, request.prefix, request.prompt - 1)
        request.unread = request.prompt - request.hit
        if len(self._cache) >= self.slots:
            self._cache.popitem(False)
        self._cache[key] = request.prefix if request.hot else request.prompt

    def _begin_to_load(self, model: str, now: float) -> None:
        if self._loading:
            return
        if len(self._loaded) >= self.fits:
            idle = next((other for other in self._loaded if not self._active.get(other)), None)
            if idle is None:
                return
            del self._loaded[idle]
            for key in [key for key in self._cache if key[0] == idle]:
                del self._cache[key]
        self._loading = (model, now + self.load * MODEL_SIZES[model])
        self.loads += 1
