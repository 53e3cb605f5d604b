"""Which control, gateway and key a command uses: flags, else the environment, else what the state folder says.

`up` and `join` write `up.json` into it while they run, and a machine that joined keeps where control is. A key from the
state folder goes to this machine only.
"""

import argparse
import json
import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from geniehive import trust
from geniehive.kit import address, state

CONTROL_VARIABLE = "GENIEHIVE_CONTROL"
GATEWAY_VARIABLE = "GENIEHIVE_GATEWAY"
KEY_VARIABLE = "GENIEHIVE_KEY"

DEFAULT_CONTROL = "127.0.0.1:8801"
DEFAULT_GATEWAY = "http://127.0.0.1:8800"

UP_FILE = "up.json"


class Link(NamedTuple):
    """Where to, with which key, and by which CA control is known: None where there is no TLS.

    `key_source` says for messages where the key came from.
    """

    target: str
    key: str | None
    key_source: str
    ca: Path | None = None

    def __repr__(self) -> str:
        return f"Link({self.target!r}, key from {self.key_source})"


def folder(given: argparse.Namespace) -> Path:
    """The state folder; it need not exist."""
    return Path(given.state_dir).expanduser() if given.state_dir else state.default_folder()


def control(given: argparse.Namespace) -> Link:
    place = folder(given)
    target = (
        given.control
        or os.environ.get(CONTROL_VARIABLE)
        or read_up(place).get("control")
        or trust.control(place)
        or DEFAULT_CONTROL
    )
    target = trust.complete(target, tls=given.ca is not None)
    host, _ = address.split(target)
    return _with_key(given, target, host, place / "admin.key")._replace(ca=trust.ca_file(given.ca, place, target))


def joined(given: argparse.Namespace) -> str | None:
    """Control of the cluster that this machine joined; None if it has not."""
    return trust.control(folder(given))


def gateway(given: argparse.Namespace, key_file: str = "client.key") -> Link:
    """`target` is a URL without "/v1" and without a slash at its end. key_file: in the state folder."""
    place = folder(given)
    url = given.gateway or os.environ.get(GATEWAY_VARIABLE) or read_up(place).get("gateway") or DEFAULT_GATEWAY
    url = (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1")
    return _with_key(given, url, urlsplit(url).hostname or "", place / key_file)


def _with_key(given: argparse.Namespace, target: str, host: str, file: Path) -> Link:
    if given.key:
        return Link(target, given.key, "--key")
    if key := os.environ.get(KEY_VARIABLE):
        return Link(target, key, f"the environment variable {KEY_VARIABLE}")
    if not address.is_loopback(host):
        return Link(target, None, "nowhere; give one: --key KEY")
    if not file.exists():
        return Link(target, None, f"nowhere: {file} does not exist; give one: --key KEY")
    return Link(target, state.read_secret(file), str(file))


def read_up(place: Path) -> dict[str, str]:
    """What a running `geniehive up` or `join` says of itself: "command", "control", "pid", and "gateway" if it has one.

    Empty if none runs.
    """
    try:
        found = json.loads((place / UP_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {k: str(v) for k, v in found.items() if v is not None} if isinstance(found, dict) else {}
