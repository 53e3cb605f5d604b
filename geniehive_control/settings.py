"""What can be set for control. `configs/control.full.yaml` shows every option with its default."""

from typing import Annotated, Literal

from msgspec import Meta

from geniehive.kit.config import Settings
from geniehive.kit.daemon import DaemonSettings

Seconds = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class KeySettings(Settings, frozen=True, kw_only=True):
    """Where a key is: exactly one of the three."""

    key: str | None = None
    key_file: str | None = None
    key_env: str | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class ClientKeySettings(KeySettings, frozen=True, kw_only=True):
    name: str
    scopes: Annotated[list[Literal["infer", "read", "operate", "admin"]], Meta(min_length=1)]

    # Said again, since a struct makes a new one for each class.
    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, ...)"


class AuthSettings(Settings, frozen=True, kw_only=True):
    require: bool = True
    client_keys: list[ClientKeySettings] | None = None
    node_keys: list[KeySettings] | None = None


class TlsSettings(Settings, frozen=True, kw_only=True):
    listen: str | None = None
    peers_port: Annotated[int, Meta(ge=0, le=65535)] = 8805
    advertise: Annotated[list[str], Meta(min_length=1)] | None = None
    ca_cert: str | None = None
    ca_key: str | None = None
    certificate_days: Annotated[float, Meta(gt=0, le=3650)] = 30.0


class UsageSettings(Settings, frozen=True, kw_only=True):
    keep_days: Annotated[float, Meta(gt=0, le=36500)] = 400.0
    report_interval: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0


class WeightSettings(Settings, frozen=True, kw_only=True):
    role_text: Share = 0.30
    role_runtime: Share = 0.30
    role_benchmark: Share = 0.25
    role_family: Share = 0.15
    service_text: Share = 0.20
    service_runtime: Share = 0.45
    service_benchmark: Share = 0.35


class RoutingSettings(Settings, frozen=True, kw_only=True):
    default_strategy: Literal["soonest", "scored", "loaded_first", "least_loaded", "round_robin"] = "soonest"
    allow_hosted: bool = False
    found_names: bool = True
    disable_thinking: bool = True
    weights: WeightSettings = WeightSettings()


class ControlSettings(DaemonSettings, frozen=True, kw_only=True):
    listen: str = "127.0.0.1:8801"
    tls: TlsSettings = TlsSettings()
    database_url: str | None = None
    auth: AuthSettings = AuthSettings()
    lease_ttl: Annotated[float, Meta(ge=0.2)] = 2.5
    heartbeat_interval: Seconds | None = None
    load_interval: Seconds = 1.0
    restart_grace: Annotated[float, Meta(ge=0)] = 30.0
    probe: bool = True
    probe_interval: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    catalogue: str | None = None
    routing: RoutingSettings = RoutingSettings()
    usage: UsageSettings = UsageSettings()
    stop_grace: Seconds = 5.0

    def __repr__(self) -> str:
        # database_url may hold a password.
        return f"ControlSettings(listen={self.listen!r}, ...)"
