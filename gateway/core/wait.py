"""The wait of a request at an endpoint, term by term, in seconds.

    load      until the model is in memory
    queue     for a slot, or until prompts that came before have been read
    prefill   to read the prompt, but for what is in the engine's cache
    decode    to write the answer, together with the others that are written there
    crowd     what others who are there lose by it

    score = 1.5 * (load + queue + prefill) + decode + crowd

The first three weigh more because somebody looks at an empty screen for as long. The constants were found by simulation
(`bench/routing`), which drives this code.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from gateway.core.affinity import Memory
from gateway.core.asking import Ask
from gateway.core.loads import Sample
from gateway.core.plan import Candidate
from gateway.core.speeds import Pace

_EMPTY_SCREEN = 1.5
# Of each term, for people.
WEIGHTS = {
    "load": _EMPTY_SCREEN, "queue": _EMPTY_SCREEN, "prefill": _EMPTY_SCREEN, "decode": 1.0, "crowd": 1.0,
}  # fmt: skip
# What each of the others loses: of what a token more of this answer slows them down, and of the reading of its prompt.
_SLOWED = 0.25
_HELD_UP = 0.5
# How much a load that this request would start weighs: it takes the place of another model, often. Stops thrashing.
_COLD = 1.5
# Of what other gateways will have sent since the sample, if they are told the same and do the same.
_MIRRORED = 0.5
# Seconds for which own sends count as unknown to other gateways if there is no sample.
_UNSAMPLED = 2.0
# Own sends that are remembered for that; and changes of what is in flight, to know what was when a sample was taken.
_SENDS_KEPT = 64
_HISTORY_KEPT = 128


class Place:
    """What shares an engine's slots: a service, or a model that has slots of its own.

    own: in flight from here. others: from elsewhere, as far as samples tell. busy: both, and what other gateways will
    have done since. unread: own prompt tokens of which no first byte came back. prompts, expected: own prompt and
    answer tokens in flight. memory: conversations in its cache.
    """

    __slots__ = (
        "_gateways", "_history", "_known", "_sampled", "_sends", "busy", "expected", "key", "memory",
        "others", "own", "prompts", "slots", "unread",
    )  # fmt: skip

    def __init__(self, candidate: Candidate, gateways: int) -> None:
        self.key = candidate.load_key or candidate.endpoint
        self.slots = candidate.slots
        self.own = 0
        self.others = 0
        self.busy: float = 0
        self.unread = 0.0
        self.prompts = 0.0
        self.expected = 0.0
        self.memory = Memory(self.slots)
        self._known = candidate.slots_known
        self._gateways = gateways
        self._sends: deque[float] = deque(maxlen=_SENDS_KEPT)
        self._sampled = 0.0
        # When own work changed, and to what.
        self._history: deque[tuple[float, int]] = deque(maxlen=_HISTORY_KEPT)

    def follow(self, candidate: Candidate) -> None:
        """As a newer table has it. What samples taught of slots that nobody tells is kept."""
        if candidate.slots_known or self._known:
            self._known = candidate.slots_known
            self._resize(candidate.slots)

    def sampled(self, sample: Sample | None, now: float) -> None:
        """What control says that the engine has to do; None: nothing that is new enough."""
        if sample is None:
            self.others = 0
            self._sampled = now - _UNSAMPLED
        else:
            self.others = sample.others
            self._sampled = sample.at
            if not self._known and sample.running and (sample.queued or sample.running > self.slots):
                # Nobody says how many it runs at once; but this many it does, and more have to wait.
                self._resize(sample.running)
        self._count()

    def sent(self, now: float) -> None:
        self.own = own = self.own + 1
        self._history.append((now, own))
        if self._gateways > 1:
            self._sends.append(now)
            self._count()
        else:
            self.busy += 1

    def left(self, now: float) -> None:
        self.own = own = self.own - 1
        self._history.append((now, own))
        if self._gateways > 1:
            self._count()
        else:
            self.busy -= 1

    def own_at(self, when: float) -> int:
        """Own work some seconds ago; as far back as is known."""
        history = self._history
        for at, own in reversed(history):
            if at <= when:
                return own
        return history[0][1] if len(history) == _HISTORY_KEPT else 0

    def _count(self) -> None:
        self.busy = self.own + self.others
        if self._gateways > 1:
            sends = self._sends
            while sends and sends[0] <= self._sampled:
                sends.popleft()
            self.busy += _MIRRORED * (self._gateways - 1) * min(self.own, len(sends))

    def _resize(self, slots: int) -> None:
        if slots != self.slots:
            self.slots = slots
            self.memory.resize(slots)


class Seat:
    """An endpoint as this gateway knows it, for as long as it is asked. cold: its model is not in memory.

    own: in flight. loading: since when a request of ours has been waiting for it to load; None: none is. due: when one
    for which nobody chose is worth learning of again.
    """

    __slots__ = ("cold", "due", "endpoint", "loading", "model", "own", "pace", "place")

    def __init__(self, candidate: Candidate, place: Place) -> None:
        self.endpoint = candidate.endpoint
        self.model = candidate.asset_id
        self.place = place
        self.pace = Pace(place.slots)
        self.cold = False
        self.own = 0
        self.loading: float | None = None
        self.due = 0.0

    def follow(self, candidate: Candidate, now: float) -> None:
        """As a newer table has it."""
        self.cold = candidate.loaded is False
        if not self.cold:
            self.loading = None
        self.place.follow(candidate)
        self.pace.resize(self.place.slots)
        self.pace.tell(candidate.speed, now)

    def load_wait(self, now: float) -> float:
        """Seconds until its model is in memory, which it is not now."""
        seconds = self.pace.used_load
        if self.loading is None:
            return _COLD * seconds + self.pace.cold_cost
        left = self.loading + seconds - now
        # Later than thought: then as long again, since nobody knows.
        return left if left > 0 else seconds


class Wait(NamedTuple):
    """In seconds; `score` is their weighted sum."""

    score: float
    load: float
    queue: float
    prefill: float
    decode: float
    crowd: float


def waits(seats: Iterable[Seat], ask: Ask, expected: float, now: float) -> list[tuple[float, ...]]:
    """At each of them, as `Wait` has it. expected: tokens of the answer.

    One loop, without calls, and without a `Wait` for each: this is done for every request, and for every endpoint.
    """
    found: list[tuple[float, ...]] = []
    prompt = ask.prompt_tokens
    may_hit = ask.conversation is not None or ask.blocks
    for seat in seats:
        place = seat.place
        pace = seat.pace
        per_prompt = pace.per_prompt
        busy = place.busy
        slots = place.slots
        prefill = prompt * per_prompt
        if may_hit and (memory := place.memory).held:
            prefill -= memory.hit(seat.model, ask) * per_prompt
        load = seat.load_wait(now) if seat.cold else 0.0
        crowd = 0.0
        if busy < slots:
            queue = place.unread * per_prompt
            step = pace.step
            decode = expected * (pace.used_token + step * busy)
            if busy:
                crowd = busy * (_SLOWED * expected * step + _HELD_UP * prefill)
        else:
            others = busy - place.own
            work = (place.expected + others * expected) * pace.full + place.prompts * per_prompt + others * prefill
            queue = work / slots
            decode = expected * pace.full
        score = _EMPTY_SCREEN * (load + queue + prefill) + decode + crowd
        found.append((score, load, queue, prefill, decode, crowd))
    return found
