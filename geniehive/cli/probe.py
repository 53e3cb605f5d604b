"""Asks a gateway, and control about it, whether it serves what it should."""

import asyncio
import json
import ssl
import sys
from pathlib import Path

from geniehive.cli import banner
from geniehive.kit import state
from geniehive.kit.http1 import Client, HttpError, Origin, Timeouts

# Seconds between two questions.
PAUSE = 0.05
_LARGEST = 16 * 1024 * 1024
_MODELS_SECONDS = 20.0


async def models(client: Client, origin: Origin, key: str) -> list[banner.Model]:
    """What the gateway lists. Empty if it does not answer as it should."""
    headers = [("authorization", f"Bearer {key}")]
    limits = Timeouts(connect=1.0, first_byte=2.0, idle=2.0)
    try:
        async with await client.request(origin, "GET", "/v1/models", headers, timeouts=limits) as answer:
            body = await answer.read(limit=_LARGEST)
            return banner.read_models(json.loads(body)) if answer.status == 200 else []
    except (HttpError, ValueError):
        return []


async def settled_models(
    url: str, trusting: ssl.SSLContext | None, key: str, expected: bool
) -> tuple[list[banner.Model], bool]:
    """What the gateway lists, once there is a model to chat with; whether that was waited for in vain.

    expected: whether there should be one; else the first list is taken.
    """
    origin = Origin.parse(url)
    found: list[banner.Model] = []
    client = Client(trusting)
    try:
        async with asyncio.timeout(_MODELS_SECONDS):
            while True:
                found = await models(client, origin, key)
                if not expected or banner.to_show(found) is not None:
                    return found, False
                await asyncio.sleep(PAUSE)
    except TimeoutError:
        return found, True
    finally:
        await client.close()


async def until_current(control: str, folder: Path) -> None:
    """Until a gateway has control's table in place of the one it kept, which leads where servers once were.

    control: "HOST:PORT". folder: holds the key for it. Returns also if control does not say.
    """
    # Imported here: a gateway seldom has a kept table at the start of everything, and gRPC is large.
    import geniehive
    from geniehive.failures import Refused
    from geniehive.v1.registry_service_pb2 import GetClusterHealthRequest

    async with geniehive.connect(control, key=state.local_secret(folder / "admin.key", "gha")) as hive:
        while True:
            try:
                health = (await hive.registry.GetClusterHealth(GetClusterHealthRequest())).health
            except Refused as error:
                print(f"geniehive: control does not say whether the gateway is current: {error}", file=sys.stderr)
                return
            if any(gateway.current for gateway in health.gateways):
                return
            await asyncio.sleep(PAUSE)
