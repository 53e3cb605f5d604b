import json

import pytest

from geniehive.plain import number, plain, word
from geniehive.v1 import (
    credential_pb2,
    registry_pb2,
    registry_service_pb2,
    request_pb2,
    role_pb2,
    routing_pb2,
    routing_service_pb2,
)


def test_what_is_unset_is_null_and_what_is_zero_is_zero() -> None:
    asset = registry_pb2.Asset(asset_id="m", context_tokens=0, load_state=registry_pb2.LOAD_STATE_LOADED)
    shown = plain(asset)
    assert (shown["context_tokens"], shown["slots"], shown["family"]) == (0, None, "")
    assert shown["load_state"] == "loaded"
    assert set(shown) == {field.name for field in registry_pb2.Asset.DESCRIPTOR.fields}


def test_words_and_times() -> None:
    view = registry_service_pb2.HostView(drained=True)
    view.host.labels["b"] = "2"
    view.host.labels["a"] = "1"
    view.join_time.FromSeconds(1_800_000_000)
    view.condition.availability = registry_pb2.AVAILABILITY_BUSY
    shown = plain(view)
    assert shown["join_time"] == "2027-01-15T08:00:00Z"
    assert shown["last_seen_time"] is None
    assert list(shown["host"]["labels"].items()) == [("a", "1"), ("b", "2")]
    assert (shown["condition"]["availability"], shown["condition"]["health"]) == ("busy", "unknown")
    assert json.loads(json.dumps(shown)) == shown


def test_values_that_are_newer_than_this_version_are_numbers() -> None:
    enum = registry_pb2.HealthState.DESCRIPTOR
    assert (word(enum, 1), word(enum, 0), word(enum, 99)) == ("healthy", "unknown", "99")
    role = role_pb2.Role(role_id="r")
    role.routing_policy.required_abilities.append(77)  # type: ignore[arg-type]
    assert plain(role)["routing_policy"]["required_abilities"] == ["77"]


def test_from_words() -> None:
    enum = request_pb2.Operation.DESCRIPTOR
    assert number(enum, "embeddings") == request_pb2.OPERATION_EMBEDDINGS
    for wrong in ("sing", "unknown", "unspecified", ""):
        with pytest.raises(ValueError, match="is none of these: chat, completions"):
            number(enum, wrong)


def test_json_is_an_object_and_integers_stay_so() -> None:
    policy = request_pb2.RequestPolicy(defaults_json='{"n":4096,"x":1.0}', overrides_json="{")
    shown = plain(policy)
    assert json.dumps(shown["defaults"]) == '{"n": 4096, "x": 1.0}'
    assert shown["overrides"] == "{"
    assert plain(request_pb2.RequestPolicy())["defaults"] == {}


def test_one_of_several() -> None:
    way = registry_pb2.Way(direct=registry_pb2.Way.Direct(base_url="http://x"))
    shown = plain(way)
    assert (shown["direct"]["base_url"], shown["relayed"]) == ("http://x", None)


def test_maps_of_messages_and_durations() -> None:
    view = registry_service_pb2.ServiceView()
    view.speeds["m"].decode_tokens_per_second = 40.0
    assert plain(view)["speeds"]["m"]["decode_tokens_per_second"] == 40.0
    asked = registry_service_pb2.WatchLoadRequest()
    asked.interval.FromMilliseconds(1500)
    assert plain(asked)["interval"] == 1.5


def test_secrets_are_left_out() -> None:
    relay = routing_pb2.Relay(host_id="a", token="secret")
    key = credential_pb2.ClientKey(key_id="k", key_sha256=b"\1" * 32)
    answer = routing_service_pb2.ResolveResponse(
        resources=[
            routing_pb2.Resource(name="relay/a", relay=relay),
            routing_pb2.Resource(name="key/k", client_key=key),
        ]
    )
    shown = plain(answer)["resources"]
    assert shown[0]["relay"] == {"host_id": "a", "base_urls": []}
    assert "key_sha256" not in shown[1]["client_key"]
