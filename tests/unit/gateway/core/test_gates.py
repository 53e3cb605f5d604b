import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import gates
from gateway.core.api import Dialect
from gateway.core.gates import nobody_is_left, not_taken, passed_over, too_long, would_fit
from gateway.core.needs import Needs
from gateway.core.plan import Candidate, Plan
from geniehive.rules.model import Asset
from geniehive.rules.operations import Ability, Operation
from tests.unit.gateway.builders import candidate, plan

TOOLS, VISION = Ability.TOOLS, Ability.VISION


def one(host: str, context: int | None = None, *lacking: Ability) -> Candidate:
    return msgspec.structs.replace(candidate(host), context_tokens=context, lacking=lacking)


def over(asked: Plan, needs: Needs) -> list[str]:
    return [passed.candidate.host for passed in passed_over(asked, needs)]


def test_who_is_too_small_is_passed_over() -> None:
    asked = plan((one("small", 4096), one("large", 32768), one("unknown")))
    assert over(asked, Needs(tokens=4096)) == []
    assert over(asked, Needs(tokens=4097)) == ["small"]
    assert over(asked, Needs(tokens=40_000)) == ["small", "large"]
    assert over(asked, Needs()) == []


def test_who_may_just_be_large_enough_is_asked_only_where_nobody_else_is() -> None:
    tight = plan((one("a", 8000), one("b", 4000)))
    # By six bytes to a token these are 8,000.
    assert over(tight, Needs(tokens=12_000)) == ["b"]
    assert over(tight, Needs(tokens=12_003)) == ["a", "b"]
    assert over(plan((one("a", 8000),), (one("c", 9000),)), Needs(tokens=8500)) == ["a"]


def test_who_lacks_an_ability() -> None:
    asked = plan((one("a", None, TOOLS), one("b", None, VISION)), (one("c"),))
    assert over(asked, Needs(tools=True)) == ["a"]
    assert over(asked, Needs(images=True)) == ["b"]
    assert over(asked, Needs(tools=True, images=True)) == ["a", "b"]
    assert over(asked, Needs()) == []


def test_nobody_is_left() -> None:
    asked = plan((one("a", 10),), (one("b", None, TOOLS),))
    assert nobody_is_left(asked, passed_over(asked, Needs(tokens=100, tools=True)))
    assert not nobody_is_left(asked, passed_over(asked, Needs(tokens=100)))
    assert not nobody_is_left(plan(), ())


def test_what_is_lacking_is_kept_when_sizes_are_in_doubt() -> None:
    asked = plan((one("a", 8000, TOOLS), one("b", 8000)))
    assert over(asked, Needs(tokens=9000, tools=True)) == ["a"]


@given(
    st.lists(st.tuples(st.none() | st.integers(1, 99), st.sets(st.sampled_from((TOOLS, VISION)))), max_size=5),
    st.integers(0, 120), st.booleans(), st.booleans(),
)  # fmt: skip
def test_who_can_is_never_refused(
    members: list[tuple[int | None, set[Ability]]], tokens: int, tools: bool, images: bool
) -> None:
    asked = plan(tuple(one(f"h{n}", context, *lacking) for n, (context, lacking) in enumerate(members)))
    needs = Needs(tokens=tokens, tools=tools, images=images)
    found = {passed.candidate.host for passed in passed_over(asked, needs)}
    for n, (context, lacking) in enumerate(members):
        can = not (tools and TOOLS in lacking) and not (images and VISION in lacking)
        if can and tokens <= (context or 1000):
            assert f"h{n}" not in found
        if not can:
            assert f"h{n}" in found


def test_would_fit() -> None:
    def asset(context: int | None = None, *lacking: Ability) -> Asset:
        return Asset(asset_id="m", upstream_name="m", context_tokens=context, lacking_abilities=lacking)

    assert would_fit(asset(8000), Needs(tokens=9000))
    assert not would_fit(asset(8000), Needs(tokens=13_000))
    assert not would_fit(asset(), Needs(tokens=9000))
    assert not would_fit(asset(99_000, TOOLS), Needs(tokens=9000, tools=True))
    assert would_fit(asset(), Needs(tools=True))


@pytest.mark.parametrize(
    ("dialect", "words"),
    [(Dialect.OPENAI, "This model's maximum context length is 8192 tokens. However, your messages resulted in 20000"),
     (Dialect.RESPONSES, "This model's maximum context length is 8192 tokens"),
     (Dialect.ANTHROPIC, "prompt is too long: 20000 tokens > 8192 maximum")],
)  # fmt: skip
def test_a_prompt_that_is_too_long_is_refused_in_words_that_clients_know(dialect: Dialect, words: str) -> None:
    asked = plan((one("a", 4096), one("b", 8192)))
    needs = Needs(tokens=20_000)
    found = gates.largest(passed_over(asked, needs))
    assert found is not None
    error = too_long("m", needs, found, "ollama", Operation.CHAT, dialect)
    assert (error.status, error.code, error.type) == (400, "context_length_exceeded", "invalid_request_error")
    assert error.param == "messages"
    assert error.message.startswith(words)
    assert "b/e/m" in error.message
    assert "OLLAMA_CONTEXT_LENGTH" in error.message


@pytest.mark.parametrize(
    ("runtime", "how"),
    [("llamacpp", "-c"), ("vllm", "--max-model-len"), ("sglang", "--context-length"), ("lmstudio", "lms load -c"),
     ("what's that", "larger context at its engine")],
)  # fmt: skip
def test_how_to_raise_the_limit(runtime: str, how: str) -> None:
    error = too_long("m", Needs(tokens=9), one("a", 4), runtime, Operation.EMBEDDINGS, Dialect.OPENAI)
    assert how in error.message
    assert error.param == "input"


def test_what_nobody_takes() -> None:
    asked = plan((one("a", None, TOOLS), one("b", 8, VISION, TOOLS)))
    error = not_taken("m", passed_over(asked, Needs(tools=True)), ["m2", "m3"], Operation.CHAT)
    assert (error.status, error.code, error.param) == (400, "tools_not_supported", "tools")
    assert 'The model "m" takes no tools (a/e/m, b/e/m)' in error.message
    assert "m2, m3" in error.message
    asked = plan((one("b", None, VISION),))
    error = not_taken("m", passed_over(asked, Needs(images=True)), [], Operation.RESPONSES)
    assert (error.code, error.param) == ("images_not_supported", "input")
    assert "no model here is known to take them" in error.message
