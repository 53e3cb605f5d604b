"""`geniehive up`: options, and what they mean."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geniehive.cli import common, credentials, daemons
from geniehive.kit import state

if TYPE_CHECKING:
    from geniehive.cli.common import Commands


def add(commands: "Commands") -> None:
    made = common.add_command(
        commands,
        "up",
        "run control, gateway and node on this machine",
        run,
        "Run control, gateway and node on this machine until Ctrl-C. Servers that run here on their usual ports are\n"
        "found by themselves; others are named by --engine and --provider. If no model to chat with is found, a small\n"
        "demonstration engine is started.",
    )
    servers = made.add_argument_group("servers")
    servers.add_argument(
        "--engine", metavar="URL", dest="servers", action=_Server, help="an engine, repeatable: http://HOST:PORT"
    )
    servers.add_argument(
        "--provider",
        metavar="NAME",
        dest="servers",
        action=_Server,
        help="a hosted provider, repeatable: openai, openrouter, groq, mistral, deepseek, together, fireworks, "
        "cerebras, xai, gemini, huggingface, or any other with its --url; the key is that of --key-file, else the "
        "usual variable, such as OPENAI_API_KEY",
    )
    servers.add_argument(
        "--key-file", metavar="FILE", dest="servers", action=_Detail, help="key of the engine or provider before it"
    )
    servers.add_argument("--url", metavar="URL", dest="servers", action=_Detail, help="URL of the provider before it")
    demo = servers.add_mutually_exclusive_group()
    demo.add_argument(
        "--no-embedded", dest="embedded", action="store_const", const="never", help="never start the demo engine"
    )
    demo.add_argument(
        "--embedded", dest="embedded", action="store_const", const="always", help="start the demo engine in any case"
    )
    made.set_defaults(servers=[], embedded="auto")
    listen = made.add_argument_group("addresses (HOST:PORT; port 0: any that is free)")
    for flag, (variable, default, what) in ADDRESSES.items():
        listen.add_argument(
            flag,
            metavar="ADDR",
            default=(variable and os.environ.get(variable)) or default,
            help=f"{what} (default {default})",
        )
    made.add_argument("--verbose", action="store_true", help="show the logs here, instead of keeping them in files")


# Flag: the environment variable that the daemon has for it, if any; default; whose.
ADDRESSES = {
    "--listen": ("GENIEHIVE_GATEWAY__LISTEN", "127.0.0.1:8800", "the gateway, which clients use"),
    "--control-listen": ("GENIEHIVE_CONTROL__LISTEN", credentials.DEFAULT_CONTROL, "control"),
    "--embedded-listen": ("", "127.0.0.1:8802", "the demo engine"),
    "--relay-listen": ("GENIEHIVE_NODE__RELAY__LISTEN", "127.0.0.1:8803", "the node's relay"),
}


def run(given: argparse.Namespace) -> int:
    daemons.require("control", "gateway", "node")
    from geniehive.cli.hive import Hive, Plan
    from geniehive.kit import lifecycle

    engines = [_checked(dict(s)) for s in given.servers if "name" not in s]
    providers = [_checked(dict(s)) for s in given.servers if "name" in s]
    plan = Plan(
        state=state.ensure_folder(credentials.folder(given).absolute()),
        addresses={flag: getattr(given, flag[2:].replace("-", "_")) for flag in ADDRESSES},
        engines=tuple(engines),
        providers=tuple(providers),
        embedded=given.embedded,
        verbose=given.verbose,
        as_json=given.json,
    )
    return lifecycle.run(lambda stop: Hive(plan, stop).run())


def _checked(server: dict[str, Any]) -> dict[str, Any]:
    """With a key file that can be read, and whose path holds from any folder."""
    if "key_file" in server:
        path = Path(server["key_file"]).expanduser().absolute()
        state.read_secret(path)
        server["key_file"] = str(path)
    return server


class _Server(argparse.Action):
    """--engine and --provider: begin a server."""

    def __call__(
        self, parser: argparse.ArgumentParser, given: argparse.Namespace, value: Any, option: str | None = None
    ) -> None:
        if option == "--engine":
            if not value.startswith(("http://", "https://")):
                parser.error(f"--engine {value}: write the engine's URL, such as http://127.0.0.1:11434")
            server = {"url": value}
        else:
            if "/" in value or not value:
                parser.error(f"--provider {value}: write the provider's name, and give its address by --url")
            server = {"name": value}
        # A new list each time: the default is shared.
        given.servers = [*given.servers, server]


class _Detail(argparse.Action):
    """--key-file and --url: belong to the server before them."""

    def __call__(
        self, parser: argparse.ArgumentParser, given: argparse.Namespace, value: Any, option: str | None = None
    ) -> None:
        key = {"--key-file": "key_file", "--url": "url"}[option or ""]
        if not given.servers:
            parser.error(f"{option} belongs to the --engine or --provider before it, and there is none")
        last = given.servers[-1]
        if key in last:
            whose = f"--provider {last['name']}" if "name" in last else f"--engine {last['url']}"
            if key == "url" and "name" not in last:
                parser.error(f"--url belongs to a --provider; {whose} is a URL itself")
            parser.error(f"{whose} has {option} already")
        given.servers = [*given.servers[:-1], {**last, key: value}]
