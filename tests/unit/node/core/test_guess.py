import pytest

from geniehive.rules.operations import Operation
from geniehive_node.core import guess


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("text-embedding-3-small", Operation.EMBEDDINGS),
        ("nomic-embed-text:latest", Operation.EMBEDDINGS),
        ("BAAI/bge-m3", Operation.EMBEDDINGS),
        ("multilingual-e5-small-q4", Operation.EMBEDDINGS),
        ("all-minilm:22m", Operation.EMBEDDINGS),
        ("BAAI/bge-reranker-v2-m3", Operation.RERANK),
        ("gpt-4o-mini-transcribe", Operation.TRANSCRIPTION),
        ("tts-1-hd", Operation.SPEECH),
        ("dall-e-3", Operation.IMAGES),
        ("omni-moderation-latest", Operation.MODERATIONS),
    ],
)
def test_names_that_tell(name: str, operation: Operation) -> None:
    assert guess.by_name(name) == (operation,)


@pytest.mark.parametrize("name", ["qwen3:8b", "gpt-4o", "llama3.2:latest", "remembedding", "mistral-large", "e57", ""])
def test_names_that_tell_nothing(name: str) -> None:
    assert guess.by_name(name) == ()


def test_types() -> None:
    assert guess.by_type("embedding") == (Operation.EMBEDDINGS,)
    assert guess.by_type("LLM") == guess.TEXT
    assert guess.by_type("hologram") == guess.by_type(None) == guess.by_type(7) == ()


def test_whisper_translates_too() -> None:
    assert guess.by_name("whisper-large-v3") == (Operation.TRANSCRIPTION, Operation.TRANSLATION)


def test_tasks_as_hugging_face_calls_them() -> None:
    assert guess.by_type("automatic-speech-recognition") == (Operation.TRANSCRIPTION, Operation.TRANSLATION)
    assert guess.by_type("text-to-speech") == (Operation.SPEECH,)
    assert guess.by_type("voice-activity-detection") == ()
