"""What gateways are not told right after a restart; see also TestRestart in test_registry."""

import pytest

from geniehive.rules.model import Endpoint, Resource, Route, Upstream
from geniehive_control.core.grace import Grace
from tests.support.cluster import asset


def now_is(name: str, content: Upstream | Route | Endpoint) -> Resource:
    return Resource(name=name, version="v", content=content)


DOWN = now_is("upstream/gpu-1/a", Upstream(service="gpu-1/a", routable=False))
UP = now_is("upstream/gpu-1/a", Upstream(service="gpu-1/a", routable=True))


@pytest.mark.parametrize(
    ("name", "resource", "withheld"),
    [
        ("upstream/gpu-1/a", None, True),
        ("upstream/gpu-1/a", DOWN, True),
        ("upstream/gpu-1/a", UP, False),
        ("endpoint/gpu-1/a/org/m:1", None, True),
        ("endpoint/gpu-1/a/m", now_is("", Endpoint(service="gpu-1/a", asset=asset("m"))), False),
        ("relay/gpu-1", None, True),
        ("route/m", None, True),
        ("route/m", now_is("route/m", Route(model="m")), False),
        ("key/k", None, False),
    ],
)
def test_until_its_host_has_registered(name: str, resource: Resource | None, withheld: bool) -> None:
    assert Grace(0.0, lambda host_id: False).withholds(name, resource) is withheld
    registered = Grace(0.0, lambda host_id: host_id == "gpu-1")
    # A route may be of several hosts.
    assert registered.withholds(name, resource) is (withheld and name.startswith("route/"))


def test_what_control_dropped_itself_is_told() -> None:
    grace = Grace(0.0, lambda host_id: False)
    grace.drop({"route/m"})
    assert not grace.withholds("route/m", None)
    assert grace.withholds("route/n", None)


def test_an_operators_doing_is_told() -> None:
    grace = Grace(0.0, lambda host_id: False)
    grace.forget("gpu-1")
    assert not grace.withholds("relay/gpu-1", None)
    assert grace.withholds("relay/gpu-2", None)
