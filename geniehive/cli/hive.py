"""Control, gateway and node of this machine under one supervisor: what `geniehive up` runs.

The node looks for engines first. It was told from the start where a demonstration engine would be; if its first look
finds no model to chat with, that engine is started, and the node sees it like any other.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geniehive import trust
from geniehive.cli import banner, children, install, invite, output, ports, probe
from geniehive.cli.children import Children, Place
from geniehive.cli.demo import Demo, Wanted
from geniehive.cli.urls import Urls
from geniehive.failures import Refused
from geniehive.kit import address, state
from geniehive.kit.errors import UserError
from geniehive.kit.lifecycle import Stop
from geniehive.kit.notices import send
from geniehive.kit.supervise import Ended


@dataclass(frozen=True)
class Plan:
    """What to run. addresses: by flag, as up.addresses gives them. engines, providers: as the node's settings.

    way: as the node's setting; None: its default. advertise: this machine as others know it; None: found out.
    certificate: the gateway's settings of HTTPS; empty: HTTP.
    """

    state: Path
    addresses: Mapping[str, str]
    engines: Sequence[Mapping[str, Any]] = ()
    providers: Sequence[Mapping[str, Any]] = ()
    embedded: Wanted = "auto"
    way: str | None = None
    advertise: str | None = None
    certificate: Mapping[str, str] = field(default_factory=dict)
    verbose: bool = False
    as_json: bool = False


class Hive:
    def __init__(self, plan: Plan, stop: Stop) -> None:
        self._plan = plan
        self._children = Children(Place(plan.state, "up", plan.verbose), stop, self._on_notice, self._bears)
        self._at: dict[str, str] = {}
        self._demo: Demo
        self._announced = False

    async def run(self) -> None:
        """Until told to stop. UserError if it can't start, or can't go on."""
        plan = self._plan
        async with self._children:
            if (control := trust.control(plan.state)) is not None:
                raise UserError(
                    f"this machine has joined a cluster, whose control is {control}: `geniehive join` runs it. To have "
                    "a cluster of its own it must leave that one first (geniehive leave), or have another folder: "
                    "--state-dir DIR"
                )
            wanted = dict(plan.addresses)
            if plan.embedded == "never":
                del wanted["--embedded-listen"]
            self._at = await self._children.settle(wanted, yielding="--embedded-listen")
            self._demo = Demo(self._children, plan.embedded, self._at.get("--embedded-listen"))
            for name, prefix in (("node.key", "ghn"), ("admin.key", "gha"), ("client.key", "ghc")):
                state.local_secret(plan.state / name, prefix)
            self._urls = Urls.of(self._at["--listen"], plan.certificate.get("tls.cert"), plan.advertise)
            self._children.write_up_file(
                control=self._control, gateway=self._urls.people, tls=self._at.get("--tls-listen")
            )
            children.say("starting control, gateway and node" + self._children.place.where_logs_are)
            for name, module, settings in self._daemons():
                self._children.daemon(name, module, settings)
            self._demo.begin()
            await self._children.live(self._announce())

    @property
    def _control(self) -> str:
        """Where control is reached on this machine."""
        return ports.for_clients(self._at["--control-listen"])

    def _daemons(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Name, module and settings of each."""
        plan, at = self._plan, self._at
        control: dict[str, Any] = {"listen": at["--control-listen"]}
        if "--tls-listen" in at:
            control |= {"tls.listen": at["--tls-listen"], "tls.peers_port": address.split(at["--peers-port"])[1]}
            if plan.advertise is not None:
                control["tls.advertise"] = [address.join(plan.advertise, address.split(at["--tls-listen"])[1])]
        gateway = {
            "listen": at["--listen"],
            "control": self._control,
            "drain_timeout": children.DRAIN_SECONDS,
            **plan.certificate,
        }
        node: dict[str, Any] = {"control": self._control, "relay.listen": at["--relay-listen"]}
        if plan.advertise is not None:
            node["relay.advertise"] = plan.advertise
        if plan.way is not None:
            node["way"] = plan.way
        if engines := [*map(dict, plan.engines), *self._demo.engines]:
            node["engines+"] = engines
        if plan.providers:
            node["providers+"] = list(plan.providers)
        return [
            ("control", "geniehive_control", control),
            ("gateway", "gateway", gateway),
            ("node", "geniehive_node", node),
        ]

    def _on_notice(self, name: str, notice: Mapping[str, Any]) -> None:
        self._demo.on_notice(name, notice)

    def _bears(self, event: Ended) -> bool:
        if event.name == "demo":
            self._demo.on_end(event)
            return True
        if event.name == "node" and self._announced:
            children.warn_of(event, ", and stays away; everything else runs on", self._children.place)
            return True
        return False

    # Telling.

    def _missing(self) -> list[str]:
        """What is still to come before the user can be told how to use it."""
        wanted = {
            ("control", "ready"): "control listens",
            ("gateway", "serving"): "the gateway has its routing table",
            ("node", "first_look"): "the node has looked for engines",
            ("node", "registered"): "the node is registered",
        }
        missing = [what for key, what in wanted.items() if key not in self._children.heard]
        if self._demo.loading:
            missing.append("the demo engine has loaded its model")
        return missing

    async def _announce(self) -> None:
        await self._children.until_none(self._missing)
        key = state.local_secret(self._plan.state / "client.key", "ghc")
        models = await self._models(key)
        invitation = await self._invite()
        self._announced = True
        if "--tls-listen" not in self._at and (self._plan.state / trust.CA_KEY).exists():
            output.warn("machines that have joined can't reach this one: that takes --lan, or --tls-listen ADDR")
        self._show(key, models, invitation)
        send("ready", daemon="up", url=self._urls.people, control=self._control)

    @property
    def _look(self) -> Mapping[str, Any]:
        """What the node's first look found."""
        return self._children.heard.get(("node", "first_look"), {})

    async def _models(self, key: str) -> list[banner.Model]:
        """What the gateway lists, once there is a model to chat with, if one is to be expected."""
        if self._children.heard.get(("gateway", "serving"), {}).get("source") == "kept":
            await probe.until_current(self._control, self._plan.state)
        expected = self._demo.expected or bool(self._look.get("chat_models"))
        models, waited = await probe.settled_models(self._urls.local, self._urls.trusting, key, expected)
        if waited:
            output.warn("no model to chat with is routed to yet; `geniehive status` says why")
        return models

    async def _invite(self) -> invite.Invitation | None:
        """For other machines; None if none can join, or control gives no token."""
        if "--tls-listen" not in self._at:
            return None
        try:
            return await invite.make(self._control, self._plan.state)
        except Refused as error:
            output.warn(f"there is no join token: {error}. `geniehive tokens create` makes one later")
            return None

    def _show(self, key: str, models: Sequence[banner.Model], invitation: invite.Invitation | None) -> None:
        if self._plan.as_json:
            content: dict[str, Any] = {
                "gateway": self._urls.people,
                "base_url": f"{self._urls.people}/v1",
                "base_url_elsewhere": self._urls.elsewhere and f"{self._urls.elsewhere}/v1",
                "control": self._control,
                "key": key,
                "state_dir": str(self._plan.state),
                "models": [m.name for m in models],
                "demo_trouble": self._demo.trouble or None,
                "engine_troubles": self._look.get("troubles") or {},
                "join": None,
            }
            if invitation is not None:
                content["join"] = {
                    "token": invitation.token,
                    "addresses": list(invitation.where),
                    "line": banner.join_line(invitation.where, invitation.token),
                    "install": install.here().line,
                }
            print(json.dumps(content, ensure_ascii=False), flush=True)
            return
        troubles = self._look.get("troubles") or {}
        notes = [*self._demo.notes, *children.trouble_notes(troubles)]
        if banner.to_show(models) is None and not troubles:
            notes.append(
                "No model to chat with was found. Start an engine on this machine, such as Ollama, and it is found by "
                "itself;\nor name one: geniehive up --engine URL"
            )
        joining = () if invitation is None else banner.joining(install.here(), invitation)
        folder = str(self._plan.state)
        urls = self._urls
        print(banner.text(urls.people, key, folder, models, notes, urls.elsewhere, joining), flush=True)
