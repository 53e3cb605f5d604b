"""What can be configured of the gateway. Every option stands with its default in configs/gateway.full.yaml."""

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


class GatewaySettings(DaemonSettings, frozen=True, kw_only=True):
    listen: str = "127.0.0.1:8800"
    tls: TlsSettings = TlsSettings()
    # The address of the control service. None: what `geniehive join` kept, else 127.0.0.1:8801.
    control: str | None = None
    node_key: NodeKeySettings = NodeKeySettings()
    # None: what this machine goes by, shared with its node.
    gateway_id: str | None = None
    auth: AuthSettings = AuthSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    # Seconds that open requests get to finish when the gateway is told to stop.
    drain_timeout: float = 30.0
    max_body_bytes: int = 104857600
