"""That the simulated engine does what its description says."""

import pytest

from bench.routing.engines import Engine, Request
from bench.routing.fleets import llamacpp, ollama
from bench.routing.rivals import STRATEGIES
from bench.routing.world import run


def ask(number: int, came: float, prompt: float = 1000.0, output: float = 100.0, model: str = "m0") -> Request:
    return Request(number, came, model, 0, prompt, output)


def serve(engine: Engine, *requests: Request) -> None:
    """All of them, as they come."""
    coming = sorted(requests, key=lambda request: request.came)
    while coming or engine.next_time() < float("inf"):
        now = min(engine.next_time(), coming[0].came if coming else float("inf"))
        engine.advance(now)
        engine.happen(now)
        while coming and coming[0].came <= now:
            engine.enqueue(coming.pop(0))
        engine.admit(now)


def warm(engine: Engine) -> Engine:
    engine.warm("m0")
    return engine


def test_one_request_alone() -> None:
    only = ask(1, 2.0)
    serve(warm(ollama(0, 40)), only)
    assert (only.first, only.done) == (pytest.approx(3.0), pytest.approx(3.0 + 2.5))


def test_one_after_the_other() -> None:
    first, second = ask(1, 0.0), ask(2, 0.1)
    serve(warm(ollama(0, 40)), first, second)
    assert second.first == pytest.approx(first.done + 1.0)


def test_several_at_once_slow_one_another() -> None:
    first, second = ask(1, 0.0, prompt=1.0), ask(2, 0.0, prompt=1.0)
    serve(warm(llamacpp(0, 40)), first, second)
    assert first.done == pytest.approx(2.5 * 1.35, rel=0.01)
    assert second.done == pytest.approx(first.done, rel=0.01)


def test_a_cold_model_is_loaded_and_another_goes() -> None:
    engine = warm(ollama(0, 40, load=8.0, fits=1))
    request = ask(1, 0.0, model="m1")
    serve(engine, request)
    assert (request.first, engine.loads) == (pytest.approx(8.0 * 0.5 + 1.0), 1)
    back = ask(2, request.done)
    serve(engine, back)
    assert (back.first, engine.loads) == (pytest.approx(back.came + 9.0), 2)


def test_a_conversation_is_not_read_again() -> None:
    engine = warm(llamacpp(0, 40))
    first, second = ask(1, 0.0), ask(2, 100.0, prompt=1500.0)
    first.conversation = second.conversation = 5
    second.prefix = 1100.0
    serve(engine, first, second)
    assert second.first == pytest.approx(100.0 + 400 / 1000)


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_every_request_is_answered_in_time_that_makes_sense(strategy: str) -> None:
    world = run("4 models, bursts, 2 gateways", strategy, 0.5, 0, 100)
    assert len(world.done) >= 100
    for request in world.done:
        assert request.came < request.first < request.done
        engine = world.engines[request.engine]
        assert request.done - request.first >= request.output / engine.decode - 1e-6


def test_the_same_seed_is_the_same_run() -> None:
    one, other = (run("4 engines", "soonest", 0.8, 3, 100) for _ in range(2))
    assert [(r.came, r.done, r.engine) for r in one.done] == [(r.came, r.done, r.engine) for r in other.done]
