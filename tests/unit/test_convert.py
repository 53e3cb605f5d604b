"""Every noun comes back from the wire as it went."""

import types
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from geniehive import convert
from geniehive.rules import model as m
from geniehive.rules.operations import Ability, Operation
from geniehive.v1 import registry_pb2, routing_pb2

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
# Of the last and the next decades, as clocks give them.
TIMES = st.floats(1e9, 4e9)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
WIDE = ("_bytes", "parameter_count", "revision")


def values(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any value of a noun."""
    fields = {field.name: of(field.name, field.type) for field in msgspec.structs.fields(kind)}
    made = st.fixed_dictionaries(fields).map(lambda given: kind(**given))
    if kind is m.Way:  # a relayed way has no other end that could be bound to loopback
        return made.filter(lambda way: way.direct_url is not None or not way.same_host_only)
    return made


def of(name: str, kind: Any) -> st.SearchStrategy[Any]:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return st.one_of([st.none() if part is type(None) else of(name, part) for part in inner])
    if origin is tuple:
        return st.lists(of(name, inner[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(st.text(max_size=5), of("", inner[1]), max_size=2)
    if issubclass(kind, IntEnum):
        return st.sampled_from(list(kind))
    if issubclass(kind, msgspec.Struct):
        return values(kind)
    return {
        str: st.text(max_size=8),
        bytes: st.binary(max_size=32),
        bool: st.booleans(),
        int: U64 if name.endswith(WIDE) else U32,
        float: TIMES if name in ("since", "expires", "measured") else FLOATS,
    }[kind]


NOUNS: list[tuple[type[Any], Callable[[Any], Message], Callable[[Any], Any]]] = [
    (m.Condition, convert.condition_to_proto, convert.condition_from_proto),
    (m.Host, convert.host_to_proto, convert.host_from_proto),
    (m.Way, convert.way_to_proto, convert.way_from_proto),
    (m.Asset, convert.asset_to_proto, convert.asset_from_proto),
    (m.RequestPolicy, convert.policy_to_proto, convert.policy_from_proto),
    (m.Service, convert.service_to_proto, convert.service_from_proto),
    (m.Relay, convert.relay_to_proto, convert.relay_from_proto),
    (m.Inventory, convert.inventory_to_proto, convert.inventory_from_proto),
    (m.ServiceLoad, convert.service_load_to_proto, convert.service_load_from_proto),
    (m.MachineLoad, convert.machine_load_to_proto, convert.machine_load_from_proto),
    (m.Load, convert.load_to_proto, convert.load_from_proto),
    (m.ClientKey, convert.client_key_to_proto, convert.client_key_from_proto),
    (m.Upstream, convert.upstream_to_proto, convert.upstream_from_proto),
    (m.Endpoint, convert.endpoint_to_proto, convert.endpoint_from_proto),
    (m.Route, convert.route_to_proto, convert.route_from_proto),
    (m.Speed, convert.speed_to_proto, convert.speed_from_proto),
    (m.ScoreTerm, convert.score_term_to_proto, convert.score_term_from_proto),
    (m.Role, convert.role_to_proto, convert.role_from_proto),
    (m.Alias, convert.alias_to_proto, convert.alias_from_proto),
    (m.BenchmarkSample, convert.sample_to_proto, convert.sample_from_proto),
    (m.Resource, convert.resource_to_proto, convert.resource_from_proto),
]


@pytest.mark.parametrize(("kind", "to_proto", "from_proto"), NOUNS, ids=lambda part: getattr(part, "__name__", ""))
@settings(deadline=None)
@given(data=st.data())
def test_there_and_back(
    kind: type[Any], to_proto: Callable[[Any], Message], from_proto: Callable[[Any], Any], data: st.DataObject
) -> None:
    noun = data.draw(values(kind))
    message = to_proto(noun)
    over_the_wire = type(message).FromString(message.SerializeToString())
    assert from_proto(over_the_wire) == noun


def test_every_noun_that_travels_is_in_the_list() -> None:
    functions = {name for name in vars(convert) if name.endswith("_to_proto") and not name.startswith("_")}
    assert functions - {"ruled_out_to_proto"} == {to_proto.__name__ for _, to_proto, _ in NOUNS}


def test_unset_is_not_zero() -> None:
    assert not convert.asset_to_proto(m.Asset(asset_id="a", upstream_name="a")).HasField("context_tokens")
    zero = convert.asset_to_proto(m.Asset(asset_id="a", upstream_name="a", context_tokens=0))
    assert zero.HasField("context_tokens")
    assert convert.asset_from_proto(zero).context_tokens == 0
    assert convert.service_from_proto(registry_pb2.Service(service="h/s")).accept_requests is None


def test_numbers_of_a_newer_version_are_passed_over() -> None:
    condition = registry_pb2.Condition(health=99, availability=99, reason=99)  # type: ignore[arg-type]
    assert convert.condition_from_proto(condition) == m.Condition()
    asset = registry_pb2.Asset(operations=[1, 99], abilities=[99])  # type: ignore[list-item]
    assert convert.asset_from_proto(asset).operations == (1,)
    assert convert.asset_from_proto(asset).abilities == ()
    service = registry_pb2.Service(service="h/s", ways=[registry_pb2.Way(reason="of a new kind")])
    assert convert.service_from_proto(service).ways == ()


def test_a_resource_of_a_newer_version_is_kept_without_contents() -> None:
    resource = routing_pb2.Resource(name="thing/1", version="v")
    assert convert.resource_from_proto(resource) == m.Resource(name="thing/1", version="v")


def test_a_relays_token_that_is_unset_stays_unset() -> None:
    assert not convert.relay_to_proto(m.Relay(host_id="h")).HasField("token")


def test_contents_of_a_relay_message() -> None:
    relay = routing_pb2.Relay(host_id="h", base_urls=["http://127.0.0.1:8803"], token="t")
    assert convert.relay_from_proto(relay) == m.Relay(host_id="h", base_urls=("http://127.0.0.1:8803",), token="t")


def test_models_that_many_machines_have_are_one() -> None:
    usual = convert.asset_to_proto(m.Asset(asset_id="a", upstream_name="a", family="llama"))
    assert convert.asset_from_proto(usual) is convert.asset_from_proto(
        type(usual).FromString(usual.SerializeToString())
    )
    # What is unusually large is not kept for others.
    large = convert.asset_to_proto(m.Asset(asset_id="a", upstream_name="a", digest="d" * 2000))
    assert convert.asset_from_proto(large) == convert.asset_from_proto(large)
    assert convert.asset_from_proto(large) is not convert.asset_from_proto(large)


def test_what_services_have_in_common_is_kept_once() -> None:
    ways = (m.Way(direct_url="http://127.0.0.1:11434", same_host_only=True), m.Way())
    one, other = (
        convert.service_from_proto(
            convert.service_to_proto(m.Service(service=name, runtime="ollama", operations=(Operation.CHAT,), ways=ways))
        )
        for name in ("a/x", "b/y")
    )
    for field in ("runtime", "operations", "ways", "condition", "labels"):
        assert getattr(one, field) is getattr(other, field), field
    assert one.labels == {}
    # Lists of other kinds have equal numbers, and are other lists.
    abilities = convert.asset_from_proto(
        convert.asset_to_proto(
            m.Asset(asset_id="a", upstream_name="a", operations=(Operation(1),), abilities=(Ability(1),))
        )
    )
    assert type(abilities.operations[0]) is Operation
    assert type(abilities.abilities[0]) is Ability
    # What is unusually large is not kept for others.
    long = convert.service_to_proto(m.Service(service="a/x", ways=(m.Way(reason="r" * 2000),))).ways
    assert convert.ways_from_proto(long) == convert.ways_from_proto(long)
    assert convert.ways_from_proto(long) is not convert.ways_from_proto(long)


@given(values(m.ServiceLoad))
def test_a_brief_load_is_what_requests_are_balanced_by(load: m.ServiceLoad) -> None:
    assets = tuple(
        m.AssetLoad(upstream_name=asset.upstream_name, running=asset.running, queued=asset.queued)
        for asset in load.assets
        if asset.running is not None or asset.queued is not None
    )
    assert convert.brief_load_from_proto(convert.service_load_to_proto(load)) == m.ServiceLoad(
        service=load.service,
        age_seconds=load.age_seconds,
        running=load.running,
        queued=load.queued,
        relayed=load.relayed,
        assets=assets,
    )
