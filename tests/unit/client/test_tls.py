"""Control on another machine: known by its CA, and why it is not reached."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import geniehive
from geniehive.client import Unreachable
from geniehive.kit import tls
from geniehive.v1.registry_service_pb2 import ListHostsRequest
from tests.support.fake_control import fake_control
from tests.support.tls_control import TlsControl, tls_control


@pytest.fixture
def control() -> Iterator[TlsControl]:
    with tls_control() as made:
        yield made


@pytest.fixture
def ca(control: TlsControl, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(control.authority.bundle)
    return path


async def test_both_clients_call_by_tls_and_with_their_key(control: TlsControl, ca: Path) -> None:
    async with geniehive.connect(control.address, key="gh-test", ca=ca) as hive:
        await hive.registry.ListHosts(ListHostsRequest())
    with geniehive.connect_sync(control.address, key="gh-test", ca=str(ca)) as hive_sync:
        assert hive_sync.list_hosts() == []
    assert control.keys == ["Bearer gh-test"] * 2


async def test_a_server_of_another_ca_gets_nothing(control: TlsControl, tmp_path: Path) -> None:
    other, _ = tls.make_authority("another", time.time())
    (tmp_path / "other.pem").write_bytes(other)
    with pytest.raises(Unreachable, match="not of this cluster's CA: it is another cluster, or somebody in between"):
        async with geniehive.connect(control.address, key="gh-test", ca=tmp_path / "other.pem", retries=0) as hive:
            await hive.registry.ListHosts(ListHostsRequest())
    with (
        pytest.raises(Unreachable, match="not of this cluster's CA"),
        geniehive.connect_sync(control.address, key="gh-test", ca=tmp_path / "other.pem", retries=0) as hive_sync,
    ):
        hive_sync.list_hosts()
    assert control.requests == []


async def test_the_port_of_the_daemons_wants_a_certificate(control: TlsControl, ca: Path) -> None:
    with pytest.raises(Unreachable, match="that is the port for nodes and gateways"):
        async with geniehive.connect(control.peers, key="gh-test", ca=ca, retries=0) as hive:
            await hive.registry.ListHosts(ListHostsRequest())


async def test_the_plain_port_and_no_port_at_all(ca: Path) -> None:
    with fake_control() as plain, pytest.raises(Unreachable, match="does not speak TLS; is this the right port"):
        async with geniehive.connect(plain.address, key="gh-test", ca=ca, retries=0) as hive:
            await hive.registry.ListHosts(ListHostsRequest())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(Unreachable, match="nothing listens there"):
        async with geniehive.connect(where, key="gh-test", ca=ca, retries=0) as hive:
            await hive.registry.ListHosts(ListHostsRequest())
