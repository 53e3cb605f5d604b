import pytest

from geniehive.rules import probe_paths
from geniehive.rules.probe_paths import LIST, Question, ailment, question


def test_no_engine_is_asked_for_what_makes_it_work() -> None:
    assert question("sglang").path == "/ready", "its /health generates a token"
    assert question("openai") == question("anything else") == LIST


@pytest.mark.parametrize(
    ("runtime", "status", "body", "well"),
    [
        ("ollama", 200, b"Ollama is running", True),
        ("ollama", 200, b"<html>Log in to the hotel's network</html>", False),
        ("llamacpp", 200, b'{"status":"ok"}', True),
        ("llamacpp", 503, b'{"error":{"message":"Loading model","code":503}}', True),
        ("llamacpp", 503, b"", False),
        ("vllm", 200, b"", True),
        ("vllm", 503, b"", False),
        ("sglang", 503, b"", False),
        ("llama-swap", 200, b"OK", True),
        ("localai", 503, b'{"status":"starting"}', False),
        ("tei", 200, b"", True),
        # A refusal is an answer.
        ("openai", 401, b"", True),
        ("openai", 404, b'{"detail":"Not Found"}', True),
        ("openai", 500, b"", False),
    ],
)
def test_what_an_answer_says(runtime: str, status: int, body: bytes, well: bool) -> None:
    said = ailment(question(runtime), status, body)
    assert (said is None) == well
    if said is not None:
        assert said.startswith(("it answers", "something else"))


def test_the_relays_path_is_none_of_the_api() -> None:
    assert Question(probe_paths.AT_RELAY).path == "/probe"
