"""A typed client of control, for internal tools.

    async with geniehive.connect() as hive:
        hosts = await hive.list_hosts()
        answer = await hive.registry.GetService(GetServiceRequest(service="gpu-1/ollama"))
        async for event in hive.watch([ObjectKind.OBJECT_KIND_HOST]):
            ...

    with geniehive.connect_sync() as hive:            # the same without asyncio
        hosts = hive.list_hosts()

`hive.registry`, `hive.routing`, `hive.admin` and `hive.nodes` are the generated stubs with three things added: the
deadline that the contract states for each call, the caller's key, and, for reads alone, a few attempts when control
can't be reached. Errors are `geniehive.failures.Refused`. Needs nothing but `pip install geniehive`.

target   which control, with which key, and by which CA it is known
calls    deadlines, attempts and errors of calls
views    what watches tell, and how they get over a break
hive     the asynchronous client
sync     the synchronous one
"""

from geniehive.client.calls import Unreachable
from geniehive.client.hive import Hive, Watch, connect
from geniehive.client.sync import SyncHive, SyncWatch, connect_sync
from geniehive.client.views import Changed, Event, Removed, Resync, Synced

__all__ = [
    "Changed",
    "Event",
    "Hive",
    "Removed",
    "Resync",
    "SyncHive",
    "SyncWatch",
    "Synced",
    "Unreachable",
    "Watch",
    "connect",
    "connect_sync",
]
