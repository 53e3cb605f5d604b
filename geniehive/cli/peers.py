"""`geniehive credentials`: revoke what a node or gateway joined with."""

import argparse
from typing import TYPE_CHECKING

from geniehive.cli import common, output
from geniehive.kit.errors import EXIT_OK

if TYPE_CHECKING:
    from geniehive.cli.common import Commands


def add(commands: "Commands") -> None:
    inner = common.add_group(commands, "credentials", "revoke the certificate of a node or gateway")
    revoke = common.add_command(
        inner,
        "revoke",
        "revoke the certificates of one node or gateway; its daemon ends at once",
        run_revoke,
        "Revoke the certificates of one node or gateway. Its streams and connections end at once, and it must join\n"
        "again. A node's host stays known; `geniehive hosts forget` removes that too.",
    )
    revoke.add_argument("kind", choices=("node", "gateway"), help="what it is")
    revoke.add_argument("peer", metavar="ID", help="its id, as `geniehive status` shows it")
    common.add_control_options(revoke)


def run_revoke(given: argparse.Namespace) -> int:
    from geniehive.v1 import admin_service_pb2 as pb
    from geniehive.v1.credential_pb2 import PeerKind

    kind = PeerKind.Value(f"PEER_KIND_{given.kind.upper()}")
    with common.connected(given) as hive:
        hive.admin.RevokeCredential(pb.RevokeCredentialRequest(kind=kind, peer_id=given.peer))
    if given.json:
        output.show_json({"revoked": {"kind": given.kind, "id": given.peer}})
    else:
        print(f"revoked the certificates of {given.kind} {given.peer}; to come back it must join again")
    return EXIT_OK
