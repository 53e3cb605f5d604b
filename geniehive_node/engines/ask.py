"""Questions to an engine over HTTP, with short limits and failures in words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from geniehive._version import __version__
from geniehive.kit.http1 import (
    Client,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    FirstByteTimeout,
    HttpError,
    IdleTimeout,
    Origin,
    Timeouts,
    TooLarge,
    TotalTimeout,
    Truncated,
)
from geniehive_node.core.looks import Figures, LookFailed, Snapshot, Trouble

NEAR = Timeouts(connect=1.0, first_byte=2.0, idle=2.0, total=4.0)
FAR = Timeouts(connect=5.0, first_byte=10.0, idle=10.0, total=20.0)
# The longest list of models known is a tenth of this.
ANSWER_LIMIT = 8 * 1024 * 1024

GENIEHIVE = "GenieHive"
_HEADERS = [
    ("accept", "application/json, text/plain"),
    ("accept-encoding", "identity"),
    ("user-agent", f"{GENIEHIVE}-node/{__version__}"),
]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a source is, and its key, which is a secret. paths: of the API, with its own in their place. runtime: if it
    is known."""

    origin: Origin
    base_path: str
    key: str | None = field(default=None, repr=False)
    paths: Mapping[str, str] = field(default_factory=dict, hash=False)
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> str | None:
        """In lower-case bytes."""
        for key, value in self.headers:
            if key.lower() == name:
                return value.decode("latin-1")
        return None

    @property
    def server(self) -> str:
        return self.header(b"server") or ""

    @property
    def ok(self) -> bool:
        return self.status == 200

    def json(self) -> Any:
        """None if the body is not said to be JSON, or is not."""
        if "json" not in (self.header(b"content-type") or "").lower():
            return None
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    @property
    def loading(self) -> bool:
        """llama.cpp, while its model comes into memory, answers everything so."""
        return self.status == 503 and b"Loading model" in self.body

    @property
    def unauthorized(self) -> bool:
        return self.status in (401, 403)


class Engine(Protocol):
    """An adapter. `look` raises LookFailed."""

    async def look(self) -> tuple[Snapshot, Figures]: ...


class Asker:
    """Asks one engine. Every question raises LookFailed if there was no answer; any status is an answer."""

    def __init__(self, client: Client, target: Target, timeouts: Timeouts = NEAR) -> None:
        self._client = client
        self._timeouts = timeouts
        self.target = target
        # What is not part of the API stands beside it.
        self._root = target.base_path.removesuffix("/v1")

    @property
    def keyed(self) -> bool:
        return self.target.key is not None

    async def get(self, path: str) -> Answer:
        """`path` as if the engine stood at the root of its address."""
        return await self._ask("GET", self._root + path, None)

    async def post(self, path: str, content: Any) -> Answer:
        return await self._ask("POST", self._root + path, msgspec.json.encode(content))

    async def models(self) -> Answer:
        """The list of models, wherever the API of this engine is."""
        return await self._ask("GET", f"{self.target.base_path}/models", None)

    def refused(self, runtime: str | None = None) -> LookFailed:
        """For raising when an engine answered 401 or 403."""
        if self.keyed:
            return LookFailed(Trouble.REFUSED, "refuses the key that is configured for it", runtime)
        advice = (
            f"give it by `geniehive up --engine {self.target.origin} --key-file FILE`, "
            f"or in the node's settings: engines: [{{url: {self.target.origin}, key_file: FILE}}]"
        )
        return LookFailed(Trouble.REFUSED, f"needs a key; {advice}", runtime)

    async def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        headers = list(_HEADERS)
        if body is not None:
            headers.append(("content-type", "application/json"))
        if self.target.key is not None:
            headers.append(("authorization", f"Bearer {self.target.key}"))
        try:
            async with await self._client.request(
                self.target.origin, method, path, headers, body, self._timeouts
            ) as response:
                return Answer(response.status, response.headers, await response.read(ANSWER_LIMIT))
        except (ConnectFailed, ConnectTimeout, ConnectionLost, Truncated) as error:
            raise LookFailed(Trouble.UNREACHABLE, str(error)) from error
        except (FirstByteTimeout, IdleTimeout, TotalTimeout) as error:
            raise LookFailed(Trouble.SLOW, str(error)) from error
        except TooLarge as error:
            raise LookFailed(Trouble.STRANGE, str(error)) from error
        except HttpError as error:
            raise LookFailed(Trouble.STRANGE, f"does not speak HTTP as engines do: {error}") from error
