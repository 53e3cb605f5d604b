"""How long engines are waited for, by what they are asked; and what is said when that was not long enough."""

from collections.abc import Mapping

import msgspec

from geniehive.kit import http1
from geniehive.rules.operations import BY_PATH

_FIELDS: Mapping[type[http1.HttpError], str] = {
    http1.ConnectTimeout: "connect",
    http1.FirstByteTimeout: "first_byte",
    http1.IdleTimeout: "idle",
    http1.TotalTimeout: "total",
}
Seconds = float | None

# Counting tokens is not what else `messages` is: it is done at once.
COUNT_TOKENS = "/v1/messages/count_tokens"


class Patience(msgspec.Struct, frozen=True):
    """timeouts: for the client of engines. own: names of those that are the operation's own, and where they are set."""

    timeouts: http1.Timeouts
    own: Mapping[str, str] = {}

    def words(self, error: http1.HttpError) -> str:
        """What went wrong; and the setting that says how long to wait, if that was it."""
        field = _FIELDS.get(type(error))
        said = str(error)
        # A limit that is not from the settings has words of its own after the seconds.
        if field is None or not said.endswith(" s"):
            return said
        return f"{said} ({self.own.get(field, f'timeouts.{field}')})"


def by_path(general: Mapping[str, Seconds], operations: Mapping[str, Mapping[str, Seconds]]) -> dict[str, Patience]:
    """For every path of the API. general: connect, first_byte, idle, total. operations: what an operation has of its
    own of these.
    """
    made = {path: _patience(general, operation.word, operations) for path, operation in BY_PATH.items()}
    made[COUNT_TOKENS] = _patience(general, "count_tokens", operations)
    return made


def _patience(general: Mapping[str, Seconds], word: str, operations: Mapping[str, Mapping[str, Seconds]]) -> Patience:
    own = operations.get(word, {})
    return Patience(
        http1.Timeouts(**{**general, **own}), {field: f"timeouts.operations.{word}.{field}" for field in own}
    )
