"""The whole gateway in this process: start, table from control or from disk, and the end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.app import serve
from gateway.settings import AuthSettings, GatewaySettings, NodeKeySettings, TimeoutSettings
from geniehive.failures import Refused
from geniehive.kit import http1, state
from geniehive.kit.address import free_port
from geniehive.kit.errors import UserError
from geniehive.kit.lifecycle import Stop
from geniehive.v1 import failure_pb2
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.builders import key, served
from tests.unit.gateway.watch.fake_routing import FakeRouting, update


class Notices:
    """What the gateway tells its supervisor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._seen: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        monkeypatch.setattr("geniehive.kit.notices.send", lambda kind, **f: self._seen.put_nowait((kind, f)))

    async def next(self) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(10):
            return await self._seen.get()


@pytest.fixture
def notices(monkeypatch: pytest.MonkeyPatch) -> Notices:
    # Freezing the heap of the tests' own process would slow the tests after this one.
    monkeypatch.setattr("gateway.app.settle", lambda: None)
    return Notices(monkeypatch)


def settings(folder: Path, control: str, **more: Any) -> GatewaySettings:
    return GatewaySettings(state_dir=str(folder), listen="127.0.0.1:0", control=control, gateway_id="here", **more)


@asynccontextmanager
async def running(made: GatewaySettings) -> AsyncIterator[asyncio.Task[None]]:
    stop = Stop()
    task = asyncio.create_task(serve(made, stop))
    try:
        yield task
    finally:
        stop.ask("the test is over")
        async with asyncio.timeout(10):
            await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, UserError):
            raise error


async def ask(url: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    async with http1.Client() as client:
        method = "GET" if body is None else "POST"
        headers = [("authorization", "Bearer sk-x")]
        async with await client.request(http1.Origin.parse(url), method, path, headers, body) as response:
            return response.status, json.loads(await response.read())


async def test_from_control_then_from_disk(tmp_path: Path, notices: Notices) -> None:
    async def engine_script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(b'{"ok":1}')

    async with RawServer(engine_script) as engine:
        async with FakeRouting() as control, running(settings(tmp_path, control.address)):
            kind, said = await notices.next()
            assert (kind, said["daemon"]) == ("ready", "gateway")
            url = said["url"]
            assert (await ask(url, "/readyz"))[0] == 503
            assert (await ask(url, "/healthz"))[0] == 200
            stream = await control.stream()
            assert stream.metadata["x-geniehive-node-key"] == state.local_secret(tmp_path / "node.key", "ghn")
            subscribed = await stream.subscribed()
            assert (subscribed.gateway_id, subscribed.base_url) == ("here", url)
            stream.say(update("1", *served("m", a=str(engine.origin)), key("sk-x")))
            await stream.acked("1")
            assert await notices.next() == ("serving", {"source": "control"})
            assert await ask(url, "/v1/chat/completions", b'{"model":"m"}') == (200, {"ok": 1})
            control.resolve = lambda _: served("n", a=str(engine.origin))
            assert (await ask(url, "/v1/chat/completions", b'{"model":"n"}'))[0] == 200
        async with running(settings(tmp_path, f"127.0.0.1:{free_port()}")):
            assert await notices.next() == ("serving", {"source": "kept"})
            url = (await notices.next())[1]["url"]
            assert (await ask(url, "/readyz"))[0] == 200
            assert await ask(url, "/v1/chat/completions", b'{"model":"m"}') == (200, {"ok": 1})
            assert (await ask(url, "/v1/chat/completions", b'{"model":"n"}'))[0] == 404


async def test_a_broken_kept_table_is_passed_over(
    tmp_path: Path, notices: Notices, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "table.pb").write_bytes(b"garbage")
    async with running(settings(tmp_path, f"127.0.0.1:{free_port()}")):
        assert (await notices.next())[0] == "ready"
    assert "the kept table is not used" in caplog.text


async def test_a_revoked_credential_ends_the_process(tmp_path: Path, notices: Notices) -> None:
    async with FakeRouting() as control, running(settings(tmp_path, control.address)) as task:
        (await control.stream()).end(Refused(failure_pb2.FAILURE_REASON_CREDENTIAL_REVOKED, "forgotten"))
        with pytest.raises(UserError, match="forgotten"):
            await task


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"listen": "nonsense"}, "no address"),
        ({"control": "192.0.2.1:8801"}, "TLS"),
        ({"gateway_id": "Not An Id"}, "gateway_id"),
        ({"auth": AuthSettings(require=False), "listen": "0.0.0.0:0"}, "auth.require"),
        ({"timeouts": TimeoutSettings(idle=0)}, "timeouts.idle"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"drain_timeout": -1.0}, "drain_timeout"),
        ({"node_key": NodeKeySettings(file="a", env="B")}, "not both"),
        ({"node_key": NodeKeySettings(env="NOT_SET_ANYWHERE")}, "NOT_SET_ANYWHERE"),
        ({"node_key": NodeKeySettings(file="/nonexistent/key")}, "/nonexistent/key"),
    ],
)
async def test_settings_that_can_not_be_used(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    given = {"state_dir": str(tmp_path), "listen": "127.0.0.1:0", **more}
    with pytest.raises(UserError, match=says):
        await serve(GatewaySettings(**given), Stop())


async def test_without_authentication_on_loopback_with_a_warning(
    tmp_path: Path, notices: Notices, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(settings(tmp_path, f"127.0.0.1:{free_port()}", auth=AuthSettings(require=False))):
        await notices.next()
    assert "auth.require is false" in caplog.text


async def test_the_id_is_the_machines_unless_told_otherwise(tmp_path: Path, notices: Notices) -> None:
    (tmp_path / "machine-id").write_text("gpu-1\n")
    async with FakeRouting() as control:
        given = GatewaySettings(state_dir=str(tmp_path), listen="127.0.0.1:0", control=control.address)
        async with running(given):
            assert (await (await control.stream()).subscribed()).gateway_id == "gpu-1"
