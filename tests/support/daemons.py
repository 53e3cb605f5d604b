"""A whole cluster of real processes on loopback: control, gateways, nodes and fake engines."""

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from geniehive.client import Hive
from geniehive.kit import address, state
from geniehive.v1 import admin_service_pb2, registry_service_pb2
from geniehive.v1.credential_pb2 import SCOPE_READ, ClientKey, Scope
from geniehive.v1.registry_service_pb2 import ClusterHealth
from tests.support.processes import ROOT, Process, until


class Cluster:
    """Starts daemons as a user would, with ports of their own and one state folder. Use `async with`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir(mode=0o700)
        self.control_address = f"127.0.0.1:{address.free_port()}"
        self.gateway_address = f"127.0.0.1:{address.free_port()}"
        self._stack = AsyncExitStack()
        self.control: Process
        self.gateway: Process
        self.http: aiohttp.ClientSession
        self.root = ROOT
        self.nodes: dict[str, Process] = {}
        self.engines: dict[str, Process] = {}
        self.engine_urls: dict[str, str] = {}

    async def __aenter__(self) -> "Cluster":
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        return f"http://{self.gateway_address}"

    @property
    def admin_key(self) -> str:
        return state.local_secret(self.state / "admin.key", "gha")

    @property
    def client_key(self) -> str:
        return state.local_secret(self.state / "client.key", "ghc")

    def process(self, name: str, *arguments: str) -> Process:
        made = Process(name, arguments, self.folder)
        self._stack.push_async_exit(made)
        return made

    async def start_control(self, *overrides: str) -> Process:
        sets = [f"listen={self.control_address}", *overrides]
        self.control = self.process("control", "-m", "geniehive_control", *_options(self.state, sets))
        await self.control.start()
        await self.control.notice("ready")
        return self.control

    async def start_gateway(self, *overrides: str, wait: bool = True) -> Process:
        sets = [f"listen={self.gateway_address}", f"control={self.control_address}", *overrides]
        self.gateway = self.process("gateway", "-m", "gateway", *_options(self.state, sets))
        await self.gateway.start()
        await self.gateway.notice("ready")
        if wait:
            await self.gateway.notice("serving")
        return self.gateway

    async def start_node(
        self, name: str, engines: dict[str, str], *overrides: str, wait: bool = True, settings: Any = None
    ) -> Process:
        """A node with state of its own whose host_id is `name`; `engines`: name to URL."""
        folder = self.folder / f"state-{name}"
        folder.mkdir(mode=0o700, exist_ok=True)
        entries = settings or [{"name": k, "url": v} for k, v in engines.items()]
        sets = [
            f"control={self.control_address}",
            f"host_id={name}",
            "discover=false",
            "relay.listen=127.0.0.1:0",
            f"node_key.file={self.state / 'node.key'}",
            f"engines={json.dumps(entries)}",
            *overrides,
        ]
        state.local_secret(self.state / "node.key", "ghn")
        made = self.process(f"node-{name}", "-m", "geniehive_node", *_options(folder, sets))
        self.nodes[name] = made
        await made.start()
        if wait:
            await made.notice("registered")
        return made

    async def start_engine(
        self, name: str, models: str, *arguments: str, runtime: str = "openai", port: int = 0
    ) -> str:
        """A fake engine as a process of its own; its URL."""
        port = port or address.free_port()
        made = self.process(
            f"engine-{name}",
            *["-m", "tests.support.fake_engine", "--port", str(port), "--runtime", runtime],
            *["--models", models, "--name", name, *arguments],
        )
        self.engines[name] = made
        self.engine_urls[name] = f"http://127.0.0.1:{port}"
        await made.start()
        await made.notice("ready")
        return self.engine_urls[name]

    # What a client does.

    def headers(self, key: str | None = None) -> dict[str, str]:
        return {"authorization": f"Bearer {key or self.client_key}"}

    async def models(self) -> list[str]:
        """The ids of /v1/models; empty if the gateway does not answer."""
        try:
            async with self.http.get(f"{self.url}/v1/models", headers=self.headers()) as answer:
                return [m["id"] for m in (await answer.json())["data"]] if answer.status == 200 else []
        except aiohttp.ClientError:
            return []

    async def chat(self, model: str, **body: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, JSON and headers of one chat call."""
        content = {"model": model, "messages": [{"role": "user", "content": "hello"}], **body}
        url = f"{self.url}/v1/chat/completions"
        async with self.http.post(url, json=content, headers=self.headers()) as answer:
            return answer.status, await answer.json(), {k.lower(): v for k, v in answer.headers.items()}

    async def answers(self, model: str) -> bool:
        try:
            return (await self.chat(model))[0] == 200
        except aiohttp.ClientError:
            return False

    async def until_answers(self, model: str, within: float = 10.0) -> float:
        async def check() -> bool:
            return await self.answers(model)

        return await until(f"{model} answers", check, within)


def _options(folder: Path, sets: list[str]) -> list[str]:
    return ["--state-dir", str(folder), *(part for s in sets for part in ("--set", s))]


# What a tool does, by its stubs.


async def make_key(hive: Hive, name: str, scope: "Scope.ValueType" = SCOPE_READ) -> str:
    request = admin_service_pb2.CreateClientKeyRequest(display_name=name, scopes=[scope])
    return (await hive.admin.CreateClientKey(request)).key


async def client_keys(hive: Hive) -> list[ClientKey]:
    return list((await hive.admin.ListClientKeys(admin_service_pb2.ListClientKeysRequest())).client_keys)


async def cluster_health(hive: Hive) -> ClusterHealth:
    request = registry_service_pb2.GetClusterHealthRequest()
    return (await hive.registry.GetClusterHealth(request)).health
