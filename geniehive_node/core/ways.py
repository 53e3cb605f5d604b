"""How gateways reach an engine, and which path it wants."""

from geniehive.rules.model import Way
from geniehive.rules.operations import BY_PATH
from geniehive_node.core.looks import Source

STANDARD_BASE = "/v1"


def of(source: Source) -> tuple[Way, ...]:
    """The ways to a source, in order of preference."""
    if source.has_key:
        return (Way(reason="it needs a key, which stays on its node"),)
    if source.base_path != STANDARD_BASE:
        return (Way(reason=f"its API is below {source.base_path or '/'}"),)
    if source.loopback:
        direct = Way(direct_url=source.url, same_host_only=True, reason="it listens on loopback")
        return (direct, Way(reason="for gateways on other machines"))
    return (Way(direct_url=source.url), Way(reason="where gateways cannot reach it themselves"))


def upstream_path(base_path: str, path: str) -> str | None:
    """The path an engine wants for a client's path; None if that is no API path.

    The base path takes the place of "/v1". Nothing is normalised: what is not exactly an API path is none.
    """
    if path not in BY_PATH:
        return None
    if base_path == STANDARD_BASE:
        return path
    return base_path + path.removeprefix(STANDARD_BASE)
