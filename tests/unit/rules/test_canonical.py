"""One name for one model."""

from hypothesis import given
from hypothesis import strategies as st

from geniehive.rules import canonical
from geniehive.rules.canonical import Member
from geniehive.rules.families import identify_name


def member(name: str, quantization: str = "", digest: str = "") -> Member:
    found = identify_name(name, "", quantization)
    return Member(name, found.model, found.bits, digest)


def test_three_spellings_of_one_model() -> None:
    members = [member("gpt-oss:120b", "MXFP4"), member("openai/gpt-oss-120b"), member("gpt-oss-120b-Q4.gguf")]
    assert canonical.join(members) == {
        "gpt-oss-120b": ("gpt-oss-120b-Q4.gguf", "gpt-oss:120b", "openai/gpt-oss-120b"),
    }


def test_one_spelling_is_no_other_name() -> None:
    assert canonical.join([member("qwen3:8b"), member("qwen3:8b", "Q4_K_M"), member("qwen3:4b")]) == {}


def test_a_name_without_a_size_says_too_little() -> None:
    assert canonical.join([member("nomic-embed-text"), member("nomic-ai/nomic-embed-text")]) == {}


def test_quantisations_that_differ_stay_apart() -> None:
    members = [
        member("qwen3:8b", "Q4_K_M"),
        member("Qwen3-8B-Q4_0"),
        member("Qwen/Qwen3-8B"),
        member("qwen3:8b-q8_0"),
        member("Qwen3-8B-FP8"),
    ]
    assert canonical.join(members) == {
        "qwen3-8b": ("Qwen/Qwen3-8B", "Qwen3-8B-Q4_0", "qwen3:8b"),
        "qwen3-8b-q8": ("Qwen3-8B-FP8", "qwen3:8b-q8_0"),
    }


def test_the_same_weights_are_the_same_model_whatever_they_are_called() -> None:
    members = [member("qwen3:8b", "Q4_K_M", "sha256:1"), member("mine", "Q4_K_M", "sha256:1"), member("other")]
    assert canonical.join(members) == {"qwen3-8b": ("mine", "qwen3:8b")}


MEMBERS = st.lists(
    st.builds(
        Member,
        st.sampled_from("abcdef"),
        st.sampled_from(["", "m-1b", "n-1b"]),
        st.sampled_from([None, 4, 8]),
        st.sampled_from(["", "d", "e"]),
    ),
    max_size=8,
)


@given(MEMBERS, MEMBERS)
def test_a_plain_name_that_is_there_stays_there_whatever_comes(before: list[Member], more: list[Member]) -> None:
    models = {member.model for member in before}
    assert models & canonical.join(before).keys() <= canonical.join(before + more).keys()


@given(MEMBERS)
def test_it_does_not_depend_on_an_order(members: list[Member]) -> None:
    assert canonical.join(members) == canonical.join(members[::-1])


def test_what_differs() -> None:
    assert canonical.differing({"a": ("x", "y")}, {"a": ("x", "y"), "b": ("y", "z")}) == {"b"}
