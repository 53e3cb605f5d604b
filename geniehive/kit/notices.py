"""What a daemon tells its supervisor: one JSON object a line on standard output, which logs never use.

A notice is `{"notice": kind, ...}`. Kinds: "ready" (with the addresses that were bound), and a daemon's own, such as
the node's "first_look". Off unless the environment has GENIEHIVE_NOTICES=1, so that a daemon started by hand prints
nothing but its log.
"""

import json
import os
import sys
from typing import Any

VARIABLE = "GENIEHIVE_NOTICES"


def send(kind: str, **fields: Any) -> None:
    """Tells the supervisor, if there is one."""
    if os.environ.get(VARIABLE) != "1":
        return
    try:
        print(json.dumps({"notice": kind, **fields}), flush=True)
    except (BrokenPipeError, ValueError):
        # The supervisor is gone; this process is about to be told so.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - stays open for the rest of the process


def parse(line: bytes) -> dict[str, Any] | None:
    """The notice in a line of a child's standard output; None if it is something else."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("notice"), str) else None
