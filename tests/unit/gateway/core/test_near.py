from gateway.core.near import near_matches


def test_the_most_similar_first() -> None:
    names = ["qwen3:8b", "qwen3:14b", "llama3.2:3b", "nomic-embed-text"]
    assert near_matches("Qwen3-8B", names)[0] == "qwen3:8b"


def test_nothing_similar_nothing_named() -> None:
    assert near_matches("zzz", ["qwen3:8b"]) == ()


def test_long_names_and_long_lists_are_cut() -> None:
    assert len(near_matches("model-7" + "x" * 5000, [f"model-{n}" for n in range(50_000)])) <= 3
