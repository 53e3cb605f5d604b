"""The command `geniehive control`."""

import os
import sys
from collections.abc import Sequence

from geniehive.kit import daemon
from geniehive_control.settings import ControlSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs control until it is told to stop. Gives the exit code of the process."""
    if sys.platform == "linux":
        # gRPC's newer way of listening hands each message from thread to thread, which costs half as much again. It is
        # read when gRPC is imported. A gRPC that has no such experiment any more says so once, and listens its own way.
        os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
    from geniehive_control.app import serve

    return daemon.main(
        "control",
        "Keeps the registry of the cluster and tells gateways where to send requests.",
        ControlSettings,
        serve,
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
