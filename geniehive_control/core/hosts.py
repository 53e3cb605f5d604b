"""One host with its session, its lease and what it offers."""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from geniehive.rules.model import Condition, Host, Load, MachineLoad, Reason, Relay, Service, ServiceLoad, Upstream
from geniehive_control.core import reach, verdict
from geniehive_control.core.effects import Refused
from geniehive_control.core.events import LoadSent, Now
from geniehive_control.core.health import HealthBook
from geniehive_control.core.reach import Place
from geniehive_control.core.records import StoredHost
from geniehive_control.core.trust import Certified
from geniehive_control.core.verdict import Life


class Session:
    """An open stream of a node. `expires`: when its lease ends, on the clock that only grows."""

    __slots__ = ("certificate", "expires", "host_id", "instance_id", "revision", "session_id", "unanswered")

    def __init__(
        self, session_id: str, host_id: str, instance_id: str, expires: float, certificate: Certified | None = None
    ) -> None:
        self.session_id = session_id
        self.host_id = host_id
        self.instance_id = instance_id
        self.expires = expires
        # None: by a node key.
        self.certificate = certificate
        self.revision: int | None = None
        # An inventory that is in force but not answered: its revision, and what was refused of it.
        self.unanswered: tuple[int, tuple[Refused, ...]] | None = None


class HostState:
    """A host. `info` None: it said hello, but sent no inventory yet."""

    __slots__ = (
        "_book",
        "_kept",
        "_loads",
        "_machine_load",
        "_read_load",
        "absence",
        "agent_version",
        "brief_load",
        "broken",
        "certified",
        "change",
        "clock_skew",
        "host_id",
        "info",
        "joined",
        "last_seen",
        "life",
        "load_at",
        "machine_id",
        "refused",
        "registered",
        "relay",
        "services",
        "session",
        "stored",
    )

    def __init__(self, host_id: str, now: Now, book: HealthBook) -> None:
        self.host_id = host_id
        self._book = book
        self.info: Host | None = None
        self.services: dict[str, Service] = {}
        self.relay: Relay | None = None
        # Addresses of it that control cannot connect to, and why.
        self.broken: Mapping[Place, str] = {}
        self.machine_id: str | None = None
        self.agent_version = ""
        # Whether its last session proved itself by a certificate.
        self.certified = False
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
        # How to read the load last sent, until somebody asks for it.
        self._read_load: Callable[[], Load] | None = None
        # What of it requests are balanced by, as the node said it: also of services that it does not have.
        self.brief_load: Callable[[], Iterable[ServiceLoad]] = tuple
        self._machine_load: MachineLoad | None = None
        self._loads: dict[str, ServiceLoad] = {}
        self.load_at = now.mono
        # Counts changes of what is stored; `stored` is the last one that the database has.
        self.change = 0
        self.stored = 0
        self._kept: StoredHost | None = None

    @classmethod
    def restore(cls, kept: StoredHost, now: Now, book: HealthBook) -> "HostState":
        """As it was stored. One that was online is presumed to be."""
        host = cls(kept.host_id, now, book)
        host.info = kept.host
        host.services = {service.service: service for service in kept.services}
        host.machine_id = kept.machine_id
        host.agent_version = kept.agent_version
        host.certified = kept.certified
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
        ways, shut = reach.open_ways(service, self.relay, self.broken)
        if self.life is not Life.ONLINE:
            return verdict.upstream(service, self.info, self.life, self.absence, ways, shut)
        overlay = self._book.judge(service, ways)
        return verdict.upstream(service, self.info, self.life, self.absence, overlay.ways, shut, overlay.condition)

    def leave(self, reason: Reason, now: Now) -> None:
        """It is offline from now on."""
        self.life = Life.OFFLINE
        self.absence = verdict.away(reason, now.wall)

    def take_load(self, event: LoadSent, now: Now) -> None:
        """Whole: what is not in it is not known any more."""
        self.load_at = now.mono
        self._read_load = event.read
        self.brief_load = event.brief

    @property
    def machine_load(self) -> MachineLoad | None:
        self._understand()
        return self._machine_load

    @property
    def loads(self) -> Mapping[str, ServiceLoad]:
        """By service, also of services that it does not have."""
        self._understand()
        return self._loads

    def load_of(self, service: str, now: Now) -> ServiceLoad | None:
        """The load last seen, with its age. Load of services that it does not have is passed over."""
        load = self.loads.get(service) if service in self.services else None
        if load is None:
            return None
        return msgspec.structs.replace(load, age_seconds=(load.age_seconds or 0.0) + max(0.0, now.mono - self.load_at))

    def _understand(self) -> None:
        if self._read_load is None:
            return
        load, self._read_load = self._read_load(), None
        machine = load.machine
        self._machine_load = None if machine is None else msgspec.structs.replace(machine, host_id=self.host_id)
        self._loads = {load.service: load for load in load.services}

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
            certified=self.certified,
            online=self.life is not Life.OFFLINE,
            absence=self.absence if self.life is Life.OFFLINE else None,
        )
