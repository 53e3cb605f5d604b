"""The time after control's own restart in which no gateway may be told what only the restart did.

NodeService.Session step 10 and RoutingService.WatchRoutes step 6: until a host has registered again, or the grace ends,
nothing of it is removed from a gateway's table, and no upstream of it stops being routable. What left control's own
table meanwhile did so by a registered node's doing or an operator's, and is told at once.
"""

from collections.abc import Callable

from geniehive.rules.model import Resource, Upstream


class Grace:
    """`ends`: on the clock that only grows. `has_registered`: whether a host sent an inventory since the restart."""

    def __init__(self, ends: float, has_registered: Callable[[str], bool]) -> None:
        self.ends = ends
        self._has_registered = has_registered
        self._dropped: set[str] = set()
        self._forgotten: set[str] = set()

    def drop(self, names: set[str]) -> None:
        """These resources left control's table."""
        self._dropped |= names

    def forget(self, host_id: str) -> None:
        """An operator's doing."""
        self._forgotten.add(host_id)

    def withholds(self, name: str, resource: Resource | None) -> bool:
        """Whether a gateway that holds this resource must not be told yet that it became so; None: vanished."""
        kind, _, rest = name.partition("/")
        # Of keys nothing is presumed.
        if kind == "key" or name in self._dropped:
            return False
        if kind == "route":
            return resource is None
        host_id = rest.partition("/")[0]
        if host_id in self._forgotten or self._has_registered(host_id):
            return False
        return resource is None or (isinstance(resource.content, Upstream) and not resource.content.routable)
