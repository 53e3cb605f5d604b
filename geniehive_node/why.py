"""Why a node and a control on another machine do not come together, in words that gRPC does not have."""

from datetime import UTC, datetime

from geniehive.kit import address, tls_probe
from geniehive.kit.clock import Clock
from geniehive.membership import Credential
from geniehive.rules.identity import CONTROL_NAME
from geniehive_node.core import talk

# Seconds: a look is one more handshake for a control that may be short of time.
_LOOK_EVERY = 10.0
_LOOK_WITHIN = 2.0


class Why:
    def __init__(self, target: str, credential: Credential, clock: Clock) -> None:
        self._target = target
        self._credential = credential
        self._clock = clock
        self._looked_at: float | None = None
        self._found: talk.Ended | None = None

    async def not_connected(self) -> talk.Ended | None:
        """None if nothing is wrong with TLS."""
        now = self._clock.now()
        if self._looked_at is None or now >= self._looked_at + _LOOK_EVERY:
            self._found = await self._look()
            self._looked_at = now
        return self._found

    async def _look(self) -> talk.Ended | None:
        if self._credential.link is None:
            return talk.Ended(message="this machine has no certificate any more", transient=False)
        host, port = address.split(self._target)
        context = self._credential.client_context()
        words = await tls_probe.why_not(host, port, context, CONTROL_NAME, _LOOK_WITHIN)
        if words is None:
            return None
        expires = self._credential.expires
        message = f"cannot reach control at {self._target}: {words}"
        # gRPC's server does not say what is wrong with a certificate.
        refused = words in (tls_probe.OURS_EXPIRED, tls_probe.REFUSES)
        if expires is None or self._clock.wall() < expires:
            hint = "; is its clock wrong, or is it another cluster?" if words == tls_probe.REFUSES else ""
            return talk.Ended(message=message + hint)
        day = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%d %H:%M UTC")
        if refused:
            return talk.Ended(
                reason=talk.Reason.CERTIFICATE_EXPIRED,
                transient=False,
                message=f"this machine's certificate expired on {day} by its own clock, and control refuses it",
            )
        return talk.Ended(
            message=f"{message} (and by this machine's clock, which may be wrong, its certificate expired on {day})"
        )
