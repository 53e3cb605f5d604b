"""When to ask control for a certificate, over the open stream.

At once if there is none, or it is for another name than that of this daemon; else after a third of its life. Never
before control said whom to believe: it says nothing where the cluster has no TLS. An answer that does not come, or does
not fit, is asked for again after growing pauses.
"""

from math import inf

from geniehive.rules.model import Value

FIRST_PAUSE = 10.0
LONGEST_PAUSE = 600.0
_SOONEST = 1.0


class Held(Value, frozen=True, kw_only=True):
    """A certificate. renew_in: in so many seconds a new one is due."""

    cluster_id: str
    peer_id: str
    serial: str
    renew_in: float


def due_in(not_before: float, not_after: float, backdated: float, wall: float) -> float:
    """Seconds until a kept certificate is to be renewed, by its own dates: times of this machine's clock.

    Never more than a third of its life, so that a clock that goes wrong costs no more than that.
    """
    third = max(0.0, not_after - not_before - backdated) / 3
    return min(third, max(0.0, not_before + backdated + third - wall))


class Renewal:
    """wanted: whether a certificate is of any use here."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._held: Held | None = None
        self._renew_at = inf
        self._told = False
        self._again_at = -inf
        self._asked = 0

    @property
    def name(self) -> str | None:
        """The peer_id of the certificate that is held."""
        return self._held.peer_id if self._held is not None else None

    def hold(self, held: Held | None, now: float) -> None:
        """What is held from now on. None: nothing. Without effect if that is no news."""
        if held == self._held:
            return
        self._held = held
        self._renew_at = inf if held is None else now + max(_SOONEST, held.renew_in)
        self._again_at = -inf
        self._asked = 0

    def told(self) -> None:
        """Control said whom to believe, so it answers."""
        if not self._told:
            self._told = True
            self._again_at = -inf  # what was asked on another stream is lost

    def lost(self) -> None:
        """The stream is over."""
        self._told = False

    def at(self, cluster_id: str, peer_id: str) -> float | None:
        """When to ask, for this name; None: not as things are."""
        if not self._wanted or not self._told:
            return None
        fits = self._held is not None and (self._held.cluster_id, self._held.peer_id) == (cluster_id, peer_id)
        return max(self._renew_at if fits else -inf, self._again_at)

    def ask(self, now: float) -> None:
        """It is asked for now."""
        self._again_at = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._asked, 30))
        self._asked += 1
