"""Node, and gateway if wanted, of a machine that joined, under one supervisor: what `geniehive join` runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geniehive.cli import banner, children, enrol, servers
from geniehive.cli.children import Children, Place
from geniehive.cli.demo import Demo
from geniehive.cli.kept import Options
from geniehive.cli.urls import Urls
from geniehive.kit import address
from geniehive.kit.errors import EXIT_REFUSED, UserError
from geniehive.kit.lifecycle import Stop
from geniehive.kit.notices import send
from geniehive.kit.supervise import Ended
from geniehive.membership import Cluster
from geniehive.rules.identity import PeerKind
from geniehive.rules.join_token import JoinToken


@dataclass(frozen=True)
class Plan:
    """What was asked for. where: control, token, name: None if not given. options: kept for the next start."""

    state: Path
    where: str | None
    token: JoinToken | None
    name: str | None
    options: Options
    verbose: bool = False
    as_json: bool = False


class Member:
    def __init__(self, plan: Plan, stop: Stop) -> None:
        self._plan = plan
        self._children = Children(Place(plan.state, "join", plan.verbose), stop, self._on_notice, self._bears)
        self._at: dict[str, str] = {}
        self._demo: Demo
        self._urls: Urls | None = None
        self._cluster: Cluster
        self._announced = False

    async def run(self) -> None:
        """Joins if need be, then runs until told to stop. UserError if it can't join, start or go on."""
        plan, options = self._plan, self._plan.options
        kinds = [PeerKind.NODE, *([PeerKind.GATEWAY] if options.gateway else [])]
        engines, providers = servers.split(list(options.servers))
        certificate = servers.certificate(options.cert, options.key)
        async with self._children:
            if (control := self._control()) is not None:
                # First: an attempt that can't succeed costs no use of the token.
                self._at = await self._children.settle(self._wanted(control), yielding="--embedded-listen")
            self._cluster = await enrol.ensure(plan.state, plan.where, plan.token, plan.name, kinds)
            self._keep_options()
            self._demo = Demo(
                self._children, "always" if options.embedded else "never", self._at.get("--embedded-listen")
            )
            if options.gateway:
                self._urls = Urls.of(self._at["--listen"], certificate.get("tls.cert"), options.advertise)
            self._children.write_up_file(
                control=self._cluster.control, gateway=self._urls.people if self._urls else None
            )
            node: dict[str, Any] = {"relay.listen": self._at["--relay-listen"]}
            if options.advertise is not None:
                node["relay.advertise"] = options.advertise
            if options.way is not None:
                node["way"] = options.way
            if found := [*engines, *self._demo.engines]:
                node["engines+"] = found
            if providers:
                node["providers+"] = providers
            what = "node and gateway" if options.gateway else "node"
            children.say(f"starting {what}{self._children.place.where_logs_are}")
            self._children.daemon("node", "geniehive_node", node)
            if options.gateway:
                listen = {"listen": self._at["--listen"], "drain_timeout": children.DRAIN_SECONDS}
                self._children.daemon("gateway", "gateway", {**listen, **certificate})
            self._demo.begin()
            try:
                await self._children.live(self._announce())
            except UserError as error:
                if error.exit_code != EXIT_REFUSED or Cluster.load(plan.state) is not None:
                    raise
                # `geniehive leave` had it end.
                children.say("this machine has left the cluster")

    def _keep_options(self) -> None:
        try:
            self._plan.options.save(self._plan.state)
        except OSError as error:
            raise UserError(
                f"cannot write into {self._plan.state}: {error.strerror}. Choose another folder: --state-dir DIR"
            ) from error

    def _control(self) -> str | None:
        """Control's address; None if this machine has not joined, and is not told where to."""
        if self._plan.where is not None:
            return enrol.complete(self._plan.where)
        cluster = Cluster.load(self._plan.state)
        return None if cluster is None else cluster.control

    def _wanted(self, control: str) -> dict[str, str]:
        """Addresses by flag."""
        options = self._plan.options
        host, _ = address.split(control)
        # On all addresses, of the kind by which control is reached.
        wanted = {"--relay-listen": options.relay_listen or f"{'[::]' if ':' in host else '0.0.0.0'}:8803"}
        if options.gateway:
            wanted["--listen"] = options.listen
        if options.embedded:
            wanted["--embedded-listen"] = options.embedded_listen
        return wanted

    def _on_notice(self, name: str, notice: Mapping[str, Any]) -> None:
        self._demo.on_notice(name, notice)

    def _bears(self, event: Ended) -> bool:
        if event.name == "demo":
            self._demo.on_end(event)
            return True
        if event.name == "node" and self._announced and self._children.keeps("gateway"):
            children.warn_of(event, ", and stays away; the gateway runs on", self._children.place)
            return True
        return False

    # Telling.

    def _missing(self) -> list[str]:
        """What is still to come before the user can be told that this machine takes part."""
        wanted = {
            ("node", "first_look"): "the node has looked for engines",
            ("node", "registered"): f"the node is registered at control ({self._cluster.peers})",
        }
        if self._plan.options.gateway:
            wanted["gateway", "serving"] = "the gateway has its routing table"
        missing = [what for key, what in wanted.items() if key not in self._children.heard]
        if self._demo.loading:
            missing.append("the demo engine has loaded its model")
        return missing

    async def _announce(self) -> None:
        await self._children.until_none(self._missing)
        self._announced = True
        heard = self._children.heard
        look = heard["node", "first_look"]
        # By another name than the one it joined by, if it turned out to be a clone.
        host_id = str(heard["node", "registered"].get("host_id") or self._cluster.host_id)
        troubles = look.get("troubles") or {}
        engines = [str(engine) for engine in look.get("engines") or ()]
        urls = self._urls
        if self._plan.as_json:
            content = {
                "host_id": host_id,
                "cluster_id": self._cluster.cluster_id,
                "control": self._cluster.control,
                "gateway": urls and urls.people,
                "base_url": urls and f"{urls.people}/v1",
                "base_url_elsewhere": f"{urls.elsewhere}/v1" if urls and urls.elsewhere else None,
                "state_dir": str(self._plan.state),
                "engines": engines,
                "demo_trouble": self._demo.trouble or None,
                "engine_troubles": troubles,
            }
            print(json.dumps(content, ensure_ascii=False), flush=True)
        else:
            notes = [*self._demo.notes, *children.trouble_notes(troubles)]
            if not engines and not troubles and not self._demo.expected:
                notes.append(
                    "No engine was found. Start one on this machine, such as Ollama, and it is found by itself;\n"
                    "or name one: geniehive join --engine URL"
                )
            printed = banner.member_text(
                host_id,
                self._cluster.control,
                str(self._plan.state),
                engines,
                notes,
                urls.people if urls else None,
                urls.elsewhere if urls else None,
            )
            print(printed, flush=True)
        send("ready", daemon="join", host_id=host_id, control=self._cluster.control)
