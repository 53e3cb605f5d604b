"""`geniehive node`, also `python -m geniehive_node`."""

import sys
from collections.abc import Sequence

from geniehive.kit import daemon
from geniehive_node.app import serve
from geniehive_node.settings import NodeSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the daemon; gives the exit code of the process."""
    return daemon.main(
        "node", "Finds the engines of this machine and offers them to the cluster.", NodeSettings, serve, arguments
    )


if __name__ == "__main__":
    sys.exit(main())
