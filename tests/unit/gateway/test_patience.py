import msgspec
import pytest

from gateway.patience import Patience, by_path
from gateway.settings import OperationTimeouts, TimeoutSettings
from geniehive.kit import http1
from geniehive.rules.operations import BY_PATH, Operation


def of(times: TimeoutSettings) -> dict[str, Patience]:
    general = msgspec.to_builtins(times)
    operations = general.pop("operations")
    return by_path(general, operations)


def test_every_path_has_its_limits() -> None:
    found = of(TimeoutSettings())
    assert found.keys() == BY_PATH.keys()
    assert found["/v1/chat/completions"].timeouts == http1.Timeouts(5.0, 300.0, 120.0, None)
    assert found["/v1/images/edits"].timeouts == http1.Timeouts(5.0, 900.0, 120.0, None)
    assert found["/v1/messages"].timeouts.first_byte == 300.0
    assert found["/v1/messages/count_tokens"].timeouts.first_byte == 60.0


def test_every_operation_can_be_set() -> None:
    words = {operation.word for operation in Operation} | {"count_tokens"}
    assert {field.name for field in msgspec.structs.fields(TimeoutSettings().operations)} == words


def test_what_an_operation_has_of_its_own_and_what_it_has_not() -> None:
    given = msgspec.convert(
        {"idle": 7.0, "operations": {"images": {"idle": 9.0}, "chat": {"first_byte": None}}}, TimeoutSettings
    )
    found = of(given)
    # Leaving out one limit of an operation does not undo what it has by default.
    assert found["/v1/images/edits"].timeouts == http1.Timeouts(5.0, 900.0, 9.0, None)
    assert found["/v1/chat/completions"].timeouts == http1.Timeouts(5.0, None, 7.0, None)
    assert found["/v1/embeddings"].timeouts == http1.Timeouts(5.0, 600.0, 7.0, None)
    assert given.operations.chat == OperationTimeouts(first_byte=None)


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("/v1/chat/completions", http1.FirstByteTimeout, "x within 3 s (timeouts.first_byte)"),
        ("/v1/images/generations", http1.FirstByteTimeout, "x within 3 s (timeouts.operations.images.first_byte)"),
        ("/v1/images/generations", http1.IdleTimeout, "x within 3 s (timeouts.idle)"),
        ("/v1/chat/completions", http1.TotalTimeout, "x within 3 s (timeouts.total)"),
        ("/v1/chat/completions", http1.ConnectTimeout, "x within 3 s (timeouts.connect)"),
        ("/v1/chat/completions", http1.ConnectionLost, "x within 3 s"),
    ],
)
def test_words_name_the_setting(path: str, error: type[http1.HttpError], said: str) -> None:
    assert of(TimeoutSettings())[path].words(error("x within 3 s", sent=True)) == said


def test_a_limit_that_is_no_setting_is_not_named() -> None:
    late = http1.IdleTimeout("x sent nothing for 3 s after its host went offline", sent=True)
    assert Patience(http1.Timeouts()).words(late) == str(late)
