"""The example, as somebody would run it, against a gateway over a table that the test makes."""

import asyncio
import json
import os
import sys
from pathlib import Path

from geniehive.rules.model import (
    Asset,
    Branch,
    Endpoint,
    NameKind,
    OffloadHint,
    Resource,
    Route,
    Speed,
    Tier,
    TierEndpoint,
)
from geniehive.rules.operations import Operation
from tests.unit.gateway.builders import OFFLINE, resource, upstream
from tests.unit.gateway.http.engines import Engine
from tests.unit.gateway.http.gateways import SECRET, Gateway

ANSWER = json.dumps({"choices": [{"message": {"role": "assistant", "content": "In short: yes."}}]}).encode()


def name(model: str, host: str, suitability: float | None, operation: Operation = Operation.CHAT) -> Resource:
    members = (TierEndpoint(endpoint=f"endpoint/{host}/e/m"),)
    branch = Branch(operations=(operation,), kind=NameKind.ASSET, tiers=(Tier(endpoints=members),))
    hint = None if suitability is None else OffloadHint(suitability=suitability, basis="45 tok/s")
    return resource(Route(model=model, branches=(branch,), offload_hint=hint))


def endpoint(host: str, speed: float) -> Resource:
    asset = Asset(asset_id="m", upstream_name="m")
    return resource(Endpoint(service=f"{host}/e", asset=asset, speed=Speed(decode_tokens_per_second=speed)))


async def run(root: Path, url: str, *task: str, key: str = SECRET) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(root / "examples" / "offload.py"),
        *task,
        env={**os.environ, "GENIEHIVE_GATEWAY": f"{url}/v1", "GENIEHIVE_KEY": key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_the_best_suited_is_asked(root: Path) -> None:
    async with Engine(ANSWER) as engine:
        resources = [
            name("strong-but-no-hint", "a", None),
            name("so-so", "a", 0.6),
            name("slower", "a", 0.75),
            name("faster", "b", 0.75),
            name("away", "c", 1.0),
            name("vectors", "a", 1.0, Operation.EMBEDDINGS),
            endpoint("a", 20.0),
            endpoint("b", 60.0),
            endpoint("c", 90.0),
            upstream("a/e", engine.url),
            upstream("b/e", engine.url),
            upstream("c/e", routable=False, condition=OFFLINE),
        ]
        async with Gateway(*resources) as gateway:
            code, out, err = await run(root, gateway.url, "Is", "this", "short?")
            assert (code, out) == (0, "In short: yes.\n"), err
            assert err == "to faster: 0.75 (45 tok/s)\n"
            assert [outcome.model for outcome in await gateway.ended()] == ["faster"]
            code, _, err = await run(root, gateway.url, "x", key="wrong")
            assert (code, "API key is not known" in err) == (1, True)


async def test_nobody_is_good_enough(root: Path) -> None:
    async with Gateway(name("m", "a", 0.3), endpoint("a", 5.0), upstream("a/e")) as gateway:
        code, out, err = await run(root, gateway.url, "x")
        assert (code, out) == (1, "")
        assert "no model here is known to be good at short tasks" in err
