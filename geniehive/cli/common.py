"""Options that commands share, and the connection to control."""

import argparse
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from geniehive.cli import credentials
from geniehive.kit.errors import EXIT_FAILED, UserError

if TYPE_CHECKING:
    from geniehive.client import SyncHive
    from geniehive.failures import Refused

    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

# Beside those of kit.errors.
EXIT_UNREACHABLE = 3

GET_A_KEY = "`geniehive keys create NAME` on control's machine makes one; give it by --key KEY or GENIEHIVE_KEY"

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

M = TypeVar("M")


def add_command(
    commands: "Commands", name: str, summary: str, run: Callable[[argparse.Namespace], int], description: str = ""
) -> argparse.ArgumentParser:
    """A command with what every command has. `run` gets the arguments and gives the exit code."""
    made = commands.add_parser(
        name,
        help=summary,
        description=description or summary[0].upper() + summary[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--state-dir", metavar="DIR", help="where state is kept (default: this user's state folder)")
    made.add_argument("--json", action="store_true", help="JSON for scripts")
    made.set_defaults(run=run)
    return made


def add_group(commands: "Commands", name: str, summary: str) -> "Commands":
    """A command of commands, such as `keys`; to be filled by `add_command`."""
    made = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    return made.add_subparsers(title="commands", metavar="COMMAND", dest="subcommand", required=True)


def add_control_options(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    parser.add_argument(
        "--control",
        metavar="HOST:PORT",
        help="control's address (default: GENIEHIVE_CONTROL, else that of `up` or `join`)",
    )
    parser.add_argument("--key", metavar="KEY", help="key (default: GENIEHIVE_KEY, else this user's own)")
    parser.add_argument(
        "--ca",
        metavar="FILE",
        help="the cluster's CA, for a control on another machine: tls/ca.pem of control's state folder (default: "
        "GENIEHIVE_CA, else that of this machine's own cluster)",
    )


def duration(text: str) -> timedelta:
    """ "90m", "12h", "30d" or "8w", for argparse."""
    match = re.fullmatch(r"(\d{1,5})([mhdw])", text)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time, such as 90m, 12h or 30d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


@contextmanager
def connected(given: argparse.Namespace) -> Iterator["SyncHive"]:
    """Control's services. UserError says in words what a call failed of."""
    # What gRPC itself writes of a failed handshake helps nobody.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    import grpc

    from geniehive.client import connect_sync
    from geniehive.failures import Refused, from_rpc_error

    link = credentials.control(given)
    try:
        # No key is none, and not whatever the client would find by itself in another folder.
        with connect_sync(link.target, key=link.key or "", ca=link.ca) as hive:
            yield hive
    except Refused as error:
        raise _explained(error, link) from error
    except grpc.RpcError as error:
        raise _explained(from_rpc_error(error), link) from error


def unreachable(target: str, why: str, what_next: str) -> UserError:
    end = "" if why.endswith("?") else "."
    return UserError(f"cannot reach control at {target}: {why}{end} {what_next}", EXIT_UNREACHABLE)


def _explained(error: "Refused", link: credentials.Link) -> UserError:
    import grpc

    from geniehive.client import Unreachable
    from geniehive.v1 import failure_pb2

    if link.ca is None:
        what_next = (
            "Is it running? `geniehive up` starts it; `geniehive join` makes this machine part of another's cluster; "
            "another address is given by --control HOST:PORT"
        )
    else:
        what_next = (
            f"It is known by {link.ca}; another address is given by --control HOST:PORT, another CA by --ca FILE"
        )
    if isinstance(error, Unreachable):
        return unreachable(link.target, error.message, what_next)
    if error.reason == failure_pb2.FAILURE_REASON_UNSPECIFIED and error.code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ):
        # gRPC's own text lists every address it tried; what went wrong stands last.
        why = error.message.rpartition(": ")[2] if error.code is grpc.StatusCode.UNAVAILABLE else "no answer in time"
        return unreachable(link.target, why or "no answer", what_next)
    if error.code is grpc.StatusCode.UNAUTHENTICATED and link.key is None:
        return UserError(
            f"control at {link.target} wants a key, and none was given. "
            f"{GET_A_KEY.replace('NAME', 'NAME --scope read')} (--scope admin if something is to be changed)",
            EXIT_FAILED,
        )
    if error.code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return UserError(f"{error.message} (the key came from {link.key_source})", EXIT_FAILED)
    return UserError(error.message or f"control refused: {error.name or error.code.name}", EXIT_FAILED)
