"""`geniehive tokens`: create, list, revoke the tokens by which machines join."""

import argparse
from typing import TYPE_CHECKING, Any

from geniehive.cli import banner, common, credentials, output
from geniehive.cli.output import Cell
from geniehive.kit import address
from geniehive.kit.errors import EXIT_OK

if TYPE_CHECKING:
    from geniehive.cli.common import Commands

KINDS = ("node", "gateway")


def add(commands: "Commands") -> None:
    inner = common.add_group(commands, "tokens", "create, list and revoke the tokens by which machines join")
    create = common.add_command(
        inner,
        "create",
        "create a join token, and print the line for the machine; shown this once",
        run_create,
        "Create a join token, and print the line to type on the machine that is to join. The token is shown this\n"
        "once; control keeps its hash alone.",
    )
    create.add_argument("--uses", metavar="N", type=_uses, default=1, help="how many machines may join by it (1)")
    create.add_argument(
        "--ttl", metavar="TIME", type=common.duration, help="how long it can be used: 90m, 12h, 7d (1h; at most 30d)"
    )
    create.add_argument(
        "--kind", choices=KINDS, action="append", help="only this kind of daemon may join by it (default: both)"
    )
    listed = common.add_command(inner, "list", "list join tokens that can still be used, without secrets", run_list)
    revoke = common.add_command(inner, "revoke", "stop a join token; machines that have joined by it stay", run_revoke)
    revoke.add_argument("token_id", metavar="ID", help="its id, as `geniehive tokens list` shows it")
    for made in (create, listed, revoke):
        common.add_control_options(made)


def run_create(given: argparse.Namespace) -> int:
    from geniehive.cli import views
    from geniehive.v1 import admin_service_pb2 as pb
    from geniehive.v1.credential_pb2 import PeerKind

    kinds = [PeerKind.Value(f"PEER_KIND_{kind.upper()}") for kind in dict.fromkeys(given.kind or ())]
    request = pb.CreateJoinTokenRequest(uses=given.uses, peer_kinds=kinds)
    if given.ttl is not None:
        request.ttl.FromTimedelta(given.ttl)
    with common.connected(given) as hive:
        made = hive.admin.CreateJoinToken(request)
    addresses = _addresses(list(made.addresses), credentials.control(given).target)
    view = {**views.join_token(made.join_token), "token": made.token, "addresses": addresses}
    line = banner.join_line(addresses, made.token, gateway=given.kind is not None and "gateway" in given.kind)
    if given.json:
        output.show_json({**view, "line": line})
        return EXIT_OK
    output.show_lines(_facts(view))
    print(f"\nOn the machine that is to join:\n\n  {line}\n")
    if len(addresses) > 1:
        print(f"If control is not reached there, try {', '.join(addresses[1:])}.\n")
    if not addresses:
        output.warn("control does not know how other machines reach it; put its address in place of HOST:PORT")
    output.warn("keep the token now; it can't be shown again")
    return EXIT_OK


def _addresses(told: list[str], target: str) -> list[str]:
    """Where to join, the likeliest first: the address that this very call went to works from elsewhere too."""
    host, _ = address.split(target)
    if address.is_loopback(host):
        return told
    return [target, *(where for where in told if where != target)]


def _facts(view: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("token", view["token"]),
        ("id", view["token_id"]),
        ("for", _kinds(view)),
        ("uses", str(view["uses_left"])),
        ("expires", view["expires"] or ""),
    ]


def _kinds(view: dict[str, Any]) -> str:
    return ", ".join(view["kinds"] or KINDS)


def run_list(given: argparse.Namespace) -> int:
    from geniehive.cli import views
    from geniehive.client.sync import pages
    from geniehive.v1 import admin_service_pb2 as pb

    with common.connected(given) as hive:
        held = pages(hive.admin.ListJoinTokens, pb.ListJoinTokensRequest(), "join_tokens")
    found = [views.join_token(t) for t in held]
    if given.json:
        output.show_json({"tokens": found})
        return EXIT_OK
    output.show_table(
        ("ID", "FOR", "USES LEFT", "EXPIRES"),
        [(Cell(t["token_id"], "strong"), _kinds(t), str(t["uses_left"]), t["expires"] or "never") for t in found],
    )
    return EXIT_OK


def run_revoke(given: argparse.Namespace) -> int:
    from geniehive.v1 import admin_service_pb2 as pb

    with common.connected(given) as hive:
        hive.admin.RevokeJoinToken(pb.RevokeJoinTokenRequest(token_id=given.token_id))
    if given.json:
        output.show_json({"revoked": given.token_id})
    else:
        print(f"revoked {given.token_id}")
    return EXIT_OK


def _uses(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 10000")
    return int(text)
