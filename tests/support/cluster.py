"""Nouns of a small cluster, short to write."""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from geniehive.rules.model import Asset, Host, Inventory, Relay, Service, Value, Way
from geniehive.rules.operations import Operation

V = TypeVar("V", bound=Value)

CHAT = Operation.CHAT
EMBEDDINGS = Operation.EMBEDDINGS


def asset(name: str, *operations: Operation, **fields: object) -> Asset:
    return _with(Asset(asset_id=name, upstream_name=name, operations=operations), fields)


def service(name: str, *models: str | Asset, **fields: object) -> Service:
    """ "host/service" with its models, for chat unless told otherwise."""
    assets = tuple(asset(model) if isinstance(model, str) else model for model in models)
    ways = (Way(direct_url="http://127.0.0.1:11434", same_host_only=True), Way())
    return _with(Service(service=name, runtime="ollama", operations=(CHAT,), assets=assets, ways=ways), fields)


def inventory(
    host_id: str, services: Iterable[Service] = (), revision: int = 1, relay: bool = True, **fields: object
) -> Inventory:
    made = Relay(host_id=host_id, base_urls=("http://127.0.0.1:8803",), token=f"token of {host_id}") if relay else None
    host = _with(Host(host_id=host_id, display_name=host_id), fields)
    return Inventory(revision=revision, host=host, services=tuple(services), relay=made)


def _with(value: V, fields: dict[str, object]) -> V:
    return msgspec.structs.replace(value, **fields)
