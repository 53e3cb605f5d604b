"""What models' names say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.rules.families import bits, called, identify, identify_name, within
from tests.support.cluster import asset


@pytest.mark.parametrize(
    ("name", "family", "model", "quantization", "weights"),
    [
        ("qwen3:8b", "qwen3", "qwen3-8b", "", None),
        ("Qwen/Qwen3-8B", "qwen3", "qwen3-8b", "", None),
        ("hf.co/Qwen/Qwen3-8B-GGUF:Q4_K_M", "qwen3", "qwen3-8b", "q4_k_m", 4),
        ("mlx-community/Qwen3-8B-4bit", "qwen3", "qwen3-8b", "4bit", 4),
        ("Qwen3-8B-Q8-0", "qwen3", "qwen3-8b", "q8_0", 8),
        ("Qwen3.5-9B-Q5_K_M", "qwen3.5", "qwen3.5-9b", "q5_k_m", 5),
        ("Qwen3-30B-A3B-Instruct-2507-FP8", "qwen3", "qwen3-30b-a3b-2507-instruct", "fp8", 8),
        ("gpt-oss:120b", "gpt-oss", "gpt-oss-120b", "", None),
        ("openai/gpt-oss-120b", "gpt-oss", "gpt-oss-120b", "", None),
        ("gpt-oss-120b-Q4.gguf", "gpt-oss", "gpt-oss-120b", "q4", 4),
        ("gpt-oss-120b-mxfp4-00001-of-00003.gguf", "gpt-oss", "gpt-oss-120b", "mxfp4", 4),
        ("llama3.2:1b", "llama3.2", "llama3.2-1b", "", None),
        ("llama3.2:1b-instruct-q4_K_M", "llama3.2", "llama3.2-1b", "q4_k_m", 4),
        ("meta-llama/Llama-3.2-1B-Instruct", "llama3.2", "llama3.2-1b", "", None),
        ("meta-llama/Llama-3.2-1B", "llama3.2", "llama3.2-1b-base", "", None),
        ("Meta-Llama-3.1-8B-Instruct-AWQ", "llama3.1", "llama3.1-8b", "awq", 4),
        ("google/gemma-3-4b-it", "gemma3", "gemma3-4b", "", None),
        ("gemma3:4b", "gemma3", "gemma3-4b", "", None),
        ("mistral-7b-instruct-v0.2.Q4_K_M.gguf", "mistral", "mistral-7b-v0.2", "q4_k_m", 4),
        ("mistral:7b-instruct-v0.2", "mistral", "mistral-7b-v0.2", "", None),
        ("Qwen/Qwen2.5-Coder-7B-Instruct", "qwen2.5", "qwen2.5-coder-7b", "", None),
        ("Qwen/Qwen2.5-Coder-7B", "qwen2.5", "qwen2.5-coder-7b-base", "", None),
        ("qwen2.5-coder:7b", "qwen2.5", "qwen2.5-coder-7b", "", None),
        ("nomic-embed-text:latest", "nomic", "", "", None),
        ("gpt-4o", "gpt4o", "", "", None),
        ("my-assistant", "", "", "", None),
        ("", "", "", "", None),
    ],
)
def test_spellings(name: str, family: str, model: str, quantization: str, weights: int | None) -> None:
    found = identify_name(name)
    assert (found.family, found.model, found.quantization, found.bits) == (family, model, quantization, weights)


def test_an_engine_s_word_counts_where_the_name_says_nothing() -> None:
    assert identify(asset("my-assistant", family="qwen3", quantization="Q4_K_M")).family == "qwen3"
    assert identify(asset("my-assistant", family="gptoss")).family == "gpt-oss"
    assert identify(asset("my-assistant", family="qwen35moe")).family == "qwen3.5moe"
    # "llama" is coarser than the name, and this one is of another maker, whatever it was made from.
    assert identify(asset("llama3.2:1b", family="llama")).family == "llama3.2"
    assert identify(asset("deepseek-r1:8b", family="qwen3")).family == "deepseek"
    # Of quantisation the engine knows best.
    assert identify(asset("qwen3-8b-q4", quantization="Q8_0")).bits == 8
    assert identify(asset("qwen3-8b-q4", quantization="unknown")).bits == 4


@pytest.mark.parametrize(
    ("family", "wanted", "is_one"),
    [
        ("qwen3", "qwen3", True),
        ("qwen3.5", "qwen3", True),
        ("qwen3.5moe", "Qwen 3.5", True),
        ("qwen3moe", "qwen3", True),
        ("qwen3", "Qwen", True),
        ("qwen2.5", "qwen3", False),
        ("qwen2.5", "qwen2", True),
        ("llama3.2", "Llama 3.2", True),
        ("llama3.2", "llama-3", True),
        ("llama3.2", "llama", True),
        ("codellama", "code", False),
        ("gpt-oss", "gptoss", True),
        ("gemma3n", "gemma3", True),
        ("", "qwen3", False),
        ("qwen3", "", False),
    ],
)
def test_whether_a_family_is_the_one_wanted(family: str, wanted: str, is_one: bool) -> None:
    assert within(family, wanted) is is_one


@pytest.mark.parametrize(
    ("quantization", "weights"),
    [("q4_k_m", 4), ("iq2_xs", 2), ("bf16", 16), ("f32", 32), ("w4a16", 4), ("int8", 8), ("nvfp4", 4), ("odd", None)],
)
def test_bits(quantization: str, weights: int | None) -> None:
    assert bits(quantization) == weights


@given(st.text(max_size=60), st.text(max_size=12), st.text(max_size=12))
def test_any_text_has_an_answer(name: str, family: str, quantization: str) -> None:
    found = identify_name(name, family, quantization)
    assert bool(found.model) <= bool(found.size)
    within(found.family, family)


@pytest.mark.parametrize(
    ("name", "wanted", "is_called"),
    [
        ("qwen3-coder:30b", "qwen3-coder", True),
        ("Qwen/Qwen3-Coder-Next", "Qwen3-Coder", True),
        ("qwen3:8b", "qwen3-coder", False),
        ("nomic-embed-text:latest", "nomic-embed-text", True),
        ("bge-m3", "bge-m3", True),
        ("mistral-small3.2:24b", "mistral-small", True),
        ("voxtral-mini", "voxtral", True),
        ("whisper-large-v3", "whisper", True),
        ("whispering:7b", "whisper", False),
        ("", "qwen3", False),
        ("qwen3:8b", "", False),
    ],
)
def test_what_a_name_begins_with(name: str, wanted: str, is_called: bool) -> None:
    assert called(identify_name(name).name, wanted) is is_called
