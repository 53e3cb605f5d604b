"""What can be configured of the gateway. Every option stands with its default in configs/gateway.full.yaml."""

import msgspec
from msgspec import UNSET, UnsetType

from geniehive.kit.config import Settings
from geniehive.kit.daemon import DaemonSettings


class NodeKeySettings(Settings, frozen=True, kw_only=True):
    """Where the key is that proves this gateway to control. Neither: this machine's own, in the state folder."""

    file: str | None = None
    env: str | None = None


class TlsSettings(Settings, frozen=True, kw_only=True):
    """HTTPS for clients: files in PEM, both or neither. Read again when they change."""

    cert: str | None = None
    key: str | None = None


class AuthSettings(Settings, frozen=True, kw_only=True):
    """Whether clients need a key. False is allowed on loopback only."""

    require: bool = True


class CorsSettings(Settings, frozen=True, kw_only=True):
    """Web pages, by origin, that may call from a browser; "*": all."""

    origins: list[str] = msgspec.field(default_factory=list)


class OperationTimeouts(Settings, frozen=True, kw_only=True):
    """What one operation has of its own. What is left out is as for all; None: no limit."""

    connect: float | UnsetType | None = UNSET
    first_byte: float | UnsetType | None = UNSET
    idle: float | UnsetType | None = UNSET
    total: float | UnsetType | None = UNSET


class _Slow(OperationTimeouts, frozen=True, kw_only=True):
    first_byte: float | UnsetType | None = 900.0


class _Large(OperationTimeouts, frozen=True, kw_only=True):
    first_byte: float | UnsetType | None = 600.0


class _Quick(OperationTimeouts, frozen=True, kw_only=True):
    first_byte: float | UnsetType | None = 60.0


class OperationsTimeouts(Settings, frozen=True, kw_only=True):
    """By operation. count_tokens: /v1/messages/count_tokens, apart from the rest of `messages`."""

    chat: OperationTimeouts = OperationTimeouts()
    completions: OperationTimeouts = OperationTimeouts()
    embeddings: _Large = _Large()
    transcription: _Slow = _Slow()
    translation: _Slow = _Slow()
    speech: _Large = _Large()
    images: _Slow = _Slow()
    rerank: OperationTimeouts = OperationTimeouts()
    moderations: OperationTimeouts = OperationTimeouts()
    responses: OperationTimeouts = OperationTimeouts()
    messages: OperationTimeouts = OperationTimeouts()
    count_tokens: _Quick = _Quick()


class TimeoutSettings(Settings, frozen=True, kw_only=True):
    """Seconds; None: no limit.

    connect: until a connection to an engine stands. first_byte: until an engine begins to answer, loading the model
    included. idle: between two pieces of an answer or of a request body, and for a client that takes nothing. total:
    for a whole answer.
    """

    connect: float | None = 5.0
    first_byte: float | None = 300.0
    idle: float | None = 120.0
    total: float | None = None
    operations: OperationsTimeouts = OperationsTimeouts()


class LimitSettings(Settings, frozen=True, kw_only=True):
    """How much this worker sends to an endpoint at once, and what becomes of what is more.

    per_slot: for each request that the engine says it runs at once; None: no limit by that. services: by
    "HOST/SERVICE", before all else; None: no limit. wait: seconds for a turn. waiting: requests that wait at most.
    """

    per_slot: float | None = 4.0
    services: dict[str, int | None] = msgspec.field(default_factory=dict)
    wait: float = 30.0
    waiting: int = 256


class RoutingSettings(Settings, frozen=True, kw_only=True):
    """gateways: how many, each worker for itself, choose among the same engines, so that a burst comes by them all."""

    gateways: int = 1


class UsageSettings(Settings, frozen=True, kw_only=True):
    """ask: whether engines are asked for usage at the end of streams whose clients did not ask for it."""

    ask: bool = True


class MetricsSettings(Settings, frozen=True, kw_only=True):
    """enabled: whether GET /metrics is answered."""

    enabled: bool = True


class AccessLogSettings(Settings, frozen=True, kw_only=True):
    """One line per request. file: None: access.log in the state folder's logs; "-": standard output.

    max_bytes: of the file, before a new one is begun. keep: how many older ones stay.
    """

    enabled: bool = True
    file: str | None = None
    max_bytes: int = 67108864
    keep: int = 3


class GatewaySettings(DaemonSettings, frozen=True, kw_only=True):
    listen: str = "127.0.0.1:8800"
    # Processes that share the address; more than 1 on Linux only.
    workers: int = 1
    tls: TlsSettings = TlsSettings()
    # The address of the control service. None: what `geniehive join` kept, else 127.0.0.1:8801.
    control: str | None = None
    node_key: NodeKeySettings = NodeKeySettings()
    # None: what this machine goes by, shared with its node.
    gateway_id: str | None = None
    auth: AuthSettings = AuthSettings()
    cors: CorsSettings = CorsSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    limits: LimitSettings = LimitSettings()
    routing: RoutingSettings = RoutingSettings()
    usage: UsageSettings = UsageSettings()
    metrics: MetricsSettings = MetricsSettings()
    access_log: AccessLogSettings = AccessLogSettings()
    # Seconds that open requests get to finish when the gateway is told to stop.
    drain_timeout: float = 30.0
    max_body_bytes: int = 104857600
    # Of forms with files, which are not held in memory.
    max_upload_bytes: int = 536870912
    # Where a form is kept whose model comes after its file. None: the system's folder for temporary files.
    upload_dir: str | None = None
