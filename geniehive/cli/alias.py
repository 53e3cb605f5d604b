"""`geniehive alias`: set, list, delete."""

import argparse
from typing import TYPE_CHECKING

from geniehive.cli import common, output
from geniehive.cli.output import Cell
from geniehive.cli.roles import OWNERS
from geniehive.kit.errors import EXIT_OK

if TYPE_CHECKING:
    from geniehive.cli.common import Commands


def add(commands: "Commands") -> None:
    inner = common.add_group(commands, "alias", "other names for models, services and roles: set, list, delete")
    put = common.add_command(
        inner,
        "set",
        "let a name, or all names of a pattern, mean another",
        run_set,
        "Let a name, or all names of a pattern with *, mean a model, a service or a role. A name wins over patterns,\n"
        "a longer pattern over a shorter one:\n\n"
        "  geniehive alias set gpt-4o assistant\n"
        "  geniehive alias set 'claude-*' coder",
    )
    put.add_argument("alias", metavar="NAME|GLOB", help="what clients write")
    put.add_argument("target", metavar="TARGET", help="a model, a service (host/service) or a role")
    listed = common.add_command(inner, "list", "list aliases, those that control found by itself too", run_list)
    delete = common.add_command(inner, "delete", "delete an alias", run_delete)
    delete.add_argument("alias", metavar="NAME|GLOB", help="as `geniehive alias list` shows it")
    for made in (put, listed, delete):
        common.add_control_options(made)


def run_set(given: argparse.Namespace) -> int:
    from geniehive.v1 import role_pb2

    with common.connected(given) as hive:
        # An alias that is there is changed; one that control found gives way to it.
        held = {alias.alias: alias for alias in hive.list_aliases() if alias.owner != role_pb2.OWNER_FOUND}
        before = held.get(given.alias)
        made = hive.set_alias(given.alias, given.target, "" if before is None else before.etag)
    if given.json:
        from geniehive.plain import plain

        output.show_json(plain(made))
    else:
        was = "" if before is None else f", and no longer {before.target}"
        print(f"{made.alias} means {made.target}{was}")
    return EXIT_OK


def run_list(given: argparse.Namespace) -> int:
    with common.connected(given) as hive:
        aliases = hive.list_aliases()
    if given.json:
        from geniehive.plain import plain

        output.show_json({"aliases": [plain(alias) for alias in aliases]})
    elif aliases:
        output.show_table(
            ("ALIAS", "MEANS", "OWNER"),
            [(Cell(a.alias, "strong"), a.target, OWNERS.get(a.owner, str(a.owner))) for a in aliases],
        )
    else:
        print("no aliases; `geniehive alias set NAME TARGET` makes one")
    return EXIT_OK


def run_delete(given: argparse.Namespace) -> int:
    with common.connected(given) as hive:
        hive.delete_alias(given.alias)
    if given.json:
        output.show_json({"deleted": given.alias})
    else:
        print(f"deleted {given.alias}")
    return EXIT_OK
