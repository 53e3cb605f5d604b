"""What `geniehive join` was told, kept for its next start."""

import argparse
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from geniehive.kit import state
from geniehive.kit.errors import UserError

FILE = "join.json"


@dataclass(frozen=True)
class Options:
    """How the daemons of a machine that joined are run. servers: as cli.servers collects them."""

    gateway: bool = False
    listen: str = "127.0.0.1:8800"
    relay_listen: str | None = None
    embedded: bool = False
    embedded_listen: str = "127.0.0.1:8802"
    advertise: str | None = None
    way: str | None = None
    servers: tuple[dict[str, Any], ...] = ()
    cert: str | None = None
    key: str | None = None

    def with_given(self, given: argparse.Namespace) -> Self:
        """With what a command line says in place of the same here."""
        told = {f.name: getattr(given, f.name) for f in fields(self) if getattr(given, f.name) is not None}
        if "servers" in told:
            told["servers"] = tuple(told["servers"])
        for name in ("cert", "key"):
            if name in told:
                told[name] = str(Path(told[name]).expanduser().absolute())
        return replace(self, **told)

    def save(self, folder: Path) -> None:
        """OSError if it can't be written."""
        state.write_private(folder / FILE, (json.dumps(asdict(self), indent=1) + "\n").encode())


def load(folder: Path) -> Options:
    """What the last `join` was told; nothing, if there was none. UserError if the file can't be used."""
    path = folder / FILE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name: told[f.name] for f in fields(Options) if f.name in told}
        servers = tuple(dict(server) for server in known.pop("servers", ()))
    except FileNotFoundError:
        return Options()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"cannot read {path}: {error}. Delete it, and give the options of `join` again") from error
    return Options(**known, servers=servers)
