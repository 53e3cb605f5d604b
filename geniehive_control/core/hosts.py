"""One host with its session, its lease and what it offers."""

import msgspec

from geniehive.rules.model import Condition, Host, MachineLoad, Reason, Relay, Service, ServiceLoad, Upstream
from geniehive_control.core import verdict
from geniehive_control.core.effects import Refused
from geniehive_control.core.events import LoadSent, Now
from geniehive_control.core.records import StoredHost
from geniehive_control.core.verdict import Life


class Session:
    """An open stream of a node. `expires`: when its lease ends, on the clock that only grows."""

    __slots__ = ("expires", "host_id", "instance_id", "revision", "session_id", "unanswered")

    def __init__(self, session_id: str, host_id: str, instance_id: str, expires: float) -> None:
        self.session_id = session_id
        self.host_id = host_id
        self.instance_id = instance_id
        self.expires = expires
        self.revision: int | None = None
        # An inventory that is in force but not answered: its revision, and what was refused of it.
        self.unanswered: tuple[int, tuple[Refused, ...]] | None = None


class HostState:
    """A host. `info` None: it said hello, but sent no inventory yet."""

    def __init__(self, host_id: str, now: Now) -> None:
        self.host_id = host_id
        self.info: Host | None = None
        self.services: dict[str, Service] = {}
        self.relay: Relay | None = None
        self.machine_id: str | None = None
        self.agent_version = ""
        self.joined = now.wall
        self.last_seen = now.wall
        self.clock_skew: float | None = None
        self.life = Life.OFFLINE
        # What is said of it while it is offline.
        self.absence: Condition = verdict.away(Reason.STREAM_CLOSED, now.wall)
        self.session: Session | None = None
        # Whether it sent an inventory since control started.
        self.registered = False
        # By service: what was refused at the last inventory.
        self.refused: dict[str, tuple[Refused, ...]] = {}
        self.machine_load: MachineLoad | None = None
        self.loads: dict[str, ServiceLoad] = {}
        self.load_at = now.mono
        # Counts changes of what is stored; `stored` is the last one that the database has.
        self.change = 0
        self.stored = 0
        self._kept: StoredHost | None = None

    @classmethod
    def restore(cls, kept: StoredHost, now: Now) -> "HostState":
        """As it was stored. One that was online is presumed to be."""
        host = cls(kept.host_id, now)
        host.info = kept.host
        host.services = {service.service: service for service in kept.services}
        host.machine_id = kept.machine_id
        host.agent_version = kept.agent_version
        host.joined = kept.joined
        host.last_seen = kept.last_seen
        host.life = Life.PRESUMED if kept.online else Life.OFFLINE
        if kept.absence is not None:
            host.absence = kept.absence
        host._kept = host._record()
        return host

    @property
    def condition(self) -> Condition:
        """The verdict."""
        assert self.info is not None
        return verdict.host_condition(self.info, self.life, self.absence)

    def upstream(self, service: Service) -> Upstream:
        assert self.info is not None
        return verdict.upstream(service, self.info, self.life, self.absence)

    def leave(self, reason: Reason, now: Now) -> None:
        """It is offline from now on."""
        self.life = Life.OFFLINE
        self.absence = verdict.away(reason, now.wall)

    def take_load(self, event: LoadSent, now: Now) -> None:
        """Whole: what is not in it is not known any more. Load of services that it does not have is passed over."""
        self.load_at = now.mono
        self.machine_load = (
            None if event.machine is None else msgspec.structs.replace(event.machine, host_id=self.host_id)
        )
        self.loads = {load.service: load for load in event.services if load.service in self.services}

    def load_of(self, service: str, now: Now) -> ServiceLoad | None:
        """The load last seen, with its age."""
        load = self.loads.get(service)
        if load is None:
            return None
        return msgspec.structs.replace(load, age_seconds=(load.age_seconds or 0.0) + max(0.0, now.mono - self.load_at))

    def must_be_stored(self) -> bool:
        """Whether what is to be kept is other than it was when this was asked last."""
        record = self._record()
        if record == self._kept:
            return False
        self._kept = record
        self.change += 1
        return True

    def to_store(self) -> StoredHost:
        return msgspec.structs.replace(self._record(), last_seen=self.last_seen)

    def _record(self) -> StoredHost:
        assert self.info is not None
        return StoredHost(
            host=self.info,
            services=tuple(self.services.values()),
            machine_id=self.machine_id,
            agent_version=self.agent_version,
            joined=self.joined,
            online=self.life is not Life.OFFLINE,
            absence=self.absence if self.life is Life.OFFLINE else None,
        )
