"""What the relay answers when control, or a gateway, asks whether one of its engines is well."""

from geniehive.kit.http1 import Client, Timeouts
from geniehive.rules import probe_paths
from geniehive_node.core.looks import LookFailed, Trouble
from geniehive_node.door import Refusal
from geniehive_node.engines.ask import Asker, Target

# Less than control waits for the relay.
_PATIENCE = Timeouts(connect=1.0, first_byte=2.0, idle=1.0, total=2.5)
_WORDS = {Trouble.UNREACHABLE: (502, "connect-failed"), Trouble.SLOW: (504, "timeout")}
_BROKE = 502, "upstream-broke"


async def ailment(client: Client, target: Target) -> Refusal | None:
    """Asks the engine by its cheapest path, with its key. None: it is well."""
    asked = probe_paths.question(target.runtime)
    asker = Asker(client, target, _PATIENCE)
    try:
        answer = await (asker.models() if asked.path is None else asker.get(asked.path))
    except LookFailed as error:
        status, word = _WORDS.get(error.trouble, _BROKE)
        return Refusal(status, word, error.message)
    found = probe_paths.ailment(asked, answer.status, answer.body)
    return None if found is None else Refusal(502, "unwell", f"the engine is not well: {found}")
