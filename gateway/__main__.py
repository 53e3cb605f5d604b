"""`geniehive gateway`, also `python -m gateway`."""

import sys
from collections.abc import Sequence

from gateway.app import serve
from gateway.settings import GatewaySettings
from geniehive.kit import daemon


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the gateway; gives the exit code of the process."""
    return daemon.main(
        "gateway", "One OpenAI-compatible address for all servers of the cluster.", GatewaySettings, serve, arguments
    )


if __name__ == "__main__":
    sys.exit(main())
