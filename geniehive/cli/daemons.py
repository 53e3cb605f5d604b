"""`geniehive control|node|gateway`: hands over to the daemon, which reads its own options."""

import importlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

from geniehive.kit.errors import UserError

if TYPE_CHECKING:
    from geniehive.cli.common import Commands

MODULES = {"control": "geniehive_control", "node": "geniehive_node", "gateway": "gateway"}
_SUMMARIES = {
    "control": "run the control daemon: who is there, and what leads where",
    "node": "run the node daemon: finds this machine's servers and offers them",
    "gateway": "run the gateway daemon: the address that clients use",
}
# What a bare `pip install geniehive` lacks.
_NEEDED = {
    "control": ("msgspec", "yaml", "sqlalchemy", "aiosqlite", "alembic"),
    "node": ("msgspec", "yaml", "aiohttp", "httptools", "psutil"),
    "gateway": ("msgspec", "yaml", "aiohttp", "httptools"),
}


def add(commands: "Commands") -> None:
    """For the list of commands only; __main__ hands over before anything is parsed."""
    for name, summary in _SUMMARIES.items():
        commands.add_parser(name, help=summary)


def run(name: str, arguments: Sequence[str]) -> int:
    """Runs a daemon in this process; its exit code."""
    require(name)
    try:
        module = importlib.import_module(f"{MODULES[name]}.__main__")
    except ModuleNotFoundError as error:
        raise _lacking(name, error.name or str(error)) from error
    code: int = module.main(arguments)
    return code


def require(*names: str) -> None:
    """UserError unless everything that these daemons import is installed."""
    for name in names:
        missing = [module for module in (MODULES[name], *_NEEDED[name]) if importlib.util.find_spec(module) is None]
        if missing:
            raise _lacking(name, ", ".join(missing))


def _lacking(name: str, modules: str) -> UserError:
    return UserError(
        f"the {name} daemon needs what is not installed here ({modules}). Install it: pip install 'geniehive[all]'"
    )
