"""`geniehive leave`: ends the membership that `join` began."""

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from geniehive.cli import children, common, credentials, daemons, kept, output
from geniehive.kit.errors import EXIT_OK, UserError

if TYPE_CHECKING:
    from geniehive.cli.common import Commands
    from geniehive.membership import Cluster

_CALL_SECONDS = 10.0


def add(commands: "Commands") -> None:
    made = common.add_command(
        commands,
        "leave",
        "leave the cluster that this machine has joined",
        run,
        "Leave the cluster that this machine has joined: control forgets it and revokes its certificates, and what\n"
        "`geniehive join` kept here is removed. A `geniehive join` that runs ends.",
    )
    made.add_argument("--force", action="store_true", help="also if control can't be reached: only forget it here")


def run(given: argparse.Namespace) -> int:
    daemons.require("node")
    from geniehive import membership

    folder = credentials.folder(given).absolute()
    try:
        cluster = membership.Cluster.load(folder)
    except UserError:
        if not given.force:
            raise
        cluster = None
    if cluster is None and not (given.force and _has_traces(folder)):
        raise UserError(f"this machine has not joined a cluster (state folder {folder}); there is nothing to leave")
    told = False
    if cluster is not None:
        try:
            asyncio.run(_tell(folder, cluster))
            told = True
        except UserError as error:
            if not given.force:
                said = str(error) if str(error).endswith("?") else f"{error}."
                raise UserError(
                    f"{said} `geniehive leave --force` forgets the cluster here all the same", error.exit_code
                ) from error
            output.warn(str(error))
    if not told:
        _check_nothing_runs(folder)
    try:
        membership.forget(folder)
        (folder / kept.FILE).unlink(missing_ok=True)
        # The table of a gateway here: it names what the cluster has, and the hashes of its keys.
        (folder / "gateway" / "table.pb").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot remove {error.filename}: {error.strerror}") from error
    host = cluster.host_id if cluster is not None else None
    if given.json:
        output.show_json({"left": host, "told_control": told})
    elif told and cluster is not None:
        print(f"left the cluster of {cluster.control}, of which this machine was {host}")
    else:
        print(f"forgot the cluster here; control still knows this machine: geniehive hosts forget {host or 'HOST'}")
    return EXIT_OK


def _has_traces(folder: Path) -> bool:
    return (folder / "tls" / "cluster.json").exists()


def _check_nothing_runs(folder: Path) -> None:
    """Daemons that control does not end would go on with what is about to be removed."""
    from geniehive.kit.lock import FileLock, Locked

    try:
        with FileLock(folder / children.LOCK_FILE):
            pass
    except Locked:
        raise UserError("`geniehive join` still runs here; stop it first") from None
    except OSError as error:
        raise UserError(f"cannot lock {folder}: {error.strerror}") from error


async def _tell(folder: Path, cluster: "Cluster") -> None:
    """Has control revoke what this machine holds. UserError if it can't be told."""
    import grpc

    from geniehive import channels, failures
    from geniehive.cli import enrol
    from geniehive.membership import Credential
    from geniehive.rules.identity import PeerKind
    from geniehive.v1.failure_pb2 import FailureReason
    from geniehive.v1.node_service_pb2 import LeaveRequest
    from geniehive.v1.node_service_pb2_grpc import NodeServiceStub

    # The node last: with it goes the host.
    for kind in (PeerKind.GATEWAY, PeerKind.NODE):
        credential = Credential(folder, kind)
        if kind is PeerKind.NODE and (trouble := enrol.trouble(credential)) is not None:
            raise UserError(
                f"control can't be told: the certificate of this machine's node {trouble}", common.EXIT_UNREACHABLE
            )
        link = credential.link
        if link is None or enrol.trouble(credential) is not None:
            continue
        async with channels.aio_channel(cluster.peers, link) as channel:
            try:
                await NodeServiceStub(channel).Leave(LeaveRequest(), timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as failed:
                error = failures.from_rpc_error(failed)
                if error.reason != FailureReason.FAILURE_REASON_CREDENTIAL_REVOKED:
                    raise await enrol.explained(error, cluster.peers, link) from error
