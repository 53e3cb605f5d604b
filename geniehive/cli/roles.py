"""`geniehive roles`: list, show, create, update, delete, export."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geniehive.cli import common, output
from geniehive.cli.output import Cell
from geniehive.kit.errors import EXIT_OK, UserError

if TYPE_CHECKING:
    from geniehive.cli.common import Commands
    from geniehive.client import SyncHive
    from geniehive.rules.model import Alias, Role
    from geniehive.v1 import role_pb2

OWNERS = {0: "-", 1: "file", 2: "operator", 3: "found"}


def add(commands: "Commands") -> None:
    inner = common.add_group(commands, "roles", "tasks that clients call by name: list, show, create, update, delete")
    listed = common.add_command(inner, "list", "list roles, and who owns each: a file or operators", run_list)
    show = common.add_command(inner, "show", "show a role as it is written in a file", run_show)
    create = common.add_command(
        inner,
        "create",
        "create the roles and aliases of a file",
        run_create,
        "Create what a file says: one role, or a catalogue with `roles:` and `aliases:`, as `geniehive roles export`\n"
        "writes it. Roles that others fall back to are created first. Control keeps them; to have it read the file\n"
        "itself, set `catalogue` in its configuration.",
    )
    create.add_argument("-f", "--file", metavar="FILE", required=True, help="in YAML; - for standard input")
    update = common.add_command(
        inner,
        "update",
        "change a role",
        run_update,
        "Change a role, by a file in place of all that it says, or field by field:\n\n"
        "  geniehive roles update coder --set routing_policy.strategy=least_loaded\n"
        "  geniehive roles update coder --set request_policy.defaults.temperature=0.1 --set description=null",
    )
    update.add_argument("-f", "--file", metavar="FILE", help="the role as a whole, in YAML; - for standard input")
    update.add_argument(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        dest="fields",
        help="one field, the value in YAML; null takes it away; may be given several times",
    )
    delete = common.add_command(inner, "delete", "delete a role", run_delete)
    for made in (update, delete):
        made.add_argument("--etag", metavar="ETAG", default="", help="only if it is still as `show` gave it")
    export = common.add_command(inner, "export", "write all roles and aliases as a catalogue", run_export)
    for made in (show, update, delete):
        made.add_argument("role_id", metavar="ID", help="its id, as `geniehive roles list` shows it")
    for made in (listed, show, create, update, delete, export):
        common.add_control_options(made)


def run_list(given: argparse.Namespace) -> int:
    with common.connected(given) as hive:
        roles = hive.list_roles()
    if given.json:
        from geniehive.plain import plain

        output.show_json({"roles": [plain(role) for role in roles]})
    elif roles:
        output.show_table(
            ("ID", "OPERATION", "PREFERS", "FALLS BACK TO", "OWNER", "NAME"),
            [
                (
                    Cell(role.role_id, "strong"),
                    _operation(role),
                    ", ".join(role.routing_policy.preferred_families),
                    ", ".join(role.routing_policy.fallback_role_ids),
                    OWNERS.get(role.owner, str(role.owner)),
                    role.display_name,
                )
                for role in roles
            ],
        )
    else:
        print("no roles; `geniehive roles create -f FILE` makes some")
    return EXIT_OK


def run_show(given: argparse.Namespace) -> int:
    with common.connected(given) as hive:
        role = _get(hive, given.role_id)
    if given.json:
        from geniehive.plain import plain

        output.show_json(plain(role))
    else:
        print(f"# owner: {OWNERS.get(role.owner, str(role.owner))}; etag: {role.etag}")
        print(_yaml(_noun(role)), end="")
    return EXIT_OK


def run_create(given: argparse.Namespace) -> int:
    from geniehive import convert

    roles, aliases = _read(given.file)
    made: list[str] = []
    set_: list[str] = []
    with common.connected(given) as hive:
        try:
            for role in _fallbacks_first(roles):
                hive.create_role(convert.role_to_proto(role))
                made.append(role.role_id)
            for alias in aliases:
                hive.set_alias(alias.alias, alias.target)
                set_.append(alias.alias)
        finally:
            if made and len(made) + len(set_) < len(roles) + len(aliases):
                output.warn(f"what was made before this failed stays: {', '.join(made + set_)}")
    if given.json:
        output.show_json({"created": made, "aliases": set_})
    else:
        print(f"created {', '.join(made) or 'no role'}{'; aliases ' + ', '.join(set_) if set_ else ''}")
    return EXIT_OK


def run_update(given: argparse.Namespace) -> int:
    from geniehive import convert

    if bool(given.file) == bool(given.fields):
        raise UserError("give either -f FILE or --set FIELD=VALUE")
    with common.connected(given) as hive:
        if given.file:
            roles, aliases = _read(given.file)
            if [role.role_id for role in roles] != [given.role_id] or aliases:
                raise UserError(f"{given.file} must have role {given.role_id!r} and nothing else")
            wanted, etag = roles[0], given.etag
        else:
            before = _get(hive, given.role_id)
            wanted, etag = _changed(_noun(before), given.fields), given.etag or before.etag
        message = convert.role_to_proto(wanted)
        message.etag = etag
        made = hive.update_role(message)
    if given.json:
        from geniehive.plain import plain

        output.show_json(plain(made))
    else:
        print(f"updated {made.role_id}")
    return EXIT_OK


def run_delete(given: argparse.Namespace) -> int:
    with common.connected(given) as hive:
        hive.delete_role(given.role_id, given.etag)
    if given.json:
        output.show_json({"deleted": given.role_id})
    else:
        print(f"deleted {given.role_id}")
    return EXIT_OK


def run_export(given: argparse.Namespace) -> int:
    from geniehive import catalogue, convert
    from geniehive.v1 import role_pb2

    with common.connected(given) as hive:
        roles = [_noun(role) for role in hive.list_roles()]
        # What control finds by itself is found there, too.
        listed = [alias for alias in hive.list_aliases() if alias.owner != role_pb2.OWNER_FOUND]
    aliases = [convert.alias_from_proto(alias) for alias in listed]
    if given.json:
        trees = [catalogue.as_tree(role) for role in roles]
        output.show_json({"roles": trees, "aliases": {alias.alias: alias.target for alias in aliases}})
    else:
        print(catalogue.write(roles, aliases), end="")
    return EXIT_OK


def _operation(role: "role_pb2.Role") -> str:
    from geniehive.cli import views

    return views.operations([role.operation])[0]


def _get(hive: "SyncHive", role_id: str) -> "role_pb2.Role":
    from geniehive.v1.registry_service_pb2 import GetRoleRequest

    return hive.registry.GetRole(GetRoleRequest(role_id=role_id)).role


def _noun(role: "role_pb2.Role") -> "Role":
    from geniehive import convert

    try:
        return convert.role_from_proto(role)
    except ValueError as error:
        raise UserError(f"role {role.role_id} is of an operation that this version does not know") from error


def _yaml(role: "Role") -> str:
    import yaml

    from geniehive import catalogue

    return yaml.safe_dump(catalogue.as_tree(role), sort_keys=False, allow_unicode=True, width=100)


def _read(file: str) -> "tuple[tuple[Role, ...], tuple[Alias, ...]]":
    from geniehive import catalogue

    source = "standard input" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {source}: {error}") from error
    if catalogue.is_role(text):
        return (catalogue.parse_role(text, source),), ()
    found = catalogue.parse(text, source)
    if not found.roles and not found.aliases:
        raise UserError(f"{source}: there is no role in it")
    return found.roles, found.aliases


def _fallbacks_first(roles: "tuple[Role, ...]") -> "list[Role]":
    """In an order in which each finds those that it falls back to. Circles are for control to refuse."""
    known = {role.role_id: role for role in roles}
    ordered: dict[str, Role] = {}

    def place(role: "Role", above: frozenset[str]) -> None:
        for role_id in role.routing_policy.fallback_role_ids:
            if role_id in known and role_id not in ordered and role_id not in above:
                place(known[role_id], above | {role_id})
        ordered.setdefault(role.role_id, role)

    for role in roles:
        place(role, frozenset({role.role_id}))
    return list(ordered.values())


def _changed(role: "Role", fields: list[str]) -> "Role":
    import yaml

    from geniehive import catalogue

    tree = catalogue.as_tree(role)
    for given in fields:
        path, equals, text = given.partition("=")
        if not equals or not path:
            raise UserError(f"--set {given}: expected FIELD=VALUE, such as routing_policy.strategy=soonest")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"--set {path}: the value is not valid YAML") from error
        _put(tree, path.split("."), value, path)
    return catalogue.role_of(tree, "--set")


def _put(tree: dict[str, Any], names: list[str], value: Any, path: str) -> None:
    *outer, last = names
    for name in outer:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise UserError(f"--set {path}: {name} has no fields")
    if value is None:
        tree.pop(last, None)
    else:
        tree[last] = value
