"""Which roles and services fit a task."""

from typing import Any

import pytest

from geniehive.rules.model import (
    Availability,
    BenchmarkSample,
    Condition,
    LoadState,
    NameKind,
    Role,
    RoutingPolicy,
    Service,
    ServiceLoad,
    Speed,
    Upstream,
)
from geniehive.rules.operations import Ability, Operation
from geniehive_control.core import matching
from geniehive_control.core.matching import Match, Query
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.table import Table
from tests.support.cluster import CHAT, EMBEDDINGS, asset, service


def sample(of: str, model: str, workload: str = "chat.short_reasoning/1", **figures: Any) -> BenchmarkSample:
    return BenchmarkSample(sample_id=of, service=of, asset_id=model, workload=workload, measured=1.0, **figures)


def table(*services: Service, roles: tuple[Role, ...] = (), away: tuple[str, ...] = ()) -> Table:
    made = Table()
    for of in services:
        made.put_service(of)
        made.put_upstream(Upstream(service=of.service, routable=of.service not in away))
    made.set_profiles({role.role_id: role for role in roles}, {})
    made.compile()
    return made


def match(of: Table, loads: dict[str, ServiceLoad] | None = None, **query: Any) -> list[Match]:
    return matching.match(of, Query(**query), (loads or {}).get)


CODER = Role(
    role_id="coder",
    display_name="Coder",
    description="Writes and reviews Python code.",
    operation=CHAT,
    routing_policy=RoutingPolicy(preferred_families=("qwen3", "llama")),
)
EMBEDDER = Role(role_id="embedder", description="Vectors for search.", operation=EMBEDDINGS)


def test_a_score_by_hand() -> None:
    of = table(
        service("a/x", asset("qwen3:8b", load_state=LoadState.LOADED)),
        service("b/y", asset("llama3.2:1b", load_state=LoadState.LOADED)),
        roles=(CODER, EMBEDDER),
    )
    of.put_speed("endpoint/a/x/qwen3:8b", Speed(decode_tokens_per_second=45.0))
    of.put_latency("endpoint/a/x/qwen3:8b", 0.4)
    of.put_benchmarks("a/x", "qwen3:8b", [sample("a/x", "qwen3:8b", correctness=0.8, decode_tokens_per_second=20.0)])
    loads = {"a/x": ServiceLoad(service="a/x", queued=2)}
    coder, embedder = match(
        of, loads, tasks=("review my Python code",), workloads=("chat.short_reasoning", "chat.short_reasoning/1")
    )
    text = 2 / 4  # "python" and "code" of "review my python code"
    runtime = 0.35 + 0.30 + 0.20 - 0.10
    benchmark = 0.45 * 1 + 0.55 * (0.65 * 0.8 + 0.35 * 0.5)
    family = 1.0
    assert coder.score == pytest.approx(0.30 * text + 0.30 * runtime + 0.25 * benchmark + 0.15 * family)
    assert coder.endpoint == "endpoint/a/x/qwen3:8b"
    assert [(term.name, term.weight) for term in coder.terms] == [
        ("text", 0.30),
        ("runtime", 0.30),
        ("benchmark", 0.25),
        ("family", 0.15),
    ]
    assert coder.terms[1].signals == {
        "loaded": 1.0,
        "p50_latency_seconds": 0.4,
        "tokens_per_second": 45.0,
        "queued": 2.0,
    }
    # Nobody can serve it; that is said, and it is no error.
    assert (embedder.model, embedder.endpoint, embedder.score) == ("embedder", "", 0.0)
    assert embedder.terms[1].reasons == ("no usable endpoint",)


def test_services_beside_roles() -> None:
    of = table(
        service("a/x", asset("m", load_state=LoadState.LOADED)),
        service("b/y", "n", asset("o", load_state=LoadState.LOADED)),
        roles=(CODER,),
    )
    found = match(of, operation=CHAT, include_services=True, tasks=("ollama",))
    assert [(made.model, made.kind) for made in found] == [
        ("a/x", NameKind.SERVICE),
        # It has two models, and one of them must be named.
        ("o", NameKind.ASSET),
        ("coder", NameKind.ROLE),
    ]
    assert found[0].score == pytest.approx(0.20 * 1 + 0.45 * 0.35)
    assert [(term.name, term.weight) for term in found[0].terms] == [
        ("text", 0.20),
        ("runtime", 0.45),
        ("benchmark", 0.35),
    ]


def test_an_endpoint_that_is_away_does_not_count() -> None:
    of = table(
        service("a/x", asset("qwen3:8b", load_state=LoadState.LOADED)), service("b/y", "gemma3:4b"), roles=(CODER,)
    )
    (coder,) = match(of, operation=CHAT)
    assert coder.endpoint == "endpoint/a/x/qwen3:8b"
    of.put_upstream(Upstream(service="a/x", routable=False))
    (coder,) = match(of, operation=CHAT)
    assert coder.endpoint == "endpoint/b/y/gemma3:4b"


def test_busy_and_figures_of_the_moment() -> None:
    of = table(service("a/x", asset("m", load_state=LoadState.LOADED)), roles=(CODER,))
    busy = Condition(availability=Availability.BUSY)
    of.put_upstream(Upstream(service="a/x", routable=True, condition=busy))
    (coder,) = match(of, {"a/x": ServiceLoad(service="a/x", latency_p50_seconds=2.0, queued=0)}, operation=CHAT)
    assert coder.terms[1].value == pytest.approx(0.35 + 0.10 - 0.10)


def test_only_what_is_asked_for() -> None:
    roles = (CODER, EMBEDDER, Role(role_id="painter", operation=Operation.IMAGES))
    of = table(
        service("a/x", asset("m", CHAT, abilities=(Ability.VISION,)), asset("e", EMBEDDINGS)),
        service("b/y", asset("w", Operation.TRANSCRIPTION)),
        roles=roles,
    )

    def names(**query: Any) -> list[str]:
        return sorted(made.model for made in match(of, **query))

    assert names(operation=EMBEDDINGS) == ["embedder"]
    assert names(operation=Operation.RESPONSES) == ["coder"]
    assert names(modality="text") == ["coder", "embedder"]
    assert names(modality="image", include_services=True) == ["e", "painter"]
    assert names(modality="audio", include_services=True) == ["b/y"]
    assert names(operation=EMBEDDINGS, include_services=True) == ["a/x", "embedder"]
    assert len(match(of, modality="text", limit=1)) == 1


def test_the_best_first_then_by_name() -> None:
    roles = tuple(
        Role(role_id=name, description=text, operation=CHAT) for name, text in (("b", ""), ("a", ""), ("c", "x"))
    )
    assert [made.model for made in match(table(roles=roles), tasks=("x",))] == ["c", "a", "b"]


def test_ten_unless_asked_otherwise() -> None:
    of = table(roles=tuple(Role(role_id=f"r{n:03}", operation=CHAT) for n in range(120)))
    assert len(match(of, operation=CHAT)) == 10
    assert len(match(of, operation=CHAT, limit=50)) == 50
    assert len(match(of, operation=CHAT, limit=2**31 - 1)) == 100


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": -1, "operation": CHAT}, "limit"),
        ({"tasks": ("x" * 65537,)}, "tasks"),
        ({"tasks": ("é" * 20000, "é" * 20000)}, "tasks"),
        ({}, "tasks"),
        ({"tasks": (" ?! ",)}, "tasks"),
        ({"modality": "smell"}, "modality"),
        ({"workloads": ("chat.unheard_of",)}, "workloads"),
        ({"workloads": ("chat.short_reasoning/2",)}, "workloads"),
        ({"workloads": ("chat.short_reasoning",) * 101}, "workloads"),
    ],
)
def test_bad_questions(query: dict[str, Any], field: str) -> None:
    of = table(service("a/x", "m"), roles=(CODER,))
    of.put_benchmarks("a/x", "m", [sample("a/x", "m", correctness=1.0)])
    with pytest.raises(Refusal) as caught:
        match(of, **query)
    assert (caught.value.why, caught.value.details) == (Why.FIELD_INVALID, {"field": field})
