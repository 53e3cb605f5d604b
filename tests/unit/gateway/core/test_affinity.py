from hypothesis import given
from hypothesis import strategies as st

from gateway.core.affinity import MOST, Memory
from gateway.core.asking import BLOCK_TOKENS, Ask


def chat(conversation: int, tokens: int = 1000, blocks: tuple[int, ...] = ()) -> Ask:
    return Ask(conversation=conversation, prompt_tokens=tokens, blocks=blocks)


def test_a_conversation_is_remembered_with_its_answer() -> None:
    memory = Memory(2)
    assert memory.hit("m", chat(1)) == 0
    key = memory.sent("m", chat(1))
    assert memory.hit("m", chat(1, 1500)) == 1000
    memory.answered(key, 1200)
    assert memory.hit("m", chat(1, 1500)) == 1200
    assert memory.hit("m", chat(1, 500)) == 499, "the last token is always read"
    assert memory.hit("other", chat(1)) == 0


def test_the_oldest_goes() -> None:
    memory = Memory(2)
    for conversation in (1, 2, 1, 3):
        memory.sent("m", chat(conversation))
    assert [memory.hit("m", chat(n)) > 0 for n in (1, 2, 3)] == [True, False, True]


def test_what_belongs_to_no_conversation_takes_a_slot_too() -> None:
    memory = Memory(2)
    memory.sent("m", chat(1))
    assert memory.sent("m", Ask(prompt_tokens=10)) is None
    assert memory.hit("m", chat(1)) > 0
    memory.sent("m", Ask(prompt_tokens=10))
    assert memory.hit("m", chat(1)) == 0


def test_prompts_that_begin_alike() -> None:
    memory = Memory(2)
    memory.sent("m", Ask(prompt_tokens=2000, blocks=(1, 2, 3, 9)))
    assert memory.hit("m", Ask(prompt_tokens=2000, blocks=(1, 2, 3, 7, 8))) == 3 * BLOCK_TOKENS
    assert memory.hit("m", Ask(prompt_tokens=300, blocks=(1,))) == BLOCK_TOKENS
    assert memory.hit("m", Ask(prompt_tokens=2000, blocks=(5, 6))) == 0
    assert memory.hit("other", Ask(prompt_tokens=2000, blocks=(1, 2))) == 0


def test_a_new_chat_of_a_known_session_hits_what_is_the_same() -> None:
    """Some clients name the user, not the chat."""
    memory = Memory(2)
    key = memory.sent("m", chat(1, 2000, (1, 2, 3)))
    memory.answered(key, 2200)
    assert memory.hit("m", chat(1, 3000, (1, 2, 3, 4))) == 2200
    assert memory.hit("m", chat(1, 3000, (1, 8, 9))) == BLOCK_TOKENS
    assert memory.hit("m", chat(1, 3000, (7, 8, 9))) == 0


def test_an_answer_that_came_too_late_is_not_remembered() -> None:
    memory = Memory(1)
    key = memory.sent("m", chat(1))
    memory.sent("m", chat(2))
    memory.answered(key, 5000)
    assert memory.hit("m", chat(1)) == 0
    assert len(memory) == 1


def test_fewer_slots_remember_less() -> None:
    memory = Memory(4)
    for conversation in range(4):
        memory.sent("m", chat(conversation))
    memory.resize(1)
    assert [memory.hit("m", chat(n)) > 0 for n in range(4)] == [False, False, False, True]


ASKS = st.builds(
    Ask,
    prompt_tokens=st.integers(0, 5000),
    conversation=st.none() | st.integers(0, 5),
    blocks=st.lists(st.integers(0, 4), max_size=5).map(
        # Chained: a block's hash is of all before it.
        lambda path: tuple(hash(tuple(path[: n + 1])) for n in range(len(path)))
    ),
)


@given(st.lists(st.tuples(ASKS, st.sampled_from("mn")), max_size=60), st.integers(1, 4))
def test_it_is_bounded_and_a_hit_is_never_more_than_the_prompt(asked: list[tuple[Ask, str]], slots: int) -> None:
    memory = Memory(slots)
    for ask, model in asked:
        assert 0 <= memory.hit(model, ask) <= max(0, ask.prompt_tokens - 1)
        memory.answered(memory.sent(model, ask), 10_000)
        assert len(memory) <= slots
        held = [blocks for one in memory.held.values() for blocks in one.blocks]
        assert sum(memory._blocks.values()) == len(held)


def test_it_remembers_no_more_than_so_many_of_any_engine() -> None:
    memory = Memory(10_000)
    for conversation in range(500):
        memory.sent("m", chat(conversation))
    assert len(memory) == MOST
