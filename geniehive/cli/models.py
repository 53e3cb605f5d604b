"""`geniehive models`: what can be asked."""

import argparse
from typing import TYPE_CHECKING, Any

from geniehive.cli import common, output
from geniehive.cli.output import Cell
from geniehive.kit.errors import EXIT_OK

if TYPE_CHECKING:
    from geniehive.cli.common import Commands


def add(commands: "Commands") -> None:
    made = common.add_command(
        commands,
        "models",
        'list the names that clients may write in "model"',
        run,
        'List the names that clients may write in "model", and who serves them.',
    )
    made.add_argument("--all", action="store_true", help='also the names of services, "host/service"')
    common.add_control_options(made)


def run(given: argparse.Namespace) -> int:
    from geniehive.cli import views

    with common.connected(given) as hive:
        routes = hive.list_routes()
        services = hive.list_services()
    known = {view["service"]: view for view in map(views.service, services)}
    found = [views.model(route, known) for route in routes]
    if not given.all:
        found = [m for m in found if m["kinds"] != ["service"]]
    if given.json:
        output.show_json({"models": found})
    elif found:
        show(found)
    else:
        print("no models yet: start an engine on one of the hosts, or see `geniehive status`")
    return EXIT_OK


def show(found: list[dict[str, Any]]) -> None:
    output.show_table(
        ("MODEL", "KIND", "FOR", "LOADED", "CONTEXT", "SERVED BY", "NOTES"),
        [
            (
                Cell(m["model"], "strong" if m["usable"] else "dim"),
                # The contract calls a model an asset, which says nothing to people.
                ", ".join("model" if kind == "asset" else kind for kind in m["kinds"]),
                ", ".join(m["operations"]),
                _loaded(m["load_state"]),
                "" if m["context_tokens"] is None else str(m["context_tokens"]),
                ", ".join(o["service"] for o in m["services"]),
                _notes(m),
            )
            for m in found
        ],
    )


def _loaded(state: str) -> Cell:
    words = {"loaded": "yes", "unloaded": "no", "unknown": ""}
    return Cell(words.get(state, state), {"loaded": "good", "failed": "bad"}.get(state, ""))  # type: ignore[arg-type]


def _notes(model: dict[str, Any]) -> Cell:
    notes = []
    if model["demo"]:
        notes.append("demo model")
    if model["hosted"]:
        notes.append("hosted")
    if model["choose_from"]:
        notes.append("several models; write one of their names")
    elif not model["usable"]:
        reasons = dict.fromkeys(o["why"] for o in model["services"] if o["why"])
        notes.append("nobody serves it now" + (f": {'; '.join(reasons)}" if reasons else ""))
    return Cell("; ".join(notes), "" if model["usable"] else "warn")
