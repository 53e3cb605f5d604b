import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.shape import Shaper, Unshapeable, shaper
from geniehive.rules.model import PromptAction, RequestPolicy, SystemPrompt
from geniehive.rules.operations import Operation

CHAT, MESSAGES, RESPONSES = Operation.CHAT, Operation.MESSAGES, Operation.RESPONSES
HELLO = {"role": "user", "content": "hello"}


def policy(defaults: Any = None, overrides: Any = None, **more: Any) -> RequestPolicy:
    texts = {"defaults_json": defaults, "overrides_json": overrides}
    return RequestPolicy(**{k: json.dumps(v) for k, v in texts.items() if v is not None}, **more)


def system(action: PromptAction, text: str = "Be brief.") -> RequestPolicy:
    return RequestPolicy(system_prompt=SystemPrompt(action=action, text=text))


def made(*policies: RequestPolicy, tier: RequestPolicy | None = None, operation: Operation = CHAT) -> Shaper:
    found = shaper(operation, tier, policies)
    assert found is not None
    return found


def shaped(body: Any, *policies: RequestPolicy, tier: RequestPolicy | None = None, operation: Operation = CHAT) -> Any:
    return json.loads(made(*policies, tier=tier, operation=operation).apply(json.dumps(body).encode(), "real"))


def test_what_says_nothing_changes_nothing() -> None:
    assert shaper(CHAT, None, ()) is None
    assert shaper(CHAT, RequestPolicy(), (RequestPolicy(),)) is None
    assert shaper(CHAT, None, (policy({"a": 1}, operations=(Operation.EMBEDDINGS,)),)) is None
    assert shaper(Operation.EMBEDDINGS, None, (system(PromptAction.REPLACE),)) is None


def test_who_wins() -> None:
    tier = policy({"a": "tier", "b": "tier", "c": "tier"}, {"e": "tier", "f": "tier"})
    own = policy({"a": "own", "d": "own"}, {"f": "own"})
    body = {"model": "m", "c": "client", "e": "client", "messages": []}
    assert shaped(body, own, tier=tier) == {
        "model": "real", "messages": [], "a": "tier", "b": "tier", "c": "client", "d": "own", "e": "tier", "f": "own",
    }  # fmt: skip


def test_objects_merge_and_all_else_replaces() -> None:
    own = policy({"o": {"x": 1, "deep": {"p": 1}}, "l": [1]}, {"r": {"k": None}})
    body = {"model": "m", "o": {"y": 2, "deep": {"q": 2}}, "l": [2, 3], "r": {"k": 5, "j": 6}}
    assert shaped(body, own) == {
        "model": "real", "o": {"y": 2, "deep": {"q": 2, "p": 1}, "x": 1}, "l": [2, 3], "r": {"k": None, "j": 6},
    }  # fmt: skip
    assert shaped({"model": "m", "o": 7}, own)["o"] == 7
    assert shaped({"model": "m", "r": 7}, own)["r"] == {"k": None}


def test_a_null_of_the_client_stands() -> None:
    assert shaped({"model": "m", "t": None}, policy({"t": 1}))["t"] is None


def test_numbers_and_unknown_fields_keep_their_bytes() -> None:
    body = (
        b'{"model":"m","n":4096,"big":123456789012345678901234567890,"f":1.10,"e":1E2,"s":"\\u00e9\\/","messages":[]}'
    )
    out = made(policy({"top_p": 0.90, "seed": 7})).apply(body, "real")
    for part in (b'"n":4096', b'"big":123456789012345678901234567890', b'"f":1.10', b'"e":1E2', b'"s":"\\u00e9\\/"'):
        assert part in out
    assert b'"seed":7' in out


@pytest.mark.parametrize(
    ("action", "said", "expected"),
    [
        (PromptAction.PREPEND, "Sing.", ["Be brief.\n\nSing."]),
        (PromptAction.APPEND, "Sing.", ["Sing.\n\nBe brief."]),
        (PromptAction.REPLACE, "Sing.", ["Be brief."]),
        (PromptAction.PREPEND, None, ["Be brief."]),
        (PromptAction.APPEND, None, ["Be brief."]),
        (PromptAction.REPLACE, None, ["Be brief."]),
    ],
)
@pytest.mark.parametrize("operation", [CHAT, MESSAGES, RESPONSES])
def test_system_prompts_in_every_protocol(
    operation: Operation, action: PromptAction, said: str | None, expected: list[str]
) -> None:
    if operation is CHAT:
        body: Any = {"model": "m", "messages": [HELLO]}
        if said:
            body["messages"].insert(0, {"role": "system", "content": said})
        out = shaped(body, system(action))
        assert [m["content"] for m in out["messages"] if m["role"] == "system"] == expected
        assert out["messages"][-1] == HELLO
    elif operation is MESSAGES:
        body = {"model": "m", "messages": [HELLO]} | ({"system": said} if said else {})
        assert shaped(body, system(action), operation=operation)["system"] == expected[0]
    else:
        body = {"model": "m", "input": "hello"} | ({"instructions": said} if said else {})
        assert shaped(body, system(action), operation=operation)["instructions"] == expected[0]


def test_system_prompts_in_blocks() -> None:
    blocks = [{"type": "text", "text": "Sing.", "cache_control": {"type": "ephemeral"}}]
    mine = {"type": "text", "text": "Be brief."}
    body = {"model": "m", "system": blocks, "messages": [HELLO]}
    assert shaped(body, system(PromptAction.PREPEND), operation=MESSAGES)["system"] == [mine, *blocks]
    assert shaped(body, system(PromptAction.REPLACE), operation=MESSAGES)["system"] == "Be brief."
    chat = {"model": "m", "messages": [{"role": "system", "content": blocks}, HELLO]}
    assert shaped(chat, system(PromptAction.APPEND))["messages"][0]["content"] == [*blocks, mine]


def test_the_tiers_prompt_wins() -> None:
    tier = system(PromptAction.REPLACE, "Of the role.")
    out = shaped({"model": "m", "messages": [HELLO]}, system(PromptAction.REPLACE), tier=tier)
    assert out["messages"][0] == {"role": "system", "content": "Of the role."}


def test_the_template_holds_what_was_said_last() -> None:
    ask = RequestPolicy(user_template="Translate: {{ user_input }}!")
    earlier = {"role": "user", "content": "first"}
    out = shaped({"model": "m", "messages": [earlier, HELLO, {"role": "assistant", "content": "x"}]}, ask)
    assert [m["content"] for m in out["messages"]] == ["first", "Translate: hello!", "x"]
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    parts = {"role": "user", "content": [image, {"type": "text", "text": "hello"}]}
    out = shaped({"model": "m", "messages": [parts]}, ask)
    assert out["messages"][0]["content"] == [image, {"type": "text", "text": "Translate: hello!"}]
    assert shaped({"model": "m", "input": "hi"}, ask, operation=RESPONSES)["input"] == "Translate: hi!"
    nothing = {"model": "m", "messages": [{"role": "user", "content": [image]}]}
    assert shaped(nothing, ask)["messages"] == nothing["messages"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": {}}, "messages"),
        ({"model": "m", "messages": [1]}, "messages"),
    ],
)
def test_what_can_not_be_shaped_says_why(body: Any, param: str) -> None:
    with pytest.raises(Unshapeable) as caught:
        shaped(body, system(PromptAction.PREPEND))
    assert caught.value.param == param


def test_half_a_surrogate_pair_does_not_hinder() -> None:
    body = b'{"model":"m","n":4096,"messages":[{"role":"user","content":"\\ud83d"}]}'
    out = made(policy({"a": 1})).apply(body, "real")
    assert json.loads(out) == {"model": "real", "n": 4096, "a": 1, "messages": [{"role": "user", "content": "\ud83d"}]}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (RequestPolicy(defaults_json="[]"), "defaults_json must be"),
        (RequestPolicy(overrides_json="{"), "overrides_json is not JSON"),
        (policy({"model": "x"}), "model"),
        (RequestPolicy(user_template="no place"), "user_template"),
    ],
)
def test_policies_that_make_no_sense(wrong: RequestPolicy, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        shaper(CHAT, None, (wrong,))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(
    st.sampled_from("abcd"), values | st.dictionaries(st.sampled_from("xy"), values, max_size=2), max_size=4
)


def deep(under: Any, over: Any) -> Any:
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return under | {k: deep(under[k], v) if k in under else v for k, v in over.items()}


@given(objects, objects, objects, objects, objects)
def test_the_merge_is_the_one_that_is_promised(own: Any, tier: Any, client: Any, tier_over: Any, own_over: Any) -> None:
    found = shaper(CHAT, policy(tier, tier_over), (policy(own, own_over),))
    expected: Any = {}
    for part in (own, tier, client | {"model": "real"}, tier_over, own_over):
        expected = deep(expected, part)
    if found is None:
        assert {} == own == tier == tier_over == own_over
    else:
        assert json.loads(found.apply(json.dumps(client | {"model": "m"}).encode(), "real")) == expected


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | objects.map(lambda o: json.dumps(o).encode()))
def test_no_body_breaks_it(body: bytes) -> None:
    both = RequestPolicy(
        defaults_json='{"a":{"x":1}}',
        system_prompt=SystemPrompt(action=PromptAction.APPEND, text="t"),
        user_template="{{ user_input }}",
    )
    for operation in (CHAT, MESSAGES, RESPONSES):
        try:
            out = made(both, operation=operation).apply(body, "real")
        except Unshapeable:
            continue
        assert json.loads(out)["model"] == "real"
