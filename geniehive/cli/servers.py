"""Options of `up` and `join` alike: the servers of this machine, and how they are offered to others."""

import argparse
from pathlib import Path
from typing import Any

from geniehive.kit import address, state
from geniehive.kit.errors import UserError


def add_servers(parser: argparse.ArgumentParser) -> None:
    servers = parser.add_argument_group("servers")
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
    way = servers.add_mutually_exclusive_group()
    way.add_argument(
        "--direct",
        dest="way",
        action="store_const",
        const="direct",
        help="gateways reach the engines straight; those that can't be reached so are listed, not used",
    )
    way.add_argument(
        "--relay",
        dest="way",
        action="store_const",
        const="relay",
        help="gateways reach the engines by this machine's relay (default: whatever works, direct first)",
    )
    parser.set_defaults(servers=None, way=None)


def add_certificate(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--cert", metavar="FILE", help="the gateway speaks HTTPS by this certificate, in PEM")
    group.add_argument("--key", metavar="FILE", help="the private key of --cert, in PEM")


def split(found: list[dict[str, Any]] | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Engines and providers, as the node's settings have them. UserError for a key file that can't be read."""
    checked = [_checked(dict(server)) for server in found or ()]
    return [s for s in checked if "name" not in s], [s for s in checked if "name" in s]


def _checked(server: dict[str, Any]) -> dict[str, Any]:
    """With a key file that can be read, and whose path holds from any folder."""
    if "key_file" in server:
        path = Path(server["key_file"]).expanduser().absolute()
        state.read_secret(path)
        server["key_file"] = str(path)
    return server


def certificate(cert: str | None, key: str | None) -> dict[str, str]:
    """For the gateway's settings tls.cert and tls.key. UserError if one is missing or can't be read."""
    if not cert and not key:
        return {}
    if not (cert and key):
        raise UserError("--cert and --key go together: the gateway's certificate, and its private key")
    found = {}
    for flag, setting, text in (("--cert", "tls.cert", cert), ("--key", "tls.key", key)):
        path = Path(text).expanduser().absolute()
        try:
            path.open("rb").close()
        except OSError as error:
            raise UserError(f"{flag}: cannot read {path}: {error.strerror}") from error
        found[setting] = str(path)
    return found


def advertised(text: str | None) -> str | None:
    """Of --advertise: a host name or number, without brackets. UserError for anything else."""
    if not text:
        return None
    host = text.strip("[]")
    try:
        address.split(address.join(host, 1))
    except UserError:
        host = ""
    if not host or (":" in host and not _is_ipv6(host)) or any(c.isspace() or c in "/[]" for c in host):
        raise UserError(f"--advertise {text}: write this machine's address as others know it, without a port")
    return host


def _is_ipv6(text: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


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
        given.servers = [*(given.servers or ()), server]


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
