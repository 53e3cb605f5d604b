"""The stable shapes of `--json`."""

import json
from datetime import UTC, datetime

import pytest

from geniehive.cli import views
from geniehive.v1 import credential_pb2, failure_pb2, registry_pb2, registry_service_pb2, routing_pb2
from geniehive.v1.registry_pb2 import HealthState
from geniehive.v1.request_pb2 import Operation

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def service(name: str = "pc/ollama", routable: bool = True, demo: bool = False) -> registry_service_pb2.ServiceView:
    made = registry_service_pb2.ServiceView()
    made.service.service = name
    made.service.runtime = "ollama"
    made.service.demo = demo
    made.service.operations.append(Operation.OPERATION_CHAT)
    made.service.assets.add(
        asset_id="qwen3:8b",
        upstream_name="library/qwen3:8b",
        load_state=registry_pb2.LOAD_STATE_LOADED,
        context_tokens=4096,
    )
    made.upstream.service = name
    made.upstream.routable = routable
    made.upstream.condition.health = (
        HealthState.HEALTH_STATE_HEALTHY if routable else HealthState.HEALTH_STATE_UNHEALTHY
    )
    made.upstream.condition.detail = "" if routable else "does not answer"
    way = made.upstream.ways.add(reason="on loopback")
    way.direct.base_url = "http://127.0.0.1:11434"
    way.direct.same_host_only = True
    made.upstream.ways.add().relayed.SetInParent()
    return made


def route(*endpoints: str, ruled_out: tuple[str, ...] = ()) -> routing_pb2.Route:
    made = routing_pb2.Route(model="qwen3:8b")
    branch = made.branches.add(kind=routing_pb2.NAME_KIND_ASSET)
    branch.operations.append(Operation.OPERATION_CHAT)
    if endpoints:
        tier = branch.tiers.add(label="qwen3:8b")
        for endpoint in endpoints:
            tier.endpoints.add(endpoint=endpoint)
    for endpoint in ruled_out:
        branch.ruled_out.add(endpoint=endpoint)
    return made


def test_words_of_enums() -> None:
    assert views.word(HealthState, "HEALTH_STATE", HealthState.HEALTH_STATE_HEALTHY) == "healthy"
    assert views.word(HealthState, "HEALTH_STATE", 0) == "unknown"
    assert views.word(HealthState, "HEALTH_STATE", 99) == "99"


def test_a_service() -> None:
    view = views.service(service())
    assert view["host_id"] == "pc"
    assert view["routable"] is True
    assert view["ways"] == [
        {"kind": "direct", "url": "http://127.0.0.1:11434", "same_host_only": True, "reason": "on loopback"},
        {"kind": "relay", "url": None, "same_host_only": False, "reason": ""},
    ]
    [model] = view["models"]
    assert model["operations"] == ["chat"]
    assert (model["context_tokens"], model["max_context_tokens"]) == (4096, None)
    assert view["running"] is None
    json.dumps(view)


def test_a_service_that_control_has_not_judged() -> None:
    sent = service()
    sent.ClearField("upstream")
    sent.service.condition.detail = "its own word"
    view = views.service(sent)
    assert view["routable"] is False
    assert views.why(view["condition"]) == "its own word"


def test_a_condition_says_why_in_its_words_else_by_its_reason() -> None:
    lost = registry_pb2.Condition(reason=registry_pb2.CONDITION_REASON_LEASE_EXPIRED)
    assert views.why(views.condition(lost)) == "lease expired"
    lost.detail = "fell silent"
    assert views.why(views.condition(lost)) == "fell silent"
    assert views.why(views.condition(registry_pb2.Condition())) == ""


def test_a_model_and_who_serves_it() -> None:
    known = {s["service"]: s for s in (views.service(service()), views.service(service("old/ollama", routable=False)))}
    made = views.model(route("endpoint/pc/ollama/library/qwen3:8b", "endpoint/old/ollama/library/qwen3:8b"), known)
    assert (made["model"], made["kinds"], made["usable"]) == ("qwen3:8b", ["asset"], True)
    assert (made["load_state"], made["context_tokens"], made["demo"]) == ("loaded", 4096, False)
    assert [(o["service"], o["routable"], o["why"]) for o in made["services"]] == [
        ("pc/ollama", True, ""),
        ("old/ollama", False, "does not answer"),
    ]
    json.dumps(made)


def test_a_model_that_nobody_serves_now() -> None:
    known = {"old/ollama": views.service(service("old/ollama", routable=False))}
    made = views.model(route(ruled_out=("endpoint/old/ollama/library/qwen3:8b",)), known)
    assert made["usable"] is False
    assert made["services"][0]["why"] == "does not answer"


def test_a_model_of_the_demo_engine_alone_is_labelled() -> None:
    known = {"pc/demo": views.service(service("pc/demo", demo=True)), "pc/ollama": views.service(service())}
    demo, real = "endpoint/pc/demo/library/qwen3:8b", "endpoint/pc/ollama/library/qwen3:8b"
    assert views.model(route(demo), known)["demo"] is True
    assert views.model(route(demo, real), known)["demo"] is False
    assert views.model(route(), known)["demo"] is False


def test_an_endpoint_of_a_service_that_is_gone_meanwhile() -> None:
    made = views.model(route("endpoint/pc/gone/m", "strange"), {})
    assert made["usable"] is False
    assert made["load_state"] == "unknown"


def test_a_key() -> None:
    key = credential_pb2.ClientKey(key_id="k1", display_name="me", scopes=[credential_pb2.SCOPE_INFER])
    assert views.key(key)["expires"] is None
    key.expire_time.FromDatetime(NOW)
    assert views.key(key) == {
        "key_id": "k1",
        "name": "me",
        "scopes": ["infer"],
        "expires": "2030-01-02T03:04:05Z",
        "configured": False,
    }


def test_the_cluster() -> None:
    health = registry_service_pb2.ClusterHealth(cluster_id="c", state=HealthState.HEALTH_STATE_DEGRADED)
    assert views.cluster(health)["store"] is None
    health.store.reason = failure_pb2.FAILURE_REASON_STORE_UNAVAILABLE
    health.store.message = "the disk is full"
    assert views.cluster(health)["store"] == {"reason": "store_unavailable", "message": "the disk is full"}


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2030-01-02T03:04:00Z", "5 s"),
        ("2030-01-02T03:00:00Z", "4 min"),
        ("2030-01-02T00:00:00Z", "3 h"),
        ("2029-12-30T00:00:00Z", "3 d"),
        ("2031-01-01T00:00:00Z", "0 s"),
        (None, ""),
    ],
)
def test_ago(moment: str | None, text: str) -> None:
    assert views.ago(moment, NOW) == text
