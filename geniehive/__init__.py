"""GenieHive: what everyone imports.

v1/        the contract, generated
client     a typed client for internal tools: `async with geniehive.connect(...) as hive`
failures   the reasons that steer a peer, in errors of calls and inside streams
rules/     what several daemons need alike and is pure: names, operations, the shared nouns
convert    messages of the contract <-> the shared nouns
catalogue  roles and aliases as people write them, in YAML
plain      messages of the contract as plain objects, for JSON
trust      where tools find the CA of their cluster
kit/       process plumbing of the daemons; knows nothing of hosts or routes
cli/       the command `geniehive`
"""

from typing import TYPE_CHECKING, Any

from geniehive._version import __version__

if TYPE_CHECKING:
    from geniehive.client import connect, connect_sync

__all__ = ["__version__", "connect", "connect_sync"]


def __getattr__(name: str) -> Any:
    # Importing grpc costs 0.1 s and more, which `geniehive version` need not pay.
    if name in ("connect", "connect_sync"):
        from geniehive import client

        return getattr(client, name)
    raise AttributeError(f"module 'geniehive' has no attribute {name!r}")
