"""What `geniehive up` and `join` print once everything runs."""

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geniehive.cli.install import Install
    from geniehive.cli.invite import Invitation


@dataclass(frozen=True)
class Model:
    """An entry of the gateway's /v1/models."""

    name: str
    demo: bool = False
    # Empty: the gateway did not say.
    operations: tuple[str, ...] = ()
    kind: str = ""
    # Somebody takes requests for it now.
    available: bool = True

    @property
    def chats(self) -> bool:
        """Whether it can be chatted with now."""
        return self.available and ("chat" in self.operations or not self.operations)


def read_models(content: Any) -> list[Model]:
    """The entries of an answer of /v1/models; entries of other shapes are left out."""
    found = []
    entries = content.get("data") if isinstance(content, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            continue
        ours = entry.get("geniehive")
        ours = ours if isinstance(ours, dict) else {}
        operations = ours.get("operations")
        found.append(
            Model(
                name=entry["id"],
                demo=bool(ours.get("demo")),
                operations=tuple(o for o in operations if isinstance(o, str)) if isinstance(operations, list) else (),
                kind=str(ours.get("kind", "")),
                available=ours.get("available") is not False,
            )
        )
    return found


def to_show(models: Sequence[Model]) -> Model | None:
    """The model to try first: one to chat with, a real one before the demo, a model's name before a service's."""
    return min((m for m in models if m.chats), key=lambda m: (m.demo, m.kind == "service"), default=None)


def curl(gateway: str, key: str, model: Model | None) -> str:
    """One line to paste into a shell. Without a model it lists them."""
    authorization = f"-H {shlex.quote(f'Authorization: Bearer {key}')}"
    if model is None:
        return f"curl {gateway}/v1/models {authorization}"
    body: dict[str, Any] = {"model": model.name, "messages": [{"role": "user", "content": "Say hello."}]}
    if model.demo:
        # So small a model does not always find an end by itself.
        body["max_tokens"] = 64
    return (
        f"curl {gateway}/v1/chat/completions {authorization} -H 'Content-Type: application/json' "
        f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )


def command() -> str:
    """What to type to run this program: after `make up` it is not in the path."""
    here = Path(sys.argv[0])
    if here.name != "geniehive" or shutil.which("geniehive"):
        return "geniehive"
    try:
        return str(here.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(here.absolute())


def join_line(where: Sequence[str], token: str, gateway: bool = False) -> str:
    """What to type on a machine that is to join. where: addresses of control, the likeliest first."""
    return f"geniehive join {where[0] if where else 'HOST:PORT'} --token {token}{' --gateway' if gateway else ''}"


def joining(how: "Install", invitation: "Invitation") -> list[str]:
    """How another machine joins, in lines."""
    from geniehive.cli import invite

    others = f" If control is not reached there: {', '.join(invitation.where[1:])}." if invitation.where[1:] else ""
    first = f"To add a machine, install GenieHive there (pipx or uv tool) and join. {how.before}".rstrip()
    return [
        first,
        "",
        f"  {how.line}",
        f"  {join_line(invitation.where, invitation.token)}",
        "",
        f"The token is good for {invite.USES} machines and {invite.HOURS} hours; `{command()} tokens create` makes "
        f"others.{others}",
    ]


def text(
    gateway: str,
    key: str,
    folder: str,
    models: Sequence[Model],
    notes: Sequence[str],
    elsewhere: str | None = None,
    join: Sequence[str] = (),
) -> str:
    """Of `up`. elsewhere: the gateway's URL for other machines. join: as `joining` gives it."""
    shown = to_show(models)
    names = [m.name + (" (demo model)" if m.demo else "") for m in models if m.kind != "service"]
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    lines = [
        "",
        "GenieHive is up.",
        "",
        f"  base URL    {gateway}/v1",
        *([f"  elsewhere   {elsewhere}/v1"] if elsewhere and elsewhere != gateway else []),
        f"  client key  {key}",
        f"  state       {folder}",
        f"  models      {listed or 'none yet'}",
        "",
        *(line for note in notes for line in (note, "")),
        "Try it:",
        "",
        curl(gateway, key, shown),
        "",
        *([*join, ""] if join else []),
        f"`{command()} status` and `{command()} models` show more. Ctrl-C stops everything.",
    ]
    return "\n".join(lines)


def member_text(
    host_id: str,
    control: str,
    folder: str,
    engines: Sequence[str],
    notes: Sequence[str],
    gateway: str | None = None,
    elsewhere: str | None = None,
) -> str:
    """Of `join`. gateway: this machine's, if it has one."""
    lines = [
        "",
        f"This machine is {host_id} of the cluster of {control}.",
        "",
        *([f"  base URL    {gateway}/v1"] if gateway else []),
        *([f"  elsewhere   {elsewhere}/v1"] if elsewhere and elsewhere != gateway else []),
        f"  engines     {', '.join(engines) or 'none yet'}",
        f"  state       {folder}",
        "",
        *(line for note in notes for line in (note, "")),
        *(["Client keys are made on control's machine: geniehive keys create NAME", ""] if gateway else []),
        f"After a reboot `{command()} join` is enough; `{command()} leave` ends the membership. "
        "Ctrl-C stops everything.",
    ]
    return "\n".join(lines)
