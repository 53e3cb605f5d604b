"""`geniehive gateway`, also `python -m gateway`."""

import sys
from collections.abc import Sequence

from gateway import workers
from gateway.settings import GatewaySettings
from geniehive.kit import daemon
from geniehive.kit.lifecycle import Stop


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the gateway; gives the exit code of the process."""
    own = sys.argv[1:] if arguments is None else arguments

    async def serve(settings: GatewaySettings, stop: Stop) -> None:
        workers.check(settings.workers)
        if settings.workers > 1 and workers.number() is None:
            await workers.serve(settings.workers, settings.listen, settings.drain_timeout, stop, own)
            return
        # Only now: who only starts workers needs nothing of it.
        from gateway import app

        await app.serve(settings, stop)

    return daemon.main(
        "gateway", "One OpenAI-compatible address for all servers of the cluster.", GatewaySettings, serve, arguments
    )


if __name__ == "__main__":
    sys.exit(main())
