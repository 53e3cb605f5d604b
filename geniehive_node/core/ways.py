"""How gateways reach an engine, and which path it wants.

    the engine                              gateways of this machine    of other machines
    needs a key, or has its API elsewhere,  relay                       relay
    or some of it
    listens on loopback                     direct, relay               relay
    answers at this machine's address too   direct, relay               direct, relay
    is on another machine                   direct, relay               direct, relay

The operator's word, direct or relay, strikes out the other.
"""

from typing import NamedTuple

from geniehive.rules.model import Value, Way
from geniehive.rules.operations import BY_PATH
from geniehive_node.core.looks import Choice, Source

STANDARD_BASE = "/v1"


class Reach(Value, frozen=True, kw_only=True):
    """What this machine's place in the network allows.

    no_relay: why the relay takes no requests, and what to do about it; empty if it does.
    near: whether a gateway may be on this machine. far: whether those of other machines may come here.
    """

    no_relay: str = ""
    near: bool = True
    far: bool = False


class Ways(NamedTuple):
    """In order of preference. `trouble`: why there is none, and what to do about it."""

    ways: tuple[Way, ...]
    trouble: str = ""


def of(source: Source, reach: Reach, outside: str | None = None, own_paths: bool = False) -> Ways:
    """The ways to a source.

    outside: the URL at which a loopback engine was found to answer other machines too. own_paths: the engine has some
    of the API at paths of its own.
    """
    directs, why_relay = _direct(source, reach, outside)
    if own_paths and not source.has_key:
        directs, why_relay = (), "it has some of its API at other paths than usual"
    if source.way is Choice.RELAY:
        directs, why_relay = (), "it was chosen (setting way)"
    relayed = () if source.way is Choice.DIRECT or reach.no_relay else (Way(reason=why_relay),)
    if directs or relayed:
        return Ways((*directs, *relayed))
    if source.way is Choice.DIRECT:
        return Ways((), f"it can't be reached directly: {why_relay}. Let the relay do it: way: auto, or --relay")
    return Ways((), f"it is reached by the relay only ({why_relay}), and {reach.no_relay}")


def _direct(source: Source, reach: Reach, outside: str | None) -> tuple[tuple[Way, ...], str]:
    """The direct ways, and what the relay is there for besides these."""
    if source.has_key:
        return (), "it needs a key, which stays on its node"
    if source.base_path != STANDARD_BASE:
        return (), f"its API is below {source.base_path or '/'}"
    if not source.loopback:
        return (Way(direct_url=source.url, reason="it needs no key"),), "where gateways cannot reach it themselves"
    ways = []
    if reach.near:
        ways.append(Way(direct_url=source.url, same_host_only=True, reason="it listens on loopback"))
    if outside is not None and reach.far:
        ways.append(Way(direct_url=outside, reason="it answers other machines too, and needs no key"))
        return tuple(ways), "where gateways cannot reach it themselves"
    return tuple(ways), "for gateways on other machines" if reach.near else "it listens on loopback"


def upstream_path(base_path: str, path: str) -> str | None:
    """The path an engine wants for a client's path; None if that is no API path.

    The base path takes the place of "/v1". Nothing is normalised: what is not exactly an API path is none.
    """
    if path not in BY_PATH:
        return None
    if base_path == STANDARD_BASE:
        return path
    return base_path + path.removeprefix(STANDARD_BASE)
