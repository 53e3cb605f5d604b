"""The command `geniehive control`."""

import sys
from collections.abc import Sequence

from geniehive.kit import daemon
from geniehive_control.app import serve
from geniehive_control.settings import ControlSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs control until it is told to stop. Gives the exit code of the process."""
    return daemon.main(
        "control",
        "Keeps the registry of the cluster and tells gateways where to send requests.",
        ControlSettings,
        serve,
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
