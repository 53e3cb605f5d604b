"""Pages of lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.v1 import registry_pb2
from geniehive.v1 import registry_service_pb2 as pb
from geniehive_control.core.refusal import Refusal
from geniehive_control.rpc.paging import page


def host(name: str) -> registry_pb2.Host:
    return registry_pb2.Host(host_id=name)


@given(names=st.sets(st.text(max_size=5), max_size=20), size=st.integers(1, 7))
def test_the_pages_together_are_the_list(names: set[str], size: int) -> None:
    ordered = sorted(names)
    found: list[str] = []
    token = ""
    for _ in range(len(ordered) + 1):
        request = pb.ListHostsRequest(page_size=size, page_token=token)
        hosts, token = page(request, [(name, name) for name in ordered], host)
        assert len(hosts) <= size
        found += [made.host_id for made in hosts]
        if not token:
            break
    assert found == ordered


def test_sizes() -> None:
    items = [(f"{number:05d}", "") for number in range(1500)]
    for asked, given_ in ((0, 100), (5, 5), (1000, 1000), (5000, 1000)):
        hosts, token = page(pb.ListHostsRequest(page_size=asked), items, host)
        assert len(hosts) == given_
        assert token


def test_a_page_stays_below_the_size_of_a_message() -> None:
    items = [(f"{number:05d}", "x" * 1_000_000) for number in range(10)]
    hosts, token = page(pb.ListHostsRequest(), items, host)
    assert 1 <= len(hosts) <= 4
    assert token


def test_a_token_outlives_what_it_names() -> None:
    _, token = page(pb.ListHostsRequest(page_size=1), [("a", "a"), ("b", "b"), ("c", "c")], host)
    hosts, _ = page(pb.ListHostsRequest(page_token=token), [("b", "b"), ("c", "c")], host)
    assert [made.host_id for made in hosts] == ["b", "c"]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ListHostsRequest(page_size=-1), "page_size"),
        (pb.ListHostsRequest(page_token="?"), "page_token"),
        (pb.ListHostsRequest(page_token="AAAA"), "page_token"),
        (pb.ListHostsRequest(page_token="/////////////w=="), "page_token"),
    ],
)
def test_what_is_refused(request_: pb.ListHostsRequest, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        page(request_, [("a", "a")], host)
    assert caught.value.details == {"field": field}


def test_a_token_of_another_query() -> None:
    _, token = page(pb.ListHostsRequest(page_size=1), [("a", "a"), ("b", "b")], host)
    for other in (pb.ListHostsRequest(page_token=token, labels={"a": "b"}), pb.ListServicesRequest(page_token=token)):
        with pytest.raises(Refusal):
            page(other, [("a", "a")], host)
