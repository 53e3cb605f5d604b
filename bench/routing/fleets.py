"""Fleets of engines like those that people have, and what is asked of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.routing.engines import Engine


def ollama(number: int, decode: float, load: float = 8.0, fits: int = 99) -> Engine:
    """One answer at a time."""
    return Engine(number, decode, 1, 0.0, 25 * decode, load, fits)


def llamacpp(number: int, decode: float) -> Engine:
    """Four, which cost one another a good part of their speed."""
    return Engine(number, decode, 4, 0.35, 25 * decode)


def vllm(number: int, decode: float) -> Engine:
    """Many, at little cost."""
    return Engine(number, decode, 64, 0.06, 60 * decode)


_Make = Callable[[int, float], Engine]


def _all(make: _Make, speeds: Sequence[float]) -> Callable[[], list[Engine]]:
    return lambda: [make(number, decode) for number, decode in enumerate(speeds)]


def _each(*made: tuple[_Make, float]) -> Callable[[], list[Engine]]:
    return lambda: [make(number, decode) for number, (make, decode) in enumerate(made)]


def _models() -> list[Engine]:
    """Hosts on which one to three of four models fit: decode, seconds to load, fits."""
    hosts = ((10, 20, 1), (40, 10, 2), (40, 10, 2), (60, 8, 2), (120, 5, 2), (120, 5, 3))
    return [ollama(number, decode, load, fits) for number, (decode, load, fits) in enumerate(hosts)]


_EIGHT = (10, 10, 40, 40, 40, 40, 120, 120)
_ENGINES = _each((ollama, 40), (llamacpp, 40), (vllm, 60), (ollama, 15))
_SIXTEEN = _each(
    (ollama, 10), (ollama, 15), (ollama, 40), (ollama, 40), (ollama, 60), (ollama, 120), (llamacpp, 20),
    (llamacpp, 40), (llamacpp, 40), (llamacpp, 60), (llamacpp, 90), (llamacpp, 30), (vllm, 40), (vllm, 60),
    (ollama, 25), (llamacpp, 12),
)  # fmt: skip
_AGENTS = _all(llamacpp, (20, 40, 40, 120))


@dataclass(frozen=True, slots=True)
class Scenario:
    """kind: "chat"; "agent": conversations that grow; "hot": most begin alike. burst: how many come together, in the
    mean. models: and how often each is asked for. uniform: all engines are the same.
    """

    name: str
    fleet: Callable[[], list[Engine]]
    kind: str = "chat"
    burst: int = 1
    models: tuple[tuple[str, int], ...] = (("m0", 1),)
    gateways: int = 1
    uniform: bool = False


_FOUR_MODELS = (("m0", 5), ("m1", 3), ("m2", 1), ("m3", 1))

SCENARIOS = {
    s.name: s
    for s in (
        Scenario("4 alike, 1 slot", _all(ollama, (40,) * 4), uniform=True),
        Scenario("4 alike, 4 slots", _all(llamacpp, (40,) * 4), uniform=True),
        Scenario("4 alike, bursts", _all(llamacpp, (40,) * 4), burst=8, uniform=True),
        Scenario("2 alike", _all(ollama, (40,) * 2), uniform=True),
        Scenario("8 alike", _all(ollama, (40,) * 8), uniform=True),
        Scenario("16 alike, 4 slots", _all(llamacpp, (40,) * 16), uniform=True),
        Scenario("4 alike, 3 gateways", _all(ollama, (40,) * 4), gateways=3, uniform=True),
        Scenario("4 alike, agents", _all(llamacpp, (40,) * 4), kind="agent", uniform=True),
        Scenario("3 speeds, 1 slot", _all(ollama, (10, 40, 120))),
        Scenario("3 speeds, 4 slots", _all(llamacpp, (10, 40, 120))),
        Scenario("3 speeds, bursts", _all(ollama, (10, 40, 120)), burst=8),
        Scenario("2 speeds", _all(ollama, (20, 120))),
        Scenario("8 hosts, 4 slots", _all(llamacpp, _EIGHT)),
        Scenario("8 hosts, bursts", _all(ollama, _EIGHT), burst=12),
        Scenario("8 hosts, 3 gateways", _all(ollama, _EIGHT), burst=4, gateways=3),
        Scenario("4 engines", _ENGINES),
        Scenario("4 engines, 3 gateways", _ENGINES, burst=4, gateways=3),
        Scenario("16 engines, 2 gateways", _SIXTEEN, burst=4, gateways=2),
        Scenario("one slow host", _each((llamacpp, 60), (llamacpp, 60), (llamacpp, 60), (ollama, 5))),
        Scenario("4 models", _models, models=_FOUR_MODELS),
        Scenario("4 models, bursts, 2 gateways", _models, burst=5, models=_FOUR_MODELS, gateways=2),
        Scenario("agents", _AGENTS, kind="agent"),
        Scenario(
            "agents, 4 engines, 2 gateways",
            _each((ollama, 40), (llamacpp, 40), (vllm, 60), (llamacpp, 90)),
            kind="agent",
            gateways=2,
        ),
        Scenario("hot prefix", _AGENTS, kind="hot"),
    )
}
