"""`geniehive join`: options, and what they mean."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from geniehive.cli import common, credentials, daemons, kept, servers
from geniehive.kit import state
from geniehive.kit.errors import UserError

if TYPE_CHECKING:
    from geniehive.cli.common import Commands
    from geniehive.rules.join_token import JoinToken

TOKEN_VARIABLE = "GENIEHIVE_JOIN_TOKEN"


def add(commands: "Commands") -> None:
    made = common.add_command(
        commands,
        "join",
        "make this machine part of a cluster, and run its node",
        run,
        "Make this machine part of a cluster, and run its node until Ctrl-C, so that the cluster can use the servers\n"
        "that run here. `geniehive tokens create` on control's machine prints the line to type.\n\n"
        "What is given is kept: after a reboot `geniehive join` alone is enough. Options beside it then replace those\n"
        "kept, one by one; a line with HOST replaces them all.",
    )
    made.add_argument("control", metavar="HOST:PORT", nargs="?", help="control's address (port 8804 if left out)")
    token = made.add_mutually_exclusive_group()
    token.add_argument("--token", metavar="TOKEN", help=f"the join token (default: {TOKEN_VARIABLE})")
    token.add_argument("--token-file", metavar="FILE", help="a file that holds the join token")
    made.add_argument(
        "--name", metavar="NAME", help="what the cluster calls this machine (default: the machine's name)"
    )
    made.add_argument("--gateway", action="store_true", default=None, help="run a gateway here too, for local clients")
    servers.add_servers(made)
    made.add_argument("--embedded", action="store_true", default=None, help="start the demonstration engine too")
    listen = made.add_argument_group("addresses (HOST:PORT; port 0: any that is free)")
    listen.add_argument("--listen", metavar="ADDR", help="the gateway (default 127.0.0.1:8800)")
    listen.add_argument("--relay-listen", metavar="ADDR", help="the node's relay (default: port 8803 on all addresses)")
    listen.add_argument("--embedded-listen", metavar="ADDR", help="the demo engine (default 127.0.0.1:8802)")
    listen.add_argument(
        "--advertise", metavar="HOST", help="this machine as others know it (default: found out by itself)"
    )
    servers.add_certificate(listen)
    made.add_argument("--verbose", action="store_true", help="show the logs here, instead of keeping them in files")


def run(given: argparse.Namespace) -> int:
    folder = credentials.folder(given).absolute()
    given.advertise = servers.advertised(given.advertise)
    if given.servers is not None:
        engines, providers = servers.split(given.servers)
        given.servers = [*engines, *providers]
    options = (kept.load(folder) if given.control is None else kept.Options()).with_given(given)
    daemons.require("node", *(["gateway"] if options.gateway else []))
    from geniehive.cli.member import Member, Plan
    from geniehive.kit import lifecycle

    plan = Plan(
        state=state.ensure_folder(folder),
        where=given.control,
        token=_token(given),
        name=given.name,
        options=options,
        verbose=given.verbose,
        as_json=given.json,
    )
    return lifecycle.run(lambda stop: Member(plan, stop).run())


def _token(given: argparse.Namespace) -> "JoinToken | None":
    from geniehive.rules import join_token

    if given.token is not None:
        text, source = given.token, "--token"
    elif given.token_file is not None:
        text, source = state.read_secret(Path(given.token_file)), f"--token-file {given.token_file}"
    else:
        # Taken out: what is started here needs no token, and passes its environment on to others.
        text, source = os.environ.pop(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
        if not text:
            return None
    try:
        return join_token.read(text)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
