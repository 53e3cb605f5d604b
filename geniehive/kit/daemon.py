"""The command line that the three daemons have alike."""

import argparse
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from geniehive._version import __version__
from geniehive.kit import config, lifecycle, logs, state
from geniehive.kit.errors import UserError

# gRPC reads it when it is imported, after this. It would write a line for every connection that is no TLS: whoever
# reaches a port could fill the disk.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


class LogSettings(config.Settings, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class DaemonSettings(config.Settings, frozen=True, kw_only=True):
    """What every daemon's settings have."""

    # Where this daemon keeps what must outlive it. Unset: this user's state folder.
    state_dir: str | None = None
    log: LogSettings = LogSettings()

    @property
    def state_folder(self) -> Path:
        return Path(self.state_dir).expanduser() if self.state_dir else state.default_folder()


S = TypeVar("S", bound=DaemonSettings)


def main(
    name: str,
    description: str,
    settings: type[S],
    serve: Callable[[S, lifecycle.Stop], Awaitable[None]],
    arguments: Sequence[str] | None = None,
) -> int:
    """Reads the arguments of `geniehive NAME`, loads the settings, and runs `serve` until it is told to stop.

    Gives the exit code of the process. Environment variables are GENIEHIVE_<NAME>__KEY__SUBKEY.
    """
    parser = argparse.ArgumentParser(prog=f"geniehive {name}", description=description)
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="YAML; every key is in configs/" + f"{name}.full.yaml"
    )
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help="one setting")
    parser.add_argument("--state-dir", metavar="DIR", help="where state is kept (setting state_dir)")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], help="setting log.level")
    parser.add_argument("--version", action="version", version=f"geniehive {__version__}")
    given = parser.parse_args(arguments)
    overrides = list(given.overrides)
    if given.state_dir:
        overrides.append("state_dir=" + msgspec.json.encode(given.state_dir).decode())
    if given.log_level:
        overrides.append(f"log.level={given.log_level}")

    async def run(stop: lifecycle.Stop) -> None:
        state.ensure_folder(loaded.state_folder)
        await serve(loaded, stop)

    try:
        loaded = config.load(
            settings,
            prefix=f"GENIEHIVE_{name.upper()}",
            file=given.config,
            environment=os.environ,
            overrides=overrides,
        )
    except UserError as error:
        return lifecycle.show(error)
    logs.setup(loaded.log.level, loaded.log.format)
    return lifecycle.run(run)
