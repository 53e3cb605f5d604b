import pytest

from gateway.core.api import CALLS, Dialect, dialect_of
from geniehive.rules.operations import BY_PATH, Operation


def test_every_path_of_the_contract_is_a_call() -> None:
    assert CALLS.keys() == BY_PATH.keys()
    assert {call.operation for call in CALLS.values()} == set(Operation)
    assert all(call.path == path for path, call in CALLS.items())


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", Dialect.OPENAI),
        ("/v1/audio/speech", Dialect.OPENAI),
        ("/v1/responses", Dialect.RESPONSES),
        ("/v1/messages", Dialect.ANTHROPIC),
        ("/v1/messages/count_tokens", Dialect.ANTHROPIC),
        ("/v1/messages/batches", Dialect.ANTHROPIC),
        ("/v1/messagesx", Dialect.OPENAI),
        ("/nope", Dialect.OPENAI),
    ],
)
def test_whose_words(path: str, dialect: Dialect) -> None:
    assert dialect_of(path) is dialect


def test_engines_are_asked_where_they_have_it() -> None:
    assert {path for path, call in CALLS.items() if call.asked != path} == {"/rerank"}
    assert CALLS["/rerank"].asked == "/v1/rerank"
