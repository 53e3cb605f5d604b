"""`geniehive keys`: create, list, revoke."""

import argparse
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from geniehive.cli import common, output
from geniehive.cli.output import Cell
from geniehive.kit.errors import EXIT_OK

if TYPE_CHECKING:
    from geniehive.cli.common import Commands

SCOPES = ("infer", "read", "operate", "admin")


def add(commands: "Commands") -> None:
    inner = common.add_group(commands, "keys", "create, list and revoke client keys")
    create = common.add_command(
        inner,
        "create",
        "create a client key; it is shown this once",
        run_create,
        "Create a client key. It is shown this once; control keeps its hash alone.\n\n"
        "scopes: infer (use models), read (see the cluster), operate (read, and run commands), admin (everything)",
    )
    create.add_argument("name", metavar="NAME", help="who or what it is for")
    create.add_argument(
        "--scope",
        metavar="SCOPE[,SCOPE]",
        type=_scopes,
        action="extend",
        default=[],
        help=f"what it may do, repeatable: {', '.join(SCOPES)} (default: infer,read)",
    )
    create.add_argument(
        "--expires", metavar="WHEN", type=_expiry, help="after 90m, 12h, 30d or 8w, or on a date such as 2030-12-31"
    )
    listed = common.add_command(inner, "list", "list client keys, never the keys themselves", run_list)
    revoke = common.add_command(inner, "revoke", "stop a client key at once, at every gateway", run_revoke)
    revoke.add_argument("key_id", metavar="ID", help="its id, as `geniehive keys list` shows it")
    for made in (create, listed, revoke):
        common.add_control_options(made)


def run_create(given: argparse.Namespace) -> int:
    from geniehive.cli import views
    from geniehive.v1 import admin_service_pb2 as pb
    from geniehive.v1.credential_pb2 import Scope

    scopes = [Scope.Value(f"SCOPE_{s.upper()}") for s in dict.fromkeys(given.scope or ["infer", "read"])]
    request = pb.CreateClientKeyRequest(display_name=given.name, scopes=scopes)
    if given.expires is not None:
        request.expire_time.FromDatetime(given.expires)
    with common.connected(given) as hive:
        made = hive.admin.CreateClientKey(request)
    view = {**views.key(made.client_key), "key": made.key}
    if given.json:
        output.show_json(view)
        return EXIT_OK
    lines = [("key", made.key), ("id", view["key_id"]), ("scopes", ", ".join(view["scopes"]))]
    if view["expires"]:
        lines.append(("expires", view["expires"]))
    output.show_lines(lines)
    output.warn("keep the key now; it can't be shown again")
    return EXIT_OK


def run_list(given: argparse.Namespace) -> int:
    from geniehive.cli import views
    from geniehive.client.sync import pages
    from geniehive.v1 import admin_service_pb2 as pb

    with common.connected(given) as hive:
        held = pages(hive.admin.ListClientKeys, pb.ListClientKeysRequest(), "client_keys")
    found = [views.key(k) for k in held]
    if given.json:
        output.show_json({"keys": found})
        return EXIT_OK
    output.show_table(
        ("ID", "NAME", "SCOPES", "EXPIRES", "FROM"),
        [
            (
                Cell(k["key_id"], "strong"),
                k["name"],
                ", ".join(k["scopes"]),
                k["expires"] or "never",
                "configuration" if k["configured"] else "keys create",
            )
            for k in found
        ],
    )
    return EXIT_OK


def run_revoke(given: argparse.Namespace) -> int:
    from geniehive.v1 import admin_service_pb2 as pb

    with common.connected(given) as hive:
        hive.admin.RevokeClientKey(pb.RevokeClientKeyRequest(key_id=given.key_id))
    if given.json:
        output.show_json({"revoked": given.key_id})
    else:
        print(f"revoked {given.key_id}")
    return EXIT_OK


def _scopes(text: str) -> list[str]:
    found = [word.strip().lower() for word in text.split(",")]
    for word in found:
        if word not in SCOPES:
            raise argparse.ArgumentTypeError(f"{word!r} is no scope; choose from {', '.join(SCOPES)}")
    return found


def _expiry(text: str, now: datetime | None = None) -> datetime:
    now = now or datetime.now(UTC)
    if re.fullmatch(r"\d{1,5}[mhdw]", text):
        moment = now + common.duration(text)
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is neither a time from now, such as 30d or 12h, nor a date, such as 2030-12-31"
            ) from None
        if moment.tzinfo is None:
            # As the user's clock shows it.
            moment = moment.astimezone()
    if moment <= now:
        raise argparse.ArgumentTypeError(f"{text!r} is not in the future")
    return moment.astimezone(UTC)
