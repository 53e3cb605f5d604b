"""What a client can ask for, and at which paths. The numbers are those of the contract; a test holds them to it."""

from enum import IntEnum


class Operation(IntEnum):
    CHAT = 1
    COMPLETIONS = 2
    EMBEDDINGS = 3
    TRANSCRIPTION = 4
    TRANSLATION = 5
    SPEECH = 6
    IMAGES = 7
    RERANK = 8
    MODERATIONS = 9
    RESPONSES = 10
    MESSAGES = 11

    @property
    def word(self) -> str:
        """For people and settings: "chat"."""
        return self.name.lower()


BY_WORD = {operation.word: operation for operation in Operation}

# Every path that a gateway offers and a relay lets through.
BY_PATH = {
    "/v1/chat/completions": Operation.CHAT,
    "/v1/completions": Operation.COMPLETIONS,
    "/v1/embeddings": Operation.EMBEDDINGS,
    "/v1/audio/transcriptions": Operation.TRANSCRIPTION,
    "/v1/audio/translations": Operation.TRANSLATION,
    "/v1/audio/speech": Operation.SPEECH,
    "/v1/images/generations": Operation.IMAGES,
    "/v1/images/edits": Operation.IMAGES,
    "/v1/images/variations": Operation.IMAGES,
    "/v1/rerank": Operation.RERANK,
    "/rerank": Operation.RERANK,
    "/v1/moderations": Operation.MODERATIONS,
    "/v1/responses": Operation.RESPONSES,
    "/v1/messages": Operation.MESSAGES,
    "/v1/messages/count_tokens": Operation.MESSAGES,
}


class Ability(IntEnum):
    TOOLS = 1
    VISION = 2
    REASONING = 3
