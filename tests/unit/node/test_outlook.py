import asyncio

import pytest

from geniehive.kit import address, machine
from geniehive_node.outlook import Outlook


@pytest.fixture
def towards(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """This machine's address by the way that leads to a host."""
    table: dict[str, str | None] = {}
    monkeypatch.setattr(address, "local_towards", lambda host: table.get(host))
    monkeypatch.setattr(machine, "addresses", lambda: ["fd00::5", "192.0.2.5"])
    return table


@pytest.mark.parametrize(
    ("control", "local", "ipv6", "expected"),
    [
        ("192.0.2.1", "192.0.2.9", None, "192.0.2.9"),
        ("control.lan", "192.0.2.9", None, "192.0.2.9"),
        ("fd00::1", "fd00::9", True, "fd00::9"),
        # The relay listens on the other family.
        ("fd00::1", "fd00::9", False, "192.0.2.5"),
        ("192.0.2.1", None, None, None),
        # Control on this machine: any address that others can use.
        ("127.0.0.1", "127.0.0.1", None, "fd00::5"),
        ("127.0.0.1", "127.0.0.1", False, "192.0.2.5"),
    ],
)
async def test_the_address_towards_control(
    towards: dict[str, str | None], control: str, local: str | None, ipv6: bool | None, expected: str | None
) -> None:
    towards[control] = local
    outlook = Outlook(control, ipv6)
    assert await outlook.look() is (expected is not None)
    assert outlook.address == expected


async def test_in_no_network_it_is_loopback(towards: dict[str, str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "addresses", lambda: [])
    outlook = Outlook("127.0.0.1", False)
    await outlook.look()
    assert outlook.address == "127.0.0.1"


async def test_news_are_another_address_and_a_way_out_again(towards: dict[str, str | None]) -> None:
    outlook = Outlook("192.0.2.1")
    news = []
    for local in ("192.0.2.9", "192.0.2.9", "192.0.2.10", None, None, "192.0.2.10", "192.0.2.10", None, "192.0.2.11"):
        towards["192.0.2.1"] = local
        news.append(await outlook.look())
    assert news == [True, False, True, False, False, True, False, False, True]
    assert outlook.address == "192.0.2.11"


async def test_it_looks_again_and_again(towards: dict[str, str | None]) -> None:
    outlook = Outlook("192.0.2.1", every=0.01)
    changed = asyncio.Event()
    towards["192.0.2.1"] = "192.0.2.9"
    watching = asyncio.create_task(outlook.run(changed.set))
    async with asyncio.timeout(5):
        await changed.wait()
        changed.clear()
        towards["192.0.2.1"] = "192.0.2.10"
        await changed.wait()
    watching.cancel()
    assert outlook.address == "192.0.2.10"
