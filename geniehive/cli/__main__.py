"""`geniehive`, and `python -m geniehive.cli`."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from geniehive._version import __version__
from geniehive.cli import (
    alias,
    bench,
    chat,
    daemons,
    explain,
    hosts,
    join,
    keys,
    leave,
    models,
    peers,
    roles,
    simulate,
    status,
    tokens,
    up,
    usage,
    version,
)
from geniehive.kit import lifecycle
from geniehive.kit.errors import EXIT_OK, UserError

_EPILOG = """\
control, gateway, key and CA are taken from flags, else from GENIEHIVE_CONTROL, GENIEHIVE_GATEWAY,
GENIEHIVE_KEY and GENIEHIVE_CA, else from what `geniehive up` or `join` keeps in this user's state folder.

exit codes: 0 done; 1 failed, or refused by the server; 2 wrong use or configuration; 3 not reachable.
a node ends with 4 when another took its place, a daemon with 5 when its credential was refused for good.
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="geniehive",
        description="One OpenAI-compatible address for all your generative-AI servers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"geniehive {__version__}")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for command in (
        up,
        join,
        leave,
        status,
        models,
        chat,
        explain,
        usage,
        bench,
        roles,
        alias,
        keys,
        tokens,
        hosts,
        peers,
        simulate,
        daemons,
        version,
    ):
        command.add(commands)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] in daemons.MODULES:
            # A daemon reads its options itself.
            return daemons.run(given[0], given[1:])
        known = parser()
        parsed, rest = known.parse_known_args(given)
        # argparse takes no second group of positionals: `chat MODEL --stream PROMPT` leaves the prompt over.
        if rest and not (parsed.command == "chat" and chat.take_prompt(parsed, rest)):
            known.error(f"unrecognized arguments: {' '.join(rest)}")
        code: int = parsed.run(parsed)
        sys.stdout.flush()
        return code
    except UserError as error:
        return lifecycle.show(error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever reads our output has seen enough. What is still buffered must not fail at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
