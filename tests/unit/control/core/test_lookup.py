"""Resolve: one name, and what it leads to."""

import pytest

from geniehive.rules.model import NameKind, Route
from geniehive.rules.operations import Operation
from geniehive_control.core import lookup
from geniehive_control.core.refusal import Refusal, Why
from tests.support.cluster import CHAT, EMBEDDINGS, asset, service
from tests.support.control_core import Driver


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    driver.join("a", service("a/ollama", "org/qwen3:8b", asset("embed", EMBEDDINGS), asset("embed2", EMBEDDINGS)))
    driver.join("b", service("b/vllm", "org/qwen3:8b"))
    return driver


def resolved(driver: Driver, model: str, *, relays: bool = False) -> list[str]:
    return [r.name for r in lookup.resolve(driver.registry.table, model, None, relays)]


def refused(driver: Driver, model: str, operation: Operation | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        lookup.resolve(driver.registry.table, model, operation, with_relays=False)
    return caught.value


def test_the_route_and_everything_that_it_leads_to(driver: Driver) -> None:
    assert resolved(driver, "org/qwen3:8b") == [
        "route/org/qwen3:8b",
        "endpoint/a/ollama/org/qwen3:8b",
        "upstream/a/ollama",
        "endpoint/b/vllm/org/qwen3:8b",
        "upstream/b/vllm",
    ]
    assert "relay/a" in resolved(driver, "org/qwen3:8b", relays=True)


def test_with_an_operation_the_route_has_that_branch_only(driver: Driver) -> None:
    (route, *_) = lookup.resolve(driver.registry.table, "a/ollama", CHAT, with_relays=False)
    assert isinstance(route.content, Route)
    assert [branch.operations for branch in route.content.branches] == [(CHAT,)]
    whole = driver.registry.table.get("route/a/ollama")
    assert whole is not None
    assert whole.version != route.version


def test_refusals(driver: Driver) -> None:
    unknown = refused(driver, "qwen3")
    assert unknown.why is Why.ROUTE_NOT_FOUND
    assert unknown.details == {"near_matches": "org/qwen3:8b"}
    other = refused(driver, "embed", CHAT)
    assert other.why is Why.OPERATION_NOT_SERVED
    assert other.details == {"operations": "embeddings"}
    several = refused(driver, "a/ollama", EMBEDDINGS)
    assert several.why is Why.NAME_AMBIGUOUS
    assert several.details == {"names": "embed\nembed2"}


def test_near_matches(driver: Driver) -> None:
    assert lookup.near_matches(driver.registry.table, "ORG/QWEN3") == ["org/qwen3:8b"]
    assert lookup.near_matches(driver.registry.table, "embde") == ["embed", "embed2"]
    assert lookup.near_matches(driver.registry.table, "zzz") == []


def test_matching(driver: Driver) -> None:
    found = {r.model: r for r in driver.registry.table.routes()}
    assert set(found) == {"org/qwen3:8b", "embed", "embed2", "a/ollama", "b/vllm"}
    assert lookup.matches(found["embed"], NameKind.ASSET, EMBEDDINGS)
    assert not lookup.matches(found["embed"], NameKind.SERVICE, None)
    assert not lookup.matches(found["embed"], None, CHAT)
    assert lookup.matches(found["embed"], None, None)


def test_a_table_of_many_names_is_not_compared_one_by_one(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    monkeypatch.setattr(lookup, "_MOST_COMPARED", 2)
    assert lookup.near_matches(driver.registry.table, "embde") == []
    assert lookup.near_matches(driver.registry.table, "embed") == ["embed", "embed2"]
