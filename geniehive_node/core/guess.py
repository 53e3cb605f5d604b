"""What a model's name or type tells of the operations it is made for, where the engine does not say."""

import re

from geniehive.rules.operations import Operation

_O = Operation
TEXT = (_O.CHAT, _O.COMPLETIONS)

_START, _END = r"(?:^|[-_/.: ])", r"(?:$|[-_/.: ])"
# The first that fits wins: a reranker is often named after the embedding model beside it.
_BY_NAME: tuple[tuple[re.Pattern[str], tuple[Operation, ...]], ...] = tuple(
    (re.compile(_START + "(?:" + words + ")" + _END, re.IGNORECASE), operations)
    for words, operations in (
        (r"rerank(?:er)?", (_O.RERANK,)),
        (r"embed(?:ding)?s?|embedder|bge|e5|gte|(?:all-)?minilm|mxbai|gritlm", (_O.EMBEDDINGS,)),
        (r"whisper", (_O.TRANSCRIPTION, _O.TRANSLATION)),
        (r"transcribe|parakeet|asr", (_O.TRANSCRIPTION,)),
        (r"tts|kokoro|piper", (_O.SPEECH,)),
        (r"dall-e|gpt-image|stable-diffusion|sdxl|sd3|flux|imagen|image", (_O.IMAGES,)),
        (r"moderation", (_O.MODERATIONS,)),
    )
)

# As model lists spell it in "type" (LM Studio, Together and others) or "task" (speaches, by the words of Hugging Face).
_BY_TYPE: dict[str, tuple[Operation, ...]] = {
    "llm": TEXT,
    "vlm": TEXT,
    "chat": TEXT,
    "language": TEXT,
    "code": TEXT,
    "embedding": (_O.EMBEDDINGS,),
    "embeddings": (_O.EMBEDDINGS,),
    "rerank": (_O.RERANK,),
    "reranker": (_O.RERANK,),
    "moderation": (_O.MODERATIONS,),
    "image": (_O.IMAGES,),
    "transcribe": (_O.TRANSCRIPTION,),
    "stt": (_O.TRANSCRIPTION,),
    "tts": (_O.SPEECH,),
    "text-generation": TEXT,
    "feature-extraction": (_O.EMBEDDINGS,),
    "sentence-similarity": (_O.EMBEDDINGS,),
    "text-ranking": (_O.RERANK,),
    "automatic-speech-recognition": (_O.TRANSCRIPTION, _O.TRANSLATION),
    "text-to-speech": (_O.SPEECH,),
    "text-to-image": (_O.IMAGES,),
}


def by_name(name: str) -> tuple[Operation, ...]:
    """Empty if the name tells nothing, as that of most chat models."""
    for pattern, operations in _BY_NAME:
        if pattern.search(name):
            return operations
    return ()


def by_type(word: object) -> tuple[Operation, ...]:
    """For the "type" or "task" of an entry in a model list. Empty if there is none, or an unknown one."""
    return _BY_TYPE.get(word.lower(), ()) if isinstance(word, str) else ()
