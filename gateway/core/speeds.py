"""How fast each endpoint is, and how long answers are: learned from what requests took.

An endpoint's own figures come first, then what control has learned of it, then what is known of others that have the
same name, then a guess. `Pace` has what the formula of `wait` multiplies by, made anew when a figure changes.
"""

from collections.abc import Iterable
from statistics import median

from geniehive.rules.model import Speed

# How much the newest figure weighs: of speeds, of load times, of output lengths.
_SPEED_WEIGHT = 0.2
_LOAD_WEIGHT = 0.5
_LENGTH_WEIGHT = 0.05

# While nothing is known: seconds for a token, prompt tokens a second, seconds to load, tokens of an answer.
GUESSED_TOKEN = 1 / 40
GUESSED_PREFILL = 1000.0
GUESSED_LOAD = 10.0
GUESSED_LENGTH = 200.0
# Prompts are read so much faster than answers are written, at least.
_PREFILL_TO_DECODE = 25.0

# Seconds without an own figure after which a new one of control's counts for more.
_OWN_LASTS = 60.0
# Routes whose output lengths are remembered.
_ROUTES_KEPT = 10_000


def slope(slots: int) -> float:
    """How much slower every answer gets for each one more that an engine writes at the same time."""
    return 0.0 if slots <= 1 else 0.30 if slots <= 8 else 0.06


class Pace:
    """One endpoint's speed. None: not known.

    token: seconds for one of an answer that is written alone. prefill: prompt tokens a second. load: seconds from cold
    to ready. cold_cost: control's price for loading it, in seconds. step: seconds a token takes more for each other
    answer that is written. full: seconds for a token with all slots busy. per_prompt: seconds for a token of a prompt.
    """

    __slots__ = (
        "_assumed_load", "_assumed_prefill", "_assumed_token", "_learned", "_slots", "_told", "cold_cost", "full",
        "load", "per_prompt", "prefill", "step", "token", "used_load", "used_token",
    )  # fmt: skip

    def __init__(self, slots: int) -> None:
        self.token: float | None = None
        self.prefill: float | None = None
        self.load: float | None = None
        self.cold_cost = 0.0
        self._told: Speed | None = None
        # When the own figures were learned last.
        self._learned: float | None = None
        self._slots = slots
        self._assumed_token = GUESSED_TOKEN
        self._assumed_prefill = GUESSED_PREFILL
        self._assumed_load = GUESSED_LOAD
        self._renew()

    @property
    def basis(self) -> str:
        """For people: where the speed comes from."""
        return "assumed" if self.token is None else "control" if self._learned is None else "learned"

    @property
    def whole(self) -> bool:
        """Nothing need be assumed of it."""
        return self.token is not None and self.load is not None

    def tell(self, speed: Speed | None, now: float) -> None:
        """What control knows. Own figures are newer, unless there have been none for long."""
        if speed is None or speed == self._told:
            return
        self._told = speed
        old = self._learned is None or now - self._learned > _OWN_LASTS
        if speed.decode_tokens_per_second and (old or self.token is None):
            self.token = 1 / speed.decode_tokens_per_second
        if speed.prefill_tokens_per_second and (old or self.prefill is None):
            self.prefill = speed.prefill_tokens_per_second
        if speed.load_seconds and self.load is None:
            self.load = speed.load_seconds
        self.cold_cost = speed.cold_cost_seconds or 0.0
        if old:
            self._learned = None
        self._renew()

    def assume(self, token: float, prefill: float, load: float) -> None:
        """What is to be used where nothing is known."""
        self._assumed_token, self._assumed_prefill, self._assumed_load = token, prefill, load
        self._renew()

    def resize(self, slots: int) -> None:
        if slots != self._slots:
            self._slots = slots
            self._renew()

    def learn(self, now: float, token: float | None, prefill: float | None, load: float | None) -> None:
        """Of one request; None: it tells nothing of that."""
        # Control's was a start only.
        first = self._learned is None
        self._learned = now
        if token is not None:
            self.token = token if self.token is None or first else self.token + _SPEED_WEIGHT * (token - self.token)
        if prefill is not None:
            old = self.prefill
            self.prefill = prefill if old is None else old + _SPEED_WEIGHT * (prefill - old)
        if load is not None:
            self.load = load if self.load is None else self.load + _LOAD_WEIGHT * (load - self.load)
        self._renew()

    def _renew(self) -> None:
        token = self.token if self.token is not None else self._assumed_token
        a = slope(self._slots)
        self.used_token = token
        self.step = token * a
        self.full = token * (1 + a * (self._slots - 1))
        if self.prefill is not None:
            self.per_prompt = 1 / self.prefill
        elif self.token is not None:
            self.per_prompt = token / _PREFILL_TO_DECODE
        else:
            self.per_prompt = 1 / self._assumed_prefill
        self.used_load = self.load if self.load is not None else self._assumed_load


def assume(paces: Iterable[Pace]) -> bool:
    """Lets those that lack figures use what is known of the others. Gives whether any of them does."""
    paces = tuple(paces)
    lacking = [pace for pace in paces if not pace.whole]
    if not lacking:
        return False
    tokens = sorted(pace.token for pace in paces if pace.token is not None)
    loads = [pace.load for pace in paces if pace.load is not None]
    token = median(tokens) if tokens else GUESSED_TOKEN
    prefill = max((pace.prefill for pace in paces if pace.prefill is not None), default=GUESSED_PREFILL)
    load = sum(loads) / len(loads) if loads else GUESSED_LOAD
    for pace in lacking:
        pace.assume(token, prefill, load)
    return True


class Lengths:
    """Tokens of an answer, by route."""

    __slots__ = ("_lengths",)

    def __init__(self) -> None:
        # Mean, and of how many.
        self._lengths: dict[str, tuple[float, int]] = {}

    def expected(self, route: str, told: int | None = None) -> float:
        """told: what control has learned, which is the start."""
        known = self._lengths.get(route)
        if known is not None:
            return known[0]
        if told is None:
            return GUESSED_LENGTH
        # It stands for many.
        self._keep(route, float(told), round(1 / _LENGTH_WEIGHT))
        return float(told)

    def learn(self, route: str, tokens: int) -> None:
        mean, count = self._lengths.get(route, (0.0, 0))
        self._keep(route, mean + max(_LENGTH_WEIGHT, 1 / (count + 1)) * (tokens - mean), count + 1)

    def _keep(self, route: str, mean: float, count: int) -> None:
        if len(self._lengths) >= _ROUTES_KEPT and route not in self._lengths:
            del self._lengths[next(iter(self._lengths))]
        self._lengths[route] = (mean, count)
