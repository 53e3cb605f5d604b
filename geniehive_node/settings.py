"""The settings of a node. configs/node.full.yaml says what each is for."""

from typing import Any, Literal

from msgspec import field

from geniehive.kit.config import Settings
from geniehive.kit.daemon import DaemonSettings

Runtime = Literal["auto", "ollama", "llamacpp", "vllm", "sglang", "lmstudio", "tei", "openai"]
Operation = Literal[
    "chat",
    "completions",
    "embeddings",
    "transcription",
    "translation",
    "speech",
    "images",
    "rerank",
    "moderations",
    "responses",
    "messages",
]


Way = Literal["auto", "direct", "relay"]


class KeySettings(Settings, frozen=True, kw_only=True):
    """Where a key is: in a file or in an environment variable."""

    file: str | None = None
    env: str | None = None


class PromptSettings(Settings, frozen=True, kw_only=True):
    """One of them: what to do with the client's system prompt."""

    prepend: str | None = None
    append: str | None = None
    replace: str | None = None


class PolicySettings(Settings, frozen=True, kw_only=True):
    """How requests to an engine's models are changed. models, operations: only these; patterns with * and ?."""

    models: list[str] | None = None
    operations: list[Operation] | None = None
    defaults: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    system_prompt: PromptSettings | None = None
    user_template: str | None = None


class EngineSettings(Settings, frozen=True, kw_only=True):
    url: str
    name: str | None = None
    runtime: Runtime = "auto"
    key_file: str | None = None
    key_env: str | None = None
    operations: list[Operation] | None = None
    models: list[str] | None = None
    demo: bool = False
    way: Way | None = None
    concurrency_limit: int | None = None
    request_policies: list[PolicySettings] = field(default_factory=list)


class ProviderSettings(Settings, frozen=True, kw_only=True):
    name: str
    url: str | None = None
    key_file: str | None = None
    key_env: str | None = None
    operations: list[Operation] | None = None
    models: list[str] | None = None
    concurrency_limit: int | None = None
    request_policies: list[PolicySettings] = field(default_factory=list)


class RelaySettings(Settings, frozen=True, kw_only=True):
    listen: str | None = None
    advertise: str | None = None
    connect_timeout: float = 5.0


class NodeSettings(DaemonSettings, frozen=True, kw_only=True):
    control: str | None = None
    node_key: KeySettings | None = None
    host_id: str | None = None
    display_name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    trust_tier: str | None = None
    device_class: str | None = None
    workload_classes: list[str] = field(default_factory=list)
    discover: bool = True
    discover_ports: list[int] = field(default_factory=lambda: [11434, 8080, 8000, 1234, 30000])
    engines: list[EngineSettings] = field(default_factory=list)
    providers: list[ProviderSettings] = field(default_factory=list)
    way: Way = "auto"
    relay: RelaySettings = RelaySettings()
    poll_interval: float = 1.0
    first_look_timeout: float = 3.0
    stop_grace: float = 5.0
