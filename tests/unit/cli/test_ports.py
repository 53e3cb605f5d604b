"""Addresses to listen on."""

import socket

import pytest

from geniehive.cli import ports
from geniehive.kit import address
from geniehive.kit.errors import UserError


def test_port_0_becomes_a_free_one_and_the_rest_stays() -> None:
    free = f"127.0.0.1:{address.free_port()}"
    made = ports.settle({"--a": "127.0.0.1:0", "--b": free, "--c": "127.0.0.1:0", "--d": "localhost:0"})
    assert list(made) == ["--a", "--b", "--c", "--d"]
    assert made["--b"] == free
    assert len(set(made.values())) == 4
    assert not any(text.endswith(":0") for text in made.values())


def test_two_flags_with_one_address() -> None:
    with pytest.raises(UserError, match=r"--a and --b are both 127\.0\.0\.1:1"):
        ports.settle({"--a": "127.0.0.1:1", "--b": "127.0.0.1:1"})


def test_all_addresses_take_the_port_of_each() -> None:
    with pytest.raises(UserError, match=r"on one port, as 0\.0\.0\.0:1 and 127\.0\.0\.1:1"):
        ports.settle({"--a": "0.0.0.0:1", "--b": "127.0.0.1:1"})
    assert ports.settle({"--a": "127.0.0.2:1", "--b": "127.0.0.1:1"})


def test_a_flag_of_a_port_is_named_as_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ports.InUse, match="choose another: --peers-port PORT"):
            ports.check("--peers-port", text)


def test_an_address_that_is_none_names_its_flag() -> None:
    with pytest.raises(UserError, match="--a: 'x' is no address"):
        ports.settle({"--a": "x"})


def test_a_free_address_and_one_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ports.InUse, match=f"{text} is in use by another program.*--listen"):
            ports.check("--listen", text)
    ports.check("--listen", text)


def test_all_addresses_collide_with_one_of_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ports.InUse):
        ports.check("--listen", f"0.0.0.0:{taken.getsockname()[1]}")


def test_an_address_of_another_machine() -> None:
    with pytest.raises(UserError, match="cannot be listened on") as caught:
        ports.check("--listen", "192.0.2.1:8800")
    assert not isinstance(caught.value, ports.InUse)


@pytest.mark.parametrize(
    ("text", "reached"),
    [("127.0.0.1:1", "127.0.0.1:1"), ("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("pc:1", "pc:1")],
)
def test_where_this_machine_reaches_it(text: str, reached: str) -> None:
    assert ports.for_clients(text) == reached
