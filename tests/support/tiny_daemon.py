"""A daemon with the plumbing of the real ones and one word of work: `python -m tests.support.tiny_daemon WORK`.

serve     ready, then until it is told to stop
refuse    a UserError
break     an error that nothing expected
linger    ready, then works on a little after it was told to stop
"""

import asyncio
import os
import sys

from geniehive.kit import daemon, lifecycle, notices
from geniehive.kit.errors import EXIT_SUPERSEDED, UserError


class TinySettings(daemon.DaemonSettings, frozen=True, kw_only=True):
    work: str = "serve"
    secret: str | None = None


async def serve(settings: TinySettings, stop: lifecycle.Stop) -> None:
    match settings.work:
        case "refuse":
            raise UserError("the newer one runs on gpu-2", EXIT_SUPERSEDED)
        case "break":
            raise RuntimeError("a bug")
    lifecycle.settle()
    notices.send(
        "ready", daemon="tiny", state=str(settings.state_folder), loop=type(asyncio.get_running_loop()).__name__
    )
    await stop.wait()
    if settings.work == "linger":
        await asyncio.sleep(0.05)
    notices.send("stopped", cause=stop.cause, pid=os.getpid())


def main() -> int:
    return daemon.main("tiny", "A tiny daemon.", TinySettings, serve)


if __name__ == "__main__":
    sys.exit(main())
