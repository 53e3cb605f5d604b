"""`geniehive version`."""

import argparse
import platform
from typing import TYPE_CHECKING

from geniehive._version import __version__
from geniehive.cli import common, output
from geniehive.kit.errors import EXIT_OK

if TYPE_CHECKING:
    from geniehive.cli.common import Commands


def add(commands: "Commands") -> None:
    common.add_command(commands, "version", "which version this is", run)


def run(given: argparse.Namespace) -> int:
    if given.json:
        output.show_json({"version": __version__, "python": platform.python_version()})
    else:
        print(f"geniehive {__version__}")
    return EXIT_OK
