"""A watch as a conversation: `>>` what comes from the stream, `<<` what it tells."""

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geniehive.client.views import (
    CLUSTER,
    Changed,
    Event,
    LoadView,
    RegistryView,
    Removed,
    Reopening,
    Resync,
    Synced,
    ended,
    silence,
)
from geniehive.failures import Refused
from geniehive.kit.backoff import Backoff
from geniehive.v1.failure_pb2 import FailureReason
from geniehive.v1.registry_pb2 import Host
from geniehive.v1.registry_service_pb2 import (
    ClusterHealth,
    HostView,
    ObjectKind,
    WatchLoadResponse,
    WatchRegistryResponse,
)

HOST = ObjectKind.OBJECT_KIND_HOST
BROKE = ended()
SYNCED = WatchRegistryResponse(synced=WatchRegistryResponse.Synced())


def view_of(name: str, version: str = "1") -> HostView:
    return HostView(host=Host(host_id=name), agent_version=version)


def host(name: str, version: str = "1") -> WatchRegistryResponse:
    return WatchRegistryResponse(changed=WatchRegistryResponse.Object(host=view_of(name, version)))


def gone(name: str) -> WatchRegistryResponse:
    return WatchRegistryResponse(removed=WatchRegistryResponse.Removed(kind=HOST, name=name))


def changed(name: str, version: str = "1") -> Changed:
    return Changed(HOST, name, view_of(name, version))


def removed(name: str, version: str = "1") -> Removed:
    return Removed(HOST, name, view_of(name, version))


class Playbook:
    def __init__(self) -> None:
        self.view = RegistryView()
        self.told: list[Event] = []

    def __rshift__(self, given: WatchRegistryResponse | Refused) -> "Playbook":
        assert not self.told, f"unexpected: {self.told}"
        self.told = list(self.view.broken(given) if isinstance(given, Refused) else self.view.message(given))
        return self

    def __lshift__(self, expected: Event) -> "Playbook":
        assert self.told
        assert self.told.pop(0) == expected
        return self

    def ends(self) -> None:
        assert not self.told, f"unexpected: {self.told}"


def test_the_first_stream() -> None:
    play = Playbook()
    _ = play >> host("a") << changed("a")
    _ = play >> host("b") << changed("b")
    _ = play >> SYNCED << Synced(first=True)
    _ = play >> SYNCED
    _ = play >> host("a", "2") << changed("a", "2")
    _ = play >> gone("b") << removed("b")
    _ = play >> gone("never-seen")
    play.ends()


def test_after_a_break_only_what_differs_is_told() -> None:
    play = Playbook()
    for name in "abc":
        _ = play >> host(name) << changed(name)
    _ = play >> SYNCED << Synced(first=True)
    _ = play >> BROKE << Resync(BROKE)
    _ = play >> silence(1.0)  # the second attempt fails too: that is no news
    _ = play >> host("a")
    _ = play >> host("b", "2") << changed("b", "2")
    _ = play >> host("d") << changed("d")
    _ = play >> SYNCED << removed("c") << Synced(first=False)
    _ = play >> BROKE << Resync(BROKE)
    play.ends()


def test_a_break_in_the_middle_of_the_first_look() -> None:
    play = Playbook()
    _ = play >> host("a") << changed("a")
    _ = play >> BROKE << Resync(BROKE)
    _ = play >> host("b") << changed("b")
    _ = play >> SYNCED << removed("a") << Synced(first=True)
    play.ends()


def test_what_vanished_and_came_back_before_the_end_of_a_look() -> None:
    play = Playbook()
    _ = play >> host("a") << changed("a")
    _ = play >> gone("a") << removed("a")
    _ = play >> SYNCED << Synced(first=True)
    _ = play >> host("a") << changed("a")
    play.ends()


def test_cluster_health_has_a_name_and_unknown_objects_are_passed_over() -> None:
    health = ClusterHealth(cluster_id="c1")
    play = Playbook()
    told = WatchRegistryResponse(changed=WatchRegistryResponse.Object(cluster_health=health))
    _ = play >> told << Changed(ObjectKind.OBJECT_KIND_CLUSTER_HEALTH, CLUSTER, health)
    _ = play >> WatchRegistryResponse(changed=WatchRegistryResponse.Object())
    _ = play >> WatchRegistryResponse()
    play.ends()


NAMES = st.sampled_from("abcd")
STEPS = st.one_of(
    st.tuples(st.just("set"), NAMES, st.sampled_from("12")),
    st.tuples(st.just("drop"), NAMES, st.just("")),
    st.tuples(st.just("break"), st.just(""), st.just("")),
    st.tuples(st.just("idle"), st.just(""), st.just("")),
)


@settings(deadline=None)
@given(st.lists(STEPS, max_size=30), st.lists(st.booleans(), max_size=30))
def test_at_each_synced_a_consumer_knows_the_truth(steps: list[tuple[str, str, str]], heard: list[bool]) -> None:
    """Whatever happens, seen or missed: following the events gives what control has."""
    view = RegistryView()
    truth: dict[str, HostView] = {}
    known: dict[str, object] = {}
    online = iter([*heard, *[True] * len(steps)])
    connected = False

    def follow(events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Changed):
                assert known.get(event.name) != event.object
                known[event.name] = event.object
            elif isinstance(event, Removed):
                assert known.pop(event.name) == event.last
            elif isinstance(event, Synced):
                assert known == truth

    def connect() -> None:
        for now in truth.values():
            follow(view.message(WatchRegistryResponse(changed=WatchRegistryResponse.Object(host=now))))
        follow(view.message(SYNCED))

    for what, name, version in steps:
        if not connected and next(online):
            connect()
            connected = True
        if what == "set":
            truth[name] = view_of(name, version)
            if connected:
                follow(view.message(host(name, version)))
        elif what == "drop" and truth.pop(name, None) is not None and connected:
            follow(view.message(gone(name)))
        elif what == "break" and connected:
            follow(view.broken(BROKE))
            connected = False
        elif what == "idle" and connected:
            follow(view.message(SYNCED))
    if not connected:
        connect()
    assert known == truth


def test_load_passes_through() -> None:
    message = WatchLoadResponse()
    assert LoadView().message(message) == [message]
    assert LoadView().broken(BROKE) == []


@pytest.mark.parametrize(
    ("code", "retry_after", "least", "most"),
    [
        (grpc.StatusCode.UNAVAILABLE, None, 0.1, 0.2),
        (grpc.StatusCode.UNAVAILABLE, 7.0, 7.0, 7.0),
        (grpc.StatusCode.INTERNAL, None, 1.5, 3.0),
    ],
)
def test_a_stream_is_opened_again(code: grpc.StatusCode, retry_after: float | None, least: float, most: float) -> None:
    cause = Refused(FailureReason.FAILURE_REASON_UNSPECIFIED, "", code=code, retry_after=retry_after)
    delay = Reopening(Backoff(0.2, 3.0)).delay(cause)
    assert delay is not None
    assert least <= delay <= most


@pytest.mark.parametrize(
    "reason",
    [
        FailureReason.FAILURE_REASON_CREDENTIAL_REFUSED,
        FailureReason.FAILURE_REASON_SCOPE_MISSING,
        FailureReason.FAILURE_REASON_FIELD_INVALID,
        FailureReason.FAILURE_REASON_NOT_SERVED,
    ],
)
def test_a_stream_that_was_refused_is_not_opened_again(reason: FailureReason.ValueType) -> None:
    assert Reopening().delay(Refused(reason, "")) is None
