"""The whole gateway in this process: start, table from control or from disk, and the end."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from gateway.app import serve
from gateway.settings import (
    AccessLogSettings,
    AuthSettings,
    GatewaySettings,
    LimitSettings,
    MetricsSettings,
    NodeKeySettings,
    OperationsTimeouts,
    OperationTimeouts,
    RoutingSettings,
    TimeoutSettings,
    TlsSettings,
)
from geniehive.failures import Refused
from geniehive.kit import http1, state
from geniehive.kit.address import free_port
from geniehive.kit.errors import UserError
from geniehive.kit.lifecycle import Stop
from geniehive.rules.identity import PeerKind
from geniehive.rules.model import Relay, Way
from geniehive.v1 import failure_pb2
from tests.support.raw_server import Peer, RawServer
from tests.unit.gateway.authority import Authority
from tests.unit.gateway.builders import endpoint, key, resource, route, served, upstream
from tests.unit.gateway.watch.fake_routing import FakeRouting, certificate, trust, update


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


async def test_requests_are_logged_and_counted(tmp_path: Path, notices: Notices) -> None:
    log = AccessLogSettings(file=str(tmp_path / "elsewhere" / "a.log"))
    for made, path in (
        (settings(tmp_path, "127.0.0.1:1"), tmp_path / "logs" / "access.log"),
        (settings(tmp_path, "127.0.0.1:1", access_log=log), tmp_path / "elsewhere" / "a.log"),
    ):
        async with running(made):
            url = (await notices.next())[1]["url"]
            assert (await ask(url, "/v1/chat/completions", b'{"model":"m"}'))[0] == 503
            async with (
                http1.Client() as client,
                await client.request(http1.Origin.parse(url), "GET", "/metrics", []) as response,
            ):
                assert b'ending="unserved"' in await response.read()
        (line,) = path.read_text().splitlines()
        assert "path=/v1/chat/completions status=503" in line


async def test_neither_log_nor_metrics(tmp_path: Path, notices: Notices) -> None:
    off = {"access_log": AccessLogSettings(enabled=False), "metrics": MetricsSettings(enabled=False)}
    async with running(settings(tmp_path, "127.0.0.1:1", **off)):
        url = (await notices.next())[1]["url"]
        assert (await ask(url, "/metrics"))[0] == 404
    assert not (tmp_path / "logs").exists()


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
        ({"access_log": AccessLogSettings(max_bytes=0)}, "access_log"),
        (
            {"timeouts": TimeoutSettings(operations=OperationsTimeouts(chat=OperationTimeouts(total=-1)))},
            "timeouts.operations.chat.total",
        ),
        ({"limits": LimitSettings(per_slot=0)}, "limits.per_slot"),
        ({"routing": RoutingSettings(gateways=0)}, "routing.gateways"),
        ({"limits": LimitSettings(services={"gpu-1": 1})}, "limits.services: 'gpu-1' is no service"),
        ({"limits": LimitSettings(services={"gpu-1/vllm": 0})}, "gpu-1/vllm: 0 must be at least 1"),
        ({"limits": LimitSettings(wait=-1)}, "limits: wait"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"max_upload_bytes": 0}, "max_upload_bytes"),
        ({"upload_dir": "/not/there"}, "upload_dir"),
        ({"drain_timeout": -1.0}, "drain_timeout"),
        ({"tls": TlsSettings(cert="a")}, "both or neither"),
        ({"tls": TlsSettings(cert="/nonexistent/cert", key="k")}, "/nonexistent/cert"),
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


def relayed(port: int) -> tuple[Any, ...]:
    relay = resource(Relay(host_id="far", base_urls=(f"https://127.0.0.1:{port}",)))
    return route("m", "far/e/m"), endpoint("far/e", "m"), upstream("far/e", ways=(Way(),)), relay, key("sk-x")


async def answering(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.answer(b'{"ok":1}')


async def test_a_machine_that_joined_finds_control_and_relays_by_its_certificate(
    tmp_path: Path, notices: Notices
) -> None:
    authority = Authority()
    context, _ = authority.relay("far")
    async with (
        RawServer(answering, tls=context) as relay,
        FakeRouting(credentials=authority.control()) as control,
    ):
        authority.join(tmp_path, "laptop", control.address)
        async with running(GatewaySettings(state_dir=str(tmp_path), listen="127.0.0.1:0")):
            url = (await notices.next())[1]["url"]
            stream = await control.stream()
            assert (await stream.subscribed()).gateway_id == "laptop"
            stream.say(trust(authority.bundle), update("1", *relayed(relay.port)))
            await stream.acked("1")
            assert await ask(url, "/v1/chat/completions", b'{"model":"m"}') == (200, {"ok": 1})
    assert not (tmp_path / "node.key").exists()


async def test_beside_control_relays_are_reached_once_there_is_a_certificate(tmp_path: Path, notices: Notices) -> None:
    authority = Authority()
    context, _ = authority.relay("far")
    async with (
        RawServer(answering, tls=context) as relay,
        FakeRouting() as control,
        running(settings(tmp_path, control.address)),
    ):
        url = (await notices.next())[1]["url"]
        stream = await control.stream()
        await stream.subscribed()
        stream.say(update("1", *relayed(relay.port)))
        await stream.acked("1")
        status, said = await ask(url, "/v1/chat/completions", b'{"model":"m"}')
        assert status == 503
        assert "this gateway has no certificate yet" in said["error"]["message"]
        stream.say(trust(authority.bundle))
        issued = authority.issue(PeerKind.GATEWAY, "here", await stream.asked_for_certificate())
        stream.say(certificate(issued.chain), update("2"))
        await stream.acked("2")
        assert await ask(url, "/v1/chat/completions", b'{"model":"m"}') == (200, {"ok": 1})


async def test_a_joined_machine_without_a_certificate_for_a_gateway(tmp_path: Path) -> None:
    authority = Authority()
    authority.join(tmp_path, "laptop", "192.0.2.1:8805")
    given = {"state_dir": str(tmp_path), "listen": "127.0.0.1:0"}
    with pytest.raises(UserError, match="joined its cluster as 'laptop'"):
        await serve(GatewaySettings(gateway_id="other", **given), Stop())
    (tmp_path / "tls" / "gateway.pem").unlink()
    with pytest.raises(UserError, match=r"no certificate for a gateway.*geniehive join 192\.0\.2\.1:8804 --gateway"):
        await serve(GatewaySettings(**given), Stop())


async def test_https_for_clients(tmp_path: Path, notices: Notices, caplog: pytest.LogCaptureFixture) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "pair.pem")
    tls = TlsSettings(cert=str(tmp_path / "pair.pem"), key=str(tmp_path / "pair.pem"))
    given = settings(tmp_path, "127.0.0.1:1", tls=tls)
    async with running(msgspec.structs.replace(given, listen="0.0.0.0:0")):
        url = (await notices.next())[1]["url"]
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        async with http1.Client(trusting) as client:
            origin = http1.Origin.parse(url.replace("0.0.0.0", "127.0.0.1"))
            response = await client.request(origin, "GET", "/healthz")
            assert (response.status, await response.read()) == (200, b'{"status":"ok"}')
    assert "without TLS" not in caplog.text


async def test_off_loopback_without_https_a_warning(
    tmp_path: Path, notices: Notices, caplog: pytest.LogCaptureFixture
) -> None:
    given = settings(tmp_path, "127.0.0.1:1")
    async with running(msgspec.structs.replace(given, listen="0.0.0.0:0")):
        await notices.next()
    assert "can be read on the way" in caplog.text
