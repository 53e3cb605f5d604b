import json
from typing import Any

from gateway.core import listing
from gateway.core.table import Table
from geniehive.rules.model import NameKind
from geniehive.rules.operations import Operation
from tests.unit.gateway.builders import OFFLINE, endpoint, route, served, table, upstream


def listed(t: Table) -> dict[str, Any]:
    body = json.loads(listing.models(t))
    assert body["object"] == "list"
    return {entry["id"]: entry for entry in body["data"]}


def test_openais_shape_and_ours() -> None:
    t = table(route("m", "a/e/m"), endpoint("a/e", "m", context=2048), upstream("a/e"))
    assert listed(t)["m"] == {
        "id": "m",
        "object": "model",
        "created": 0,
        "owned_by": "geniehive",
        "geniehive": {
            "kind": "asset",
            "operations": ["chat", "completions"],
            "demo": False,
            "available": True,
            "endpoints": 1,
            "context_tokens": 2048,
        },
    }


def test_a_demo_model_is_labelled_so_unless_a_real_engine_has_it_too() -> None:
    t = table(route("m", "a/e/m"), endpoint("a/e", "m"), upstream("a/e", demo=True))
    assert listed(t)["m"]["geniehive"]["demo"] is True
    t.apply((route("m", "a/e/m", "b/e/m"), endpoint("b/e", "m"), upstream("b/e")))
    assert listed(t)["m"]["geniehive"]["demo"] is False


def test_who_is_away_is_listed_as_such() -> None:
    t = table(*served("m", a="http://x:1"))
    t.apply((upstream("a/e", routable=False, condition=OFFLINE),))
    assert listed(t)["m"]["geniehive"]["available"] is False


def test_aliases_first_and_neither_services_nor_globs() -> None:
    t = table(
        *served("m", a="http://x:1"),
        route("a/e", "a/e/m", kind=NameKind.SERVICE),
        route("b/e", kind=NameKind.SERVICE, choose_from=("x", "y")),
        route("gpt-*", "a/e/m", kind=NameKind.ALIAS, glob=True),
        route("zz", "a/e/m", kind=NameKind.ALIAS, operations=(Operation.EMBEDDINGS,)),
    )
    assert list(listed(t)) == ["zz", "m"]


def test_one_model() -> None:
    t = table(*served("org/m:8b", a="http://x:1"), route("b/e", kind=NameKind.SERVICE, choose_from=("x", "y")))
    found = listing.model(t, "org/m:8b")
    assert found is not None
    assert json.loads(found)["id"] == "org/m:8b"
    assert listing.model(t, "nope") is None
    service = listing.model(t, "b/e")
    assert service is not None
    assert json.loads(service)["geniehive"]["choose_from"] == ["x", "y"]


def test_all_operations_are_listed() -> None:
    t = table(
        *served("m", a="http://x:1"),
        route("m", "a/e/m", operations=(Operation.CHAT, Operation.RESPONSES)),
    )
    assert listed(t)["m"]["geniehive"]["operations"] == ["chat", "responses"]
