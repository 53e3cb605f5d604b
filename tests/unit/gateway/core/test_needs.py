import json
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.asking import BLOCK_BYTES, MOST_BLOCKS
from gateway.core.body import read as read_body
from gateway.core.needs import Needs, read
from gateway.core.plan import Plan, TierPlan
from geniehive.rules.model import Strategy
from geniehive.rules.operations import Ability, Operation
from tests.unit.gateway.builders import candidate

CHAT, MESSAGES, RESPONSES = Operation.CHAT, Operation.MESSAGES, Operation.RESPONSES


def plan(context: int | None = None, *lacking: Ability, strategy: Strategy = Strategy.SOONEST, count: int = 2) -> Plan:
    members = tuple(
        msgspec.structs.replace(candidate(f"h{n}"), context_tokens=context, lacking=lacking) for n in range(count)
    )
    return Plan("m", (TierPlan(("m", 1, 0), "m", members, strategy),))


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def needs(asked: Plan, operation: Operation = CHAT, session: str = "", **fields: Any) -> Needs:
    return read(asked, operation, read_body(body(**fields)), session)


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def conversation(session: str = "", operation: Operation = CHAT, **fields: Any) -> int | None:
    ask = needs(plan(), operation, session, **fields).ask
    assert ask is not None
    return ask.conversation


def blocks(operation: Operation = CHAT, **fields: Any) -> tuple[int, ...]:
    ask = needs(plan(), operation, **fields).ask
    assert ask is not None
    return ask.blocks


def test_what_makes_no_difference_is_not_looked_at() -> None:
    assert plan(count=1).carefree == sys.maxsize
    assert plan(strategy=Strategy.ROUND_ROBIN).carefree == sys.maxsize
    assert plan(1000, count=1).carefree == 4003
    assert plan().carefree == -1
    assert plan(None, Ability.TOOLS, count=1).carefree == -1
    assert plan(None, Ability.REASONING, count=1).carefree == sys.maxsize


def test_without_a_choice_there_is_no_ask() -> None:
    assert needs(plan(None, Ability.TOOLS, count=1), messages=said("hi"), tools=[{}]) == Needs(None, 19, True)


def test_an_ask() -> None:
    ask = needs(plan(), messages=said("x" * 4000), max_tokens=50, stream=True, tools=[]).ask
    assert ask is not None
    assert ask.route == "m"
    assert 1000 < ask.prompt_tokens < 1050
    assert ask.max_tokens == 50
    assert ask.stream
    assert not ask.tools
    assert len(ask.blocks) == 3


@pytest.mark.parametrize(
    ("fields", "most"),
    [({}, None), ({"max_tokens": 5}, 5), ({"max_completion_tokens": 6, "max_tokens": 5}, 6),
     ({"max_output_tokens": 7}, 7), ({"max_tokens": -1}, None), ({"max_tokens": "5"}, None),
     ({"max_tokens": 1e9}, None), ({"max_tokens": None}, None)],
)  # fmt: skip
def test_the_longest_answer(fields: dict[str, Any], most: int | None) -> None:
    ask = needs(plan(), messages=[], **fields).ask
    assert ask is not None
    assert ask.max_tokens == most


@pytest.mark.parametrize(
    ("tools", "some"),
    [("[]", False), ("[ \n]", False), ("null", False), ("{}", False), ("[{}]", True), ("[ 1 ]", True)],
)
def test_tools(tools: str, some: bool) -> None:
    named = read_body(b'{"model":"m","messages":[],"tools": %b}' % tools.encode())
    assert read(plan(None, Ability.TOOLS), CHAT, named).tools is some


@pytest.mark.parametrize(
    ("operation", "messages", "images"),
    [
        (CHAT, [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}], True),
        (MESSAGES, [{"role": "user", "content": [{"type": "image", "source": {}}]}], True),
        (MESSAGES, [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image"}]}]}], True),
        # What only speaks of images has none.
        (CHAT, [{"role": "user", "content": 'send {"type": "image_url"}'}], False),
        (CHAT, [{"role": "user", "content": "image_url"}], False),
        (CHAT, [{"role": "user", "content": [{"type": "text", "text": "image"}]}], False),
    ],
)
def test_images(operation: Operation, messages: list[Any], images: bool) -> None:
    assert needs(plan(None, Ability.VISION), operation, messages=messages).images is images
    # Nobody asks where everybody can.
    assert not needs(plan(), operation, messages=messages).images


def test_images_of_responses() -> None:
    part = {"type": "input_image", "image_url": "data:,"}
    asked = plan(None, Ability.VISION)
    assert needs(asked, RESPONSES, input=[{"role": "user", "content": [part]}]).images


def test_pictures_are_no_text() -> None:
    url = "data:image/png;base64," + "A" * 400_000
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is it?"}]
    found = needs(plan(8192), messages=[{"role": "user", "content": parts}])
    assert 0 < found.tokens < 20
    assert found.ask is not None
    assert found.ask.prompt_tokens == found.tokens
    audio = {"type": "input_audio", "input_audio": {"data": "A" * 400_000, "format": "wav"}}
    assert needs(plan(8192), messages=[{"role": "user", "content": [audio]}]).tokens < 20


def test_escapes_are_not_counted_where_it_matters() -> None:
    """JSON in ASCII has six bytes for a letter of many languages."""
    assert 2500 < needs(plan(4000), messages=said("ж" * 5000)).tokens < 2520


def test_what_models_thought_is_not_read_again() -> None:
    thought = {"type": "thinking", "thinking": "x" * 50_000, "signature": "x" * 50_000}
    found = needs(plan(4000), MESSAGES, messages=[{"role": "assistant", "content": [thought]}], system="y" * 4000)
    assert 1000 <= found.tokens < 1010


def test_tools_are_read_too() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * 40_000}}]
    assert 10_000 <= needs(plan(4000), messages=[], tools=tools).tokens < 10_010


def test_what_is_read_apart_need_not_fit_together() -> None:
    found = needs(plan(4000), Operation.EMBEDDINGS, input=["x" * 2000] * 100)
    assert found.tokens == 500
    assert found.ask is not None
    assert found.ask.prompt_tokens == 50_000
    assert needs(plan(4000), Operation.EMBEDDINGS, input=list(range(5000))).tokens == 5000
    assert needs(plan(4000), Operation.EMBEDDINGS, input=[list(range(3000)), list(range(2000))]).tokens == 3000
    assert needs(plan(4000), Operation.COMPLETIONS, prompt="x" * 20_000).tokens == 5000
    assert needs(plan(10), Operation.COMPLETIONS, prompt=["x" * 400] * 9).tokens == 100


def test_what_is_cut_by_its_engine_fits() -> None:
    found = needs(plan(1000), RESPONSES, input="x" * 40_000, truncation="auto")
    assert found.tokens == 0
    assert found.ask is not None
    assert found.ask.prompt_tokens == 10_000
    assert needs(plan(1000), RESPONSES, input="x" * 40_000, truncation="disabled").tokens == 10_000


@pytest.mark.parametrize("operation", [Operation.SPEECH, Operation.IMAGES, Operation.RERANK, Operation.MODERATIONS])
def test_others_have_no_context(operation: Operation) -> None:
    assert needs(plan(10), operation, input="x" * 1000).tokens == 0


def test_what_could_not_be_read_is_not_judged() -> None:
    named = read_body(b'{"model":"m","messages":[{"content":"\\ud800' + b"x" * 40_000 + b'"}]}')
    found = read(plan(100), CHAT, named)
    assert found.tokens == 0
    assert found.ask is not None
    assert found.ask.prompt_tokens > 10_000
    # Nor what is no prompt at all: that is for the engine to say.
    assert needs(plan(1), messages="x" * 400).tokens == 100
    assert needs(plan(1), messages=7).tokens == 1


def test_the_session_as_clients_name_it() -> None:
    assert conversation("s1", messages=[]) == conversation("s1", messages=said("x"), user="u", prompt_cache_key="k")
    assert conversation("s1", messages=[]) != conversation("s2", messages=[])
    key = conversation(messages=[], prompt_cache_key="k", user="u")
    assert key == conversation(messages=said("x"), prompt_cache_key="k") is not None
    assert conversation(messages=[], user="u") == conversation(messages=said("x"), user="u") is not None
    whose = {"user_id": "u1"}
    assert conversation(operation=MESSAGES, messages=[], metadata=whose) is not None
    assert conversation(messages=[], metadata=whose) is None


@pytest.mark.parametrize(
    "fields",
    [{}, {"user": ""}, {"user": None}, {"prompt_cache_key": 7}, {"metadata": {}}, {"metadata": 1},
     {"metadata": {"user_id": 1}}, {"metadata": {"user_id": ""}}],
)  # fmt: skip
@pytest.mark.parametrize("operation", [CHAT, MESSAGES])
def test_no_session(operation: Operation, fields: dict[str, Any]) -> None:
    assert conversation("", operation, messages=[], **fields) is None


def test_who_names_no_session_is_known_by_how_it_began() -> None:
    first = said("x" * 5000)
    later = [*first, {"role": "assistant", "content": "y"}, *said("z" * 3000)]
    one, two = blocks(messages=first), blocks(messages=later)
    assert len(one) == 4
    assert two[:4] == one
    assert len(two) > len(one)
    other = blocks(messages=said("x" * 2000 + "y" + "x" * 3000))
    assert other[0] == one[0]
    assert other[-1] != one[3]
    assert blocks(messages=said("short")) == ()
    assert blocks(messages=first, user="u") == ()


def test_what_models_are_shown_first_counts_first() -> None:
    text = said("x" * 3000)
    assert blocks(messages=text)[0] != blocks(messages=text, tools=[{"name": "f"}])[0]
    assert blocks(MESSAGES, messages=text)[0] != blocks(MESSAGES, messages=text, system="be brief")[0]
    assert blocks(RESPONSES, input="x" * 3000)[0] != blocks(RESPONSES, input="x" * 3000, instructions="be brief")[0]


def test_blocks_have_an_end() -> None:
    assert len(blocks(messages=said("x" * (MOST_BLOCKS + 9) * BLOCK_BYTES))) == MOST_BLOCKS


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("type"), inner, max_size=4),
)
FIELDS = ("messages", "input", "prompt", "system", "instructions", "tools", "truncation", "max_tokens",
          "prompt_cache_key", "metadata", "user")  # fmt: skip


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES), st.sampled_from(Operation))
def test_any_body_has_needs(fields: dict[str, Any], operation: Operation) -> None:
    found = needs(plan(1, Ability.VISION, Ability.TOOLS), operation, **fields)
    assert found.ask is not None
    assert found.tokens >= 0
    assert found.surely <= found.tokens
