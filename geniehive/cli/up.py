"""`geniehive up`: options, and what they mean."""

import argparse
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from geniehive.cli import common, credentials, daemons, servers
from geniehive.kit import address, state
from geniehive.kit.errors import UserError

if TYPE_CHECKING:
    from geniehive.cli.common import Commands

# Flag: the environment variable that the daemon has for it, if any; default; whose.
ADDRESSES = {
    "--listen": ("GENIEHIVE_GATEWAY__LISTEN", "127.0.0.1:8800", "the gateway, which clients use"),
    "--control-listen": ("GENIEHIVE_CONTROL__LISTEN", credentials.DEFAULT_CONTROL, "control, for this machine"),
    "--embedded-listen": ("", "127.0.0.1:8802", "the demo engine"),
    "--relay-listen": ("GENIEHIVE_NODE__RELAY__LISTEN", "127.0.0.1:8803", "the node's relay"),
    "--tls-listen": ("GENIEHIVE_CONTROL__TLS__LISTEN", "", "control, for machines that join and for tools elsewhere"),
}
_TLS_PORT, _PEERS_PORT, _RELAY_PORT = 8804, 8805, 8803
_EVERYWHERE = "0.0.0.0"


def add(commands: "Commands") -> None:
    made = common.add_command(
        commands,
        "up",
        "run control, gateway and node on this machine",
        run,
        "Run control, gateway and node on this machine until Ctrl-C. Servers that run here on their usual ports are\n"
        "found by themselves; others are named by --engine and --provider. If no model to chat with is found, a small\n"
        "demonstration engine is started.\n\n"
        "With --lan other machines can use the gateway, and join; the line for them is printed. So with --listen\n"
        "ADDR, on that address.",
    )
    servers.add_servers(made)
    demo = made.add_mutually_exclusive_group()
    demo.add_argument(
        "--no-embedded", dest="embedded", action="store_const", const="never", help="never start the demo engine"
    )
    demo.add_argument(
        "--embedded", dest="embedded", action="store_const", const="always", help="start the demo engine in any case"
    )
    made.set_defaults(embedded="auto")
    listen = made.add_argument_group("addresses (HOST:PORT; port 0: any that is free)")
    listen.add_argument("--lan", action="store_true", help="be reached by other machines, on all addresses of this one")
    for flag, (_, default, what) in ADDRESSES.items():
        usual = default or f"off; with --lan {_EVERYWHERE}:{_TLS_PORT}"
        listen.add_argument(flag, metavar="ADDR", help=f"{what} (default {usual})")
    listen.add_argument(
        "--peers-port",
        metavar="PORT",
        type=_port,
        help=f"control, for machines that have joined, beside --tls-listen (default {_PEERS_PORT})",
    )
    listen.add_argument(
        "--advertise", metavar="HOST", help="this machine as others know it (default: found out by itself)"
    )
    servers.add_certificate(listen)
    made.add_argument("--verbose", action="store_true", help="show the logs here, instead of keeping them in files")


def run(given: argparse.Namespace) -> int:
    daemons.require("control", "gateway", "node")
    from geniehive.cli.hive import Hive, Plan
    from geniehive.kit import lifecycle

    engines, providers = servers.split(given.servers)
    environment = os.environ
    cert = given.cert or environment.get("GENIEHIVE_GATEWAY__TLS__CERT")
    key = given.key or environment.get("GENIEHIVE_GATEWAY__TLS__KEY")
    plan = Plan(
        state=state.ensure_folder(credentials.folder(given).absolute()),
        addresses=addresses(given, environment),
        engines=engines,
        providers=providers,
        embedded=given.embedded,
        way=given.way,
        advertise=servers.advertised(given.advertise),
        certificate=servers.certificate(cert, key),
        verbose=given.verbose,
        as_json=given.json,
    )
    return lifecycle.run(lambda stop: Hive(plan, stop).run())


def addresses(given: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, str]:
    """What listens where, by flag; control's TLS only if others can reach this machine. UserError if it can't be so.

    A flag wins over --lan, and that over the environment.
    """

    def told(flag: str, on_lan: str = "") -> str:
        variable, default, _ = ADDRESSES[flag]
        flagged: str | None = getattr(given, flag[2:].replace("-", "_"))
        return flagged or (given.lan and on_lan) or (variable and environment.get(variable)) or default

    found = {flag: told(flag) for flag in ("--control-listen", "--embedded-listen")}
    if not address.is_loopback(_host("--control-listen", found["--control-listen"])):
        raise UserError(
            f"--control-listen {found['--control-listen']}: there control is for this machine's programs alone, since "
            "it speaks no TLS. For others it listens at --tls-listen ADDR, or with --lan"
        )
    gateway = told("--listen", f"{_EVERYWHERE}:8800")
    secure = told("--tls-listen", f"{_EVERYWHERE}:{_TLS_PORT}")
    host = _host("--listen", gateway)
    if not secure and not address.is_loopback(host):
        secure = address.join(host, _TLS_PORT)
    secure_host = _host("--tls-listen", secure) if secure else "127.0.0.1"
    outside = "" if address.is_loopback(secure_host) else address.join(secure_host, _RELAY_PORT)
    relay = given.relay_listen or (given.lan and outside) or environment.get(ADDRESSES["--relay-listen"][0]) or outside
    relay = relay or ADDRESSES["--relay-listen"][1]
    if not secure and not address.is_loopback(_host("--relay-listen", relay)):
        raise UserError(
            f"--relay-listen {relay}: other machines reach the relay by TLS only, for which control must issue "
            "certificates: give --lan, or --tls-listen ADDR"
        )
    found |= {"--listen": gateway, "--relay-listen": relay}
    if secure:
        port = given.peers_port
        if port is None:
            variable = "GENIEHIVE_CONTROL__TLS__PEERS_PORT"
            try:
                port = _port(environment.get(variable) or str(_PEERS_PORT))
            except argparse.ArgumentTypeError as error:
                raise UserError(f"{variable}: {error}") from None
        found |= {"--tls-listen": secure, "--peers-port": address.join(secure_host, port)}
    return found


def _host(flag: str, text: str) -> str:
    try:
        return address.split(text)[0]
    except UserError as error:
        raise UserError(f"{flag}: {error}") from None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)
