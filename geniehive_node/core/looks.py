"""Sources, and what looking at them gave."""

from enum import Enum, IntEnum

from geniehive.rules.model import Asset, RequestPolicy, Value
from geniehive.rules.operations import Operation


class Choice(Enum):
    """The way to a source that its operator chose."""

    AUTO = "auto"
    DIRECT = "direct"
    RELAY = "relay"


class ModelPolicy(Value, frozen=True, kw_only=True):
    """What is configured for models whose name fits one of these patterns."""

    models: tuple[str, ...]
    policy: RequestPolicy


class Source(Value, frozen=True, kw_only=True):
    """Where an engine or provider is, or may be. Its key is not here: cores hold no secrets.

    key: tells sources apart; for people too, such as "http://127.0.0.1:11434".
    url: scheme, host and port as gateways would dial them.
    base_path: what stands before "/models"; "/v1" unless the engine is elsewhere.
    name, runtime, operations, models, policies, concurrency_limit: as configured; None or empty if not.
    """

    key: str
    url: str
    base_path: str = "/v1"
    loopback: bool = False
    has_key: bool = False
    configured: bool = False
    name: str | None = None
    runtime: str | None = None
    operations: tuple[Operation, ...] = ()
    models: tuple[str, ...] = ()
    hosted: bool = False
    demo: bool = False
    way: Choice = Choice.AUTO
    policies: tuple[ModelPolicy, ...] = ()
    concurrency_limit: int | None = None

    @property
    def expected(self) -> bool:
        """Whether its absence is worth telling. The demonstration engine runs only where it is needed."""
        return self.configured and not self.demo


class Snapshot(Value, frozen=True, kw_only=True):
    """What an engine offers now. Figures that change with every request are in Figures.

    cluster: set if this is a GenieHive gateway: the id of its cluster.
    paths: of the API, with the engine's own in their place, where that differs.
    """

    runtime: str
    version: str = ""
    operations: tuple[Operation, ...] = ()
    assets: tuple[Asset, ...] = ()
    slots: int | None = None
    loads_on_request: bool = False
    cluster: str | None = None
    paths: tuple[tuple[str, str], ...] = ()


class Figures(Value, frozen=True, kw_only=True):
    """Requests at work and waiting in the engine, where it tells."""

    running: int | None = None
    queued: int | None = None


class Trouble(IntEnum):
    # Nothing listens there, or the connection broke.
    UNREACHABLE = 1
    # It took the connection and did not answer in time.
    SLOW = 2
    # It wants a key, or another one.
    REFUSED = 3
    # It is bringing its model into memory.
    LOADING = 4
    # It answers, but as nothing that is known.
    STRANGE = 5


class LookFailed(Exception):
    """A look that found no engine at work. `runtime` is set if it is known all the same; the message is for people."""

    def __init__(self, trouble: Trouble, message: str, runtime: str | None = None) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.message = message
        self.runtime = runtime
