import pytest

from geniehive import channels
from geniehive.kit.errors import UserError


@pytest.mark.parametrize("target", ["127.0.0.1:8801", "localhost:8801", "[::1]:8801"])
def test_plain_links_are_for_this_machine(target: str) -> None:
    channels.check_plain(target)
    channels.sync_channel(target).close()


@pytest.mark.parametrize("target", ["192.0.2.7:8801", "gpu-1:8801", "0.0.0.0:8801", "localhost.example.org:8801"])
def test_and_for_no_other(target: str) -> None:
    with pytest.raises(UserError, match="TLS"):
        channels.sync_channel(target)


def test_a_stopped_peer_is_noticed_on_both_sides() -> None:
    """keepalive_timeout alone waits for the ping's own time limit of a minute."""
    for options in (dict(channels.CLIENT_OPTIONS), dict(channels.SERVER_OPTIONS)):
        assert options["grpc.http2.ping_timeout_ms"] == options["grpc.keepalive_timeout_ms"] <= 2000
