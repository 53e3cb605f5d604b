"""`geniehive hosts`: list, forget."""

import argparse
from typing import TYPE_CHECKING

from geniehive.cli import common, output, status
from geniehive.cli.output import Cell
from geniehive.kit.errors import EXIT_OK, UserError

if TYPE_CHECKING:
    from geniehive.cli.common import Commands


def add(commands: "Commands") -> None:
    inner = common.add_group(commands, "hosts", "list hosts, forget one")
    common.add_control_options(common.add_command(inner, "list", "list the machines that run a node", run_list))
    forget = common.add_command(
        inner,
        "forget",
        "forget a host and all it offers",
        run_forget,
        "Forget a host that is gone for good, and all it offered. The certificates of a machine that joined are\n"
        "revoked, so that it can come back only by a new join token. A host that is online is not forgotten unless\n"
        "--force is given; its node daemon then ends. On control's own machine it is back when that is started again.",
    )
    forget.add_argument("host", metavar="HOST", help="its id, as `geniehive hosts list` shows it")
    forget.add_argument("--force", action="store_true", help="also if it is online; its node daemon ends")
    common.add_control_options(forget)


def run_list(given: argparse.Namespace) -> int:
    from geniehive.cli import views

    with common.connected(given) as hive:
        found = [views.host(h) for h in hive.list_hosts()]
    if given.json:
        output.show_json({"hosts": found})
        return EXIT_OK
    output.show_table(
        ("HOST", "NAME", "STATE", "WHY", "SEEN", "SYSTEM", "THREADS", "MEMORY"),
        [
            (
                Cell(h["host_id"], "strong"),
                h["display_name"],
                status.state_cell(h["condition"]),
                views.why(h["condition"]),
                views.ago(h["last_seen"]),
                " ".join(filter(None, (h["os"], h["architecture"]))),
                "" if h["cpu_threads"] is None else str(h["cpu_threads"]),
                "" if h["memory_bytes"] is None else f"{h['memory_bytes'] / 2**30:.1f} GiB",
            )
            for h in found
        ],
    )
    return EXIT_OK


def run_forget(given: argparse.Namespace) -> int:
    from geniehive.v1 import admin_service_pb2 as pb
    from geniehive.v1 import registry_pb2, registry_service_pb2

    with common.connected(given) as hive:
        if not given.force:
            found = hive.registry.GetHost(registry_service_pb2.GetHostRequest(host_id=given.host))
            if found.host.condition.availability != registry_pb2.AVAILABILITY_OFFLINE:
                raise UserError(
                    f"{given.host} is online. Stop its node first (if the machine joined: `geniehive leave`), or give "
                    "--force: its node then ends, and is not started again by itself"
                )
        hive.admin.ForgetHost(pb.ForgetHostRequest(host_id=given.host))
    if given.json:
        output.show_json({"forgotten": given.host})
    else:
        print(f"forgot {given.host}")
    return EXIT_OK
