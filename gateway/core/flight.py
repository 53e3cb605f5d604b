"""One request at one endpoint: what it adds there while it is under way, and what it tells once it is over."""

from typing import NamedTuple

from gateway.core.asking import Ask
from gateway.core.outcome import Tokens
from gateway.core.plan import Choice
from gateway.core.speeds import Lengths
from gateway.core.wait import Seat

# Fewer tokens say nothing of speed: an answer, a prompt.
_LEAST_ANSWER = 4
_LEAST_PROMPT = 100
# Seconds for a token below which something before the engine held the answer back and gave it all at once.
_FASTEST = 1e-4
# The shortest load that is believed.
_LEAST_LOAD = 0.5

# Seconds between two that are learned of where nobody chooses.
_LEARNED_AGAIN = 0.05


class Told(NamedTuple):
    """As of `Flight`."""

    prefill: tuple[int, float] | None = None
    decode: tuple[int, float] | None = None
    cold: float | None = None


_NOTHING = Told()


class Flight:
    """`choice` may change to another lane of the same candidate. prefill, decode: tokens, and the seconds they took, as
    if the request had been alone there; cold: seconds until its model was loaded. These are known when it has ended
    and been settled, where it told them.
    """

    __slots__ = (
        "_answer", "_ask", "_began", "_busy", "_clean", "_cold", "_ended", "_first", "_hit", "_key", "_left",
        "_tokens", "_told", "_unread", "choice", "seat",
    )  # fmt: skip

    def __init__(self, choice: Choice, seat: Seat, ask: Ask | None, expected: float, now: float) -> None:
        self.choice = choice
        self.seat = seat
        self._told = _NOTHING
        self._ask = ask
        self._began = now
        self._first: float | None = None
        self._ended: float | None = None
        place = seat.place
        self._busy = busy = place.busy
        # Nobody else's prompt is read, nobody waits: what the first byte takes is this request's own.
        self._clean = busy < place.slots and not place.unread and not place.others
        self._cold = cold = seat.cold
        if cold:
            if seat.loading is None:
                seat.loading = now
            else:
                # Somebody else's load: part of it only.
                self._clean = False
        seat.own += 1
        place.sent(now)
        if ask is not None:
            memory = place.memory
            self._hit = hit = memory.hit(seat.model, ask)
            self._answer = expected
            self._unread = unread = ask.prompt_tokens - hit
            self._key = memory.sent(seat.model, ask)
            place.expected += expected
            place.prompts += unread
            if ask.stream:
                place.unread += unread

    @property
    def prefill(self) -> tuple[int, float] | None:
        return self._told.prefill

    @property
    def decode(self) -> tuple[int, float] | None:
        return self._told.decode

    @property
    def cold(self) -> float | None:
        return self._told.cold

    def first(self, now: float) -> None:
        """The first piece of an answer that comes in pieces is there."""
        self._first = now
        if self._ask is not None and self._ask.stream:
            place = self.seat.place
            place.unread -= self._unread

    def end(self, now: float, tokens: Tokens | None, ok: bool, lengths: Lengths) -> None:
        """ok: it was answered to the end."""
        seat, ask = self.seat, self._ask
        place = seat.place
        seat.own -= 1
        place.left(now)
        if ask is not None:
            place.expected -= self._answer
            place.prompts -= self._unread
            if ask.stream and self._first is None:
                place.unread -= self._unread
            if not place.own:
                # What rounding left.
                place.expected = place.prompts = place.unread = 0.0
        if not seat.own:
            seat.loading = None
        if ok:
            if ask is not None:
                self._learn(now, tokens, place.busy, lengths)
            elif now >= seat.due:
                # Nobody chose by what can be learned of it: that has time until somebody wants to know, and of some
                # that come one upon the other it is enough.
                seat.due = now + _LEARNED_AGAIN
                self._ended = now
                self._tokens = tokens
                self._left = place.busy

    def settle(self) -> "Told":
        """Whatever can be learned of it, and that is known after this."""
        if self._ended is not None:
            self._learn(self._ended, self._tokens, self._left, None)
            self._ended = None
        return self._told

    def _learn(self, now: float, tokens: Tokens | None, left: float, lengths: Lengths | None) -> None:
        """left: who is still there. lengths: None for whom nothing was asked."""
        seat, ask = self.seat, self._ask
        place, pace = seat.place, seat.pace
        prompt = answer = 0
        if tokens is not None:
            prompt = tokens.prompt - tokens.cached
            answer = tokens.completion
            if not tokens.cached and ask is not None and self._hit:
                # Not every engine tells.
                prompt -= min(prompt, round(self._hit * tokens.prompt / max(1, ask.prompt_tokens)))
            if ask is not None and lengths is not None:
                lengths.learn(ask.route, answer)
                if self._key is not None:
                    place.memory.answered(self._key, ask.prompt_tokens + answer)
        elif ask is not None:
            # It told nothing. Then a request is the measure: how long it takes here, beside elsewhere.
            answer = int(self._answer)
        first = self._first
        token = prefill = load = None
        read_in = written_in = None
        reading = prompt * pace.per_prompt
        if answer >= _LEAST_ANSWER:
            if first is not None:
                seconds = (now - first) / answer
            elif self._clean and not self._cold:
                seconds = max(0.0, now - self._began - reading) / answer
            else:
                seconds = 0.0
            if seconds > _FASTEST:
                # As if alone: from how many were there when it came and when it left.
                batch = min(place.slots, (self._busy + 1 + max(1, left + 1)) / 2)
                token = seconds / (1 + pace.step / pace.used_token * (batch - 1))
                if tokens is not None:
                    written_in = (answer, token * answer)
        read = None
        if first is not None:
            read = first - self._began
        elif answer < _LEAST_ANSWER:
            # All that was done was reading.
            read = now - self._began
        if self._clean and read is not None:
            if self._cold:
                load = max(_LEAST_LOAD, read - reading)
            elif prompt >= _LEAST_PROMPT and read > 0 and ask is not None:
                prefill = prompt / read
                read_in = (prompt, read)
        if token is not None or prefill is not None or load is not None:
            pace.learn(now, token, prefill, load)
            self._told = Told(read_in, written_in, load)
