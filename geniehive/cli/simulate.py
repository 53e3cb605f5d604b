"""`geniehive simulate`: what a fleet costs its control, measured with pretended nodes."""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from geniehive.cli import common, credentials, daemons, output
from geniehive.kit import address, lifecycle, state
from geniehive.kit.errors import EXIT_FAILED, EXIT_OK, UserError

if TYPE_CHECKING:
    from geniehive.cli.common import Commands
    from geniehive.cli.fleet import Fleet, Reach, Shape
    from geniehive.cli.throwaway import ThrowAwayControl

# How long all nodes together may take to register, in seconds.
_PATIENCE = 120.0
# Between the last registration and the measurement: what a storm leaves behind is not what a standing fleet costs.
_SETTLE = 2.0
# Messages a second. With fewer, what control does in any case is most of what each seems to cost.
_TELLING = 100
# Beside a connection for each node.
_OTHER_FILES = 100
_ADVICE = "`geniehive hosts forget HOST --force` removes one"


class Plan(NamedTuple):
    """link: to an existing control; None: one of its own. token: to join that one with; else the node key."""

    shape: "Shape"
    seconds: float
    tls: bool
    restart: bool
    link: credentials.Link | None = None
    node_key: str | None = None
    token: str | None = None

    def __repr__(self) -> str:
        return f"Plan({self.shape}, {self.link})"


def add(commands: "Commands") -> None:
    made = common.add_command(
        commands,
        "simulate",
        "measure what many machines would cost control",
        run,
        "Measure what many machines would cost control: nodes that do not exist hold real sessions, a connection\n"
        "each. Unless --control names another, it starts a control of its own, which leaves nothing behind. The\n"
        "simulation itself takes about as much of a processor as control does.",
    )
    made.add_argument("--nodes", type=_count, default=100, metavar="N", help="machines (default 100)")
    made.add_argument("--services", type=_count, default=8, metavar="M", help="of each machine (default 8)")
    made.add_argument("--models", type=_count, default=3, metavar="K", help="of each service (default 3)")
    made.add_argument("--seconds", type=_seconds, default=10.0, metavar="S", help="how long to measure (default 10)")
    made.add_argument(
        "--interval", type=_seconds, default=1.0, metavar="S", help="between two messages of a machine (default 1)"
    )
    made.add_argument("--tls", action="store_true", help="over mutual TLS, each machine with a certificate of its own")
    made.add_argument("--restart", action="store_true", help="also kill control, and see all machines come back")
    existing = made.add_argument_group("an existing control, whose cluster sees these machines come and go")
    common.add_control_options(existing)
    existing.add_argument("--token", metavar="TOKEN", help="a join token with a use for each machine: by TLS")
    existing.add_argument(
        "--node-key-file",
        metavar="FILE",
        help="on this machine without a token (default: node.key of the state folder)",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text}: write a number from 1 to 100000")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.05 <= found <= 86400:
        raise argparse.ArgumentTypeError(f"{text}: write seconds, 0.05 or more")
    return found


def run(given: argparse.Namespace) -> int:
    daemons.require("control")
    # Children are started while gRPC runs, and take nothing of it along; it need not warn of that, nor of each of a
    # thousand connections that end.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from geniehive.cli.fleet import Shape

    shape = Shape(given.nodes, given.services, given.models, given.interval)
    files = lifecycle.allow_many_files()
    if files is not None and files < given.nodes + _OTHER_FILES:
        raise UserError(
            f"this system allows {files} open files, and {given.nodes} connections need more. Raise that (ulimit -n), "
            "or simulate fewer nodes"
        )
    plan = Plan(shape, given.seconds, given.tls or given.token is not None, given.restart)
    if given.control is None:
        for flag in ("key", "ca", "token", "node_key_file"):
            if getattr(given, flag) is not None:
                raise UserError(f"--{flag.replace('_', '-')} belongs to an existing control; name it by --control")
    else:
        plan = _existing(given, plan)
    found: dict[str, Any] = {}

    async def work(stop: lifecycle.Stop) -> None:
        found.update(await _unless_stopped(_simulate(plan, quiet=given.json), stop))

    code = lifecycle.run(work)
    if code != EXIT_OK:
        return code
    if given.json:
        output.show_json(found)
    else:
        output.show_lines(_lines(found))
    if found["left_behind"]:
        output.warn(f"control still knows the hosts {found['left_behind']}; {_ADVICE}")
    return EXIT_OK if found["complete"] else EXIT_FAILED


def _existing(given: argparse.Namespace, plan: Plan) -> Plan:
    if given.restart:
        raise UserError("--restart kills control, and is for a control of its own; leave out --control")
    if given.token is not None:
        return plan._replace(link=_link_beside_token(given), token=given.token)
    host, _ = address.split(given.control)
    if not address.is_loopback(host):
        raise UserError(
            f"{given.control} is not on this machine. Give a join token: "
            f"geniehive tokens create --uses {plan.shape.nodes} makes one"
        )
    if given.tls:
        raise UserError(
            f"--tls against an existing control needs a join token for {plan.shape.nodes} machines, --token"
        )
    link = credentials.control(given)
    file = given.node_key_file or credentials.folder(given) / "node.key"
    return plan._replace(link=link, node_key=state.read_secret(Path(file)))


def _link_beside_token(given: argparse.Namespace) -> credentials.Link:
    """For what an operator may do. Nodes need none of it: by the token they know control, and control them."""
    try:
        return credentials.control(given)
    except UserError:
        return credentials.Link(given.control, None, "nowhere")


async def _unless_stopped(work: Any, stop: lifecycle.Stop) -> dict[str, Any]:
    task, told = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, told), return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    if task.cancelled():
        raise UserError("stopped before the end", EXIT_FAILED)
    found: dict[str, Any] = task.result()
    return found


async def _simulate(plan: Plan, quiet: bool) -> dict[str, Any]:
    from geniehive.cli import fleet as fleets
    from geniehive.cli.throwaway import ThrowAwayControl

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    nodes = plan.shape.nodes
    async with AsyncExitStack() as stack:
        control = None
        if plan.link is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="geniehive-")))
            control = ThrowAwayControl(folder, plan.tls)
            await stack.enter_async_context(control)
            await control.ready()
            say(f"control runs as process {control.pid}")
        reach = await _reach(plan, control, say)
        found: dict[str, Any] = {"nodes": nodes, "services": plan.shape.services, "tls": plan.tls}
        await asyncio.sleep(0.5)
        before = control.usage() if control else None
        fleet = await stack.enter_async_context(fleets.Fleet(plan.shape, reach))
        found["message_bytes"] = fleet.load_bytes
        say(f"{nodes} nodes connect")
        found["storm"] = await _storm(fleet, control, time.monotonic())
        found["complete"] = fleet.registered == nodes
        if found["complete"]:
            await asyncio.sleep(_SETTLE)
            say(f"measuring for {plan.seconds:g} s")
            found["steady"] = await _steady(plan, fleet, control, reach)
            if control is not None and before is not None:
                rss = control.usage().rss
                found["memory"] = {"before": before.rss, "after": rss, "per_node": (rss - before.rss) / nodes}
            if control is not None and plan.restart:
                say("killing control")
                at = time.monotonic()
                control.kill()
                await control.ready()
                found["restart"] = {"away_seconds": round(time.monotonic() - at, 3)}
                found["restart"] |= await _storm(fleet, control, time.monotonic())
                found["complete"] = fleet.registered == nodes
        found["online"] = await _online(plan, control)
        found["left_behind"] = ""
        if control is None:
            await fleet.__aexit__()
            found["left_behind"] = await _forget(plan)
        return found


async def _reach(plan: Plan, control: "ThrowAwayControl | None", say: Any) -> "Reach":
    from geniehive.channels import NODE_KEY
    from geniehive.cli import fleet

    if not plan.tls:
        target = control.target if control else _link(plan).target
        key = state.read_secret(control.folder / "node.key") if control else plan.node_key
        assert key is not None
        return fleet.Reach(target, ((NODE_KEY, key),))
    token = await control.token(plan.shape.nodes) if control else plan.token
    joined = control.tls_target if control else _link(plan).target
    assert joined is not None
    assert token is not None
    begun = time.monotonic()
    made = await fleet.enroll(joined, token, plan.shape)
    say(f"{plan.shape.nodes} nodes enrolled in {time.monotonic() - begun:.2f} s (with one key for all)")
    return made


async def _storm(fleet: "Fleet", control: "ThrowAwayControl | None", begun: float) -> dict[str, Any]:
    """From `begun`, when all are to connect, until all are registered."""
    used, troubles, attempts = control.usage() if control else None, fleet.troubles.copy(), fleet.attempts
    if not attempts:
        fleet.connect()
    done = asyncio.create_task(fleet.until(fleet.shape.nodes, _PATIENCE))
    try:
        await asyncio.wait((done, fleet.failed), return_when=asyncio.FIRST_COMPLETED)
    finally:
        done.cancel()
    if fleet.failed.done():
        raise fleet.failed.result()
    seconds = time.monotonic() - begun
    found: dict[str, Any] = {
        "seconds": round(seconds, 3),
        "registered": fleet.registered,
        "retried": fleet.attempts - max(attempts, fleet.shape.nodes),
        "troubles": dict(fleet.troubles - troubles),
    }
    if used is not None and control is not None:
        found["control_ms_per_node"] = round(1e3 * (control.usage().cpu - used.cpu) / fleet.shape.nodes, 3)
    return found


async def _steady(plan: Plan, fleet: "Fleet", control: "ThrowAwayControl | None", reach: "Reach") -> dict[str, Any]:
    """What a standing fleet costs."""
    from geniehive.cli import fleet as fleets

    own = time.process_time()
    used, begun = control.usage() if control else None, time.monotonic()
    sent, troubles = fleet.sent, fleet.troubles.copy()
    papers = None if reach.papers is None else next(iter(reach.papers.values()))
    async with fleets.pulse(reach.target, papers) as felt:
        await asyncio.sleep(plan.seconds)
    wall, sent = time.monotonic() - begun, fleet.sent - sent
    found: dict[str, Any] = {
        "seconds": round(wall, 2),
        "messages": sent,
        "messages_per_second": round(sent / wall, 1),
        "sessions_lost": sum((fleet.troubles - troubles).values()),
        "troubles": dict(fleet.troubles - troubles),
        "simulator_cores": round((time.process_time() - own) / wall, 3),
    }
    for name, values in (("answer", felt.answers), ("simulator_lag", felt.lags)):
        for q in (0.5, 0.99):
            value = fleets.quantile(values, q)
            found[f"{name}_ms_p{q * 100:.0f}"] = None if value is None else round(1e3 * value, 2)
    if used is not None and control is not None:
        cpu = control.usage().cpu - used.cpu
        found["control_cores"] = round(cpu / wall, 4)
        found["control_us_per_message"] = round(1e6 * cpu / sent, 1) if sent else None
    return found


def _link(plan: Plan) -> credentials.Link:
    assert plan.link is not None
    return plan.link


async def _online(plan: Plan, control: "ThrowAwayControl | None") -> int | None:
    """How many hosts control says are online; None if it does not say."""
    from geniehive.client import connect
    from geniehive.failures import Refused
    from geniehive.v1.registry_service_pb2 import GetClusterHealthRequest

    link = control.link if control else _link(plan)
    if link.key is None:
        return None
    try:
        async with connect(link.target, key=link.key, ca=link.ca) as hive:
            return (await hive.registry.GetClusterHealth(GetClusterHealthRequest())).health.hosts_online
    except Refused:
        return None


async def _forget(plan: Plan) -> str:
    """Has control forget the hosts; those that it still knows, in words."""
    from geniehive.cli.fleet import host_ids
    from geniehive.client import connect
    from geniehive.failures import Refused
    from geniehive.v1.admin_service_pb2 import ForgetHostRequest

    ids, link = host_ids(plan.shape.nodes), _link(plan)
    if link.key is None:
        return f"{ids[0]} to {ids[-1]}"
    async with connect(link.target, key=link.key, ca=link.ca) as hive:
        for number, host_id in enumerate(ids):
            try:
                await hive.admin.ForgetHost(ForgetHostRequest(host_id=host_id))
            except Refused as error:
                output.warn(f"control does not forget {host_id}: {error}")
                return f"{ids[number]} to {ids[-1]}"
    return ""


# What people see.


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    what = f"{found['nodes']} nodes, {found['services']} services each"
    lines = [("fleet", f"{what}, TLS" if found["tls"] else what)]
    lines.append(("all connect at once", _storm_line(found["storm"])))
    if (steady := found.get("steady")) is not None:
        lines.append(("messages", f"{steady['messages_per_second']:.0f} a second of {found['message_bytes']} bytes"))
        if "control_cores" in steady:
            text = f"{steady['control_cores']:.3f} of a core"
            if steady["messages_per_second"] >= _TELLING:
                text += f", {steady['control_us_per_message']:.0f} us a message"
            lines.append(("control's processor", text))
    if (memory := found.get("memory")) is not None:
        text = f"{memory['after'] / 2**20:.0f} MiB, {memory['per_node'] / 2**10:.1f} KiB a node"
        lines.append(("control's memory", text))
    if steady is not None:
        p50, p99 = steady["answer_ms_p50"], steady["answer_ms_p99"]
        lines.append(("control answers in", f"{p50} ms (p50), {p99} ms (p99)"))
        lines.append(("sessions lost", f"{steady['sessions_lost']}{_words(steady['troubles'])}"))
        lag = f"{steady['simulator_cores']:.2f} of a core, {steady['simulator_lag_ms_p99']} ms late (p99)"
        lines.append(("the simulation itself", lag))
    if (restart := found.get("restart")) is not None:
        text = f"{_storm_line(restart)}; control was away for {restart['away_seconds']} s"
        lines.append(("after control's death", text))
    if found["online"] is not None:
        lines.append(("hosts online", str(found["online"])))
    return lines


def _storm_line(storm: dict[str, Any]) -> str:
    cost = (
        f", {storm['control_ms_per_node']} ms of control's processor a node" if "control_ms_per_node" in storm else ""
    )
    return (
        f"{storm['registered']} registered after {storm['seconds']:.2f} s, "
        f"{storm['retried']} retries{cost}{_words(storm['troubles'])}"
    )


def _words(troubles: dict[str, int]) -> str:
    return "".join(f"; {count} times {what}" for what, count in sorted(troubles.items()))
