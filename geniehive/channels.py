"""gRPC channels and servers, configured alike on both sides of every link.

Found by measuring: a stopped peer is noticed within seconds only if `grpc.http2.ping_timeout_ms` is set beside the
keepalive options, on both sides; and a storm of connecting peers is refused unless the limits of pending requests are
raised.
"""

from collections.abc import Sequence
from typing import NamedTuple

import grpc

from geniehive.kit import address
from geniehive.kit.errors import UserError
from geniehive.rules.identity import CONTROL_NAME

MAX_MESSAGE_BYTES = 4 * 1024 * 1024

# What callers prove themselves with; see credential.proto.
NODE_KEY = "x-geniehive-node-key"
CLIENT_KEY_ID = "x-geniehive-client-key-id"

_COMMON: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.http2.max_pings_without_data", 0),
]

CLIENT_OPTIONS: list[tuple[str, int]] = [
    *_COMMON,
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    # In truth the time that one attempt to connect may take: with less a busy server would never be reached.
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 3000),
    # Channels to one address must not share a connection: a stopped peer would take them all along.
    ("grpc.use_local_subchannel_pool", 1),
    # A proxy for the web, as http_proxy names it, leads to no control; gRPC would use it even for loopback.
    ("grpc.enable_http_proxy", 0),
]

SERVER_OPTIONS: list[tuple[str, int]] = [
    *_COMMON,
    ("grpc.keepalive_time_ms", 10000),
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    # Would ping each peer that sends, to fit its window to the link. That is a tenth of what a heartbeat costs, and
    # what peers send fits the usual window.
    ("grpc.http2.bdp_probe", 0),
    # By TLS each connection has a buffer of this size, 16 KiB if it isn't said. Larger messages take more records.
    ("grpc.tsi.max_frame_size", 4096),
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    # Two controls on one port would each get half of the streams.
    ("grpc.so_reuseport", 0),
]


class Tls(NamedTuple):
    """What a link off loopback needs. ca: PEM, whom to believe. chain, key: PEM, of our own certificate; None: none."""

    ca: bytes
    chain: bytes | None = None
    key: bytes | None = None

    def __repr__(self) -> str:
        return f"Tls(own certificate: {self.chain is not None})"


def check_plain(target: str) -> None:
    """UserError unless `target` may be reached without TLS: loopback only, since keys would travel readable."""
    host, _ = address.split(target)
    if not address.is_loopback(host):
        raise UserError(
            f"{target} is not on this machine, and links to other machines need TLS. A daemon gets what it needs for "
            "that by `geniehive join`; the command line takes the cluster's CA from --ca FILE"
        )


def aio_channel(target: str, tls: Tls | None = None, options: Sequence[tuple[str, int]] = ()) -> grpc.aio.Channel:
    """A channel to control, by TLS if `tls` is given. UserError without it, if `target` is not on loopback."""
    if tls is None:
        check_plain(target)
        return grpc.aio.insecure_channel(target, options=[*CLIENT_OPTIONS, *options])
    return grpc.aio.secure_channel(target, _credentials(tls), options=[*CLIENT_OPTIONS, *_NAME, *options])


def sync_channel(target: str, tls: Tls | None = None, options: Sequence[tuple[str, int]] = ()) -> grpc.Channel:
    """As `aio_channel`, for synchronous callers."""
    if tls is None:
        check_plain(target)
        return grpc.insecure_channel(target, options=[*CLIENT_OPTIONS, *options])
    return grpc.secure_channel(target, _credentials(tls), options=[*CLIENT_OPTIONS, *_NAME, *options])


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(tls.ca, tls.key, tls.chain)


# Control's certificate is for its name, whatever address it is reached at.
_NAME: list[tuple[str, str]] = [("grpc.ssl_target_name_override", CONTROL_NAME)]
