import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geniehive.kit import address
from geniehive.kit.errors import UserError


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:8800", ("127.0.0.1", 8800)),
        ("[::1]:8800", ("::1", 8800)),
        ("localhost:0", ("localhost", 0)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
        ("gpu-1.example.org:1", ("gpu-1.example.org", 1)),
    ],
)
def test_host_and_port_there_and_back(text: str, parts: tuple[str, int]) -> None:
    assert address.split(text) == parts
    assert address.join(*parts) == text


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1", ":8800", "[]:1", "host:", "host:x", "host:65536", "host:-1", "::1:8800", "host:٣"]
)
def test_what_is_no_address_is_said_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"is no address; write .HOST:PORT., such as 127\.0\.0\.1:8800"):
        address.split(text)


def test_the_port_may_be_understood() -> None:
    assert address.split("gpu-1", 8801) == ("gpu-1", 8801)
    assert address.split("gpu-1:1", 8801) == ("gpu-1", 1)


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_an_address_or_the_error(text: str) -> None:
    try:
        host, port = address.split(text)
    except UserError:
        return
    assert host
    assert 0 <= port <= 65535


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_this_machine_alone(host: str) -> None:
    assert address.is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.0.2.1", "10.0.0.1", "gpu-1", "", "localhost.example.org", "127.0.0.1.example.org"]
)
def test_not_this_machine_alone(host: str) -> None:
    assert not address.is_loopback(host)


def test_a_free_port_can_be_bound_and_is_given_to_no_outgoing_connection() -> None:
    port = address.free_port()
    assert 1024 < port < 32768
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
