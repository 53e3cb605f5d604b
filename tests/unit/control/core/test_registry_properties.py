"""Whatever happens in whatever order: the invariants hold, and every gateway ends with control's table."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from geniehive.rules.model import Service
from geniehive_control.core import events as e
from tests.support.cluster import EMBEDDINGS, asset, inventory, service
from tests.support.control_core import Driver, Mirror, check, restarted

HOSTS = st.sampled_from(["a", "b", "c"])
# "a/x" is the name of a service too.
MODELS = st.sampled_from(["m1", "m2", "a/x"])


@st.composite
def services(draw: st.DrawFn, host_id: str) -> list[Service]:
    made = []
    for name in draw(st.sets(st.sampled_from(["x", "y"]))):
        assets = [
            asset(model, *([EMBEDDINGS] if draw(st.booleans()) else [])) for model in sorted(draw(st.sets(MODELS)))
        ]
        accepts = draw(st.sampled_from([None, False]))
        made.append(service(f"{host_id}/{name}", *assets, hosted=draw(st.booleans()), accept_requests=accepts))
    return made


class Cluster(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.driver = Driver(restart_grace=5.0)
        self.mirrors = [Mirror(self.driver)]
        self.revision = 0

    def sessions(self) -> list[str]:
        return sorted(self.driver.registry._sessions.live)

    @rule(host_id=HOSTS, machine=st.sampled_from([None, "m1", "m2"]))
    def hello(self, host_id: str, machine: str | None) -> None:
        self.driver.open(host_id, **({} if machine is None else {"machine_id": machine}))

    @precondition(lambda self: self.sessions())
    @rule(data=st.data())
    def inventory(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.sessions()))
        host_id = self.driver.registry._sessions.live[session].host_id
        self.revision += 1
        offered = inventory(host_id, data.draw(services(host_id)), self.revision, relay=data.draw(st.booleans()))
        self.driver.offer(session, offered)

    @precondition(lambda self: self.sessions())
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        self.driver.close(data.draw(st.sampled_from(self.sessions())))

    @precondition(lambda self: self.sessions())
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        self.driver.beat(data.draw(st.sampled_from(self.sessions())))

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.driver.wait(seconds)

    @rule()
    def store(self) -> None:
        self.driver.store()

    @rule(host_id=HOSTS)
    def forget(self, host_id: str) -> None:
        self.driver.feed(e.HostForgotten(host_id=host_id))

    @precondition(lambda self: len(self.mirrors) < 3)
    @rule()
    def subscribe(self) -> None:
        # A gateway that comes back with what another one held.
        self.mirrors.append(Mirror(self.driver, self.mirrors[0].table))

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        mirror = data.draw(st.sampled_from(self.mirrors))
        mirror.collect()
        if mirror._answered < len(mirror.updates):
            mirror.ack(rejected=data.draw(st.sampled_from([None, None, "no"])))

    @rule()
    def restart(self) -> None:
        self.driver = restarted(self.driver, restart_grace=5.0)
        self.mirrors = [Mirror(self.driver, mirror.table) for mirror in self.mirrors]

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "driver"):
            check(self.driver.registry)
            for mirror in self.mirrors:
                mirror.collect()

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        for host in HOST_IDS:
            self.driver.feed(e.HostForgotten(host_id=host))
        # The grace is over, and everything is another than what was refused.
        self.driver.wait(10.0)
        self.driver.join("a", service("a/last", "last"))
        for mirror in self.mirrors:
            mirror.catch_up()
            table = self.driver.registry.table
            told = {name: resource.version for name, resource in mirror.table.items()}
            assert told == {name: table.version(name) for name in table} or mirror_refused(self.driver, mirror)


HOST_IDS = ["a", "b", "c", "a-2", "b-2", "c-2", "a-3", "b-3", "c-3"]


def mirror_refused(driver: Driver, mirror: Mirror) -> bool:
    """A gateway that refused something may lack just that."""
    (subscriber,) = [s for s in driver.registry.subscribers if s.subscriber_id == mirror.subscriber_id]
    table = driver.registry.table
    differing = {
        name
        for name in {*mirror.table, *table}
        if (held := mirror.table.get(name)) is None
        or (resource := table.get(name)) is None
        or held.version != resource.version
    }
    return differing <= subscriber._refused.keys()


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
