from hypothesis import given
from hypothesis import strategies as st

from geniehive import convert
from geniehive.rules.model import Asset, Host, Inventory, Service
from geniehive_node.core import budget


def service(name: str, assets: int, length: int = 10) -> Service:
    return Service(
        service=f"h/{name}",
        assets=tuple(Asset(asset_id=f"{name}-{i}".ljust(length, "x"), upstream_name=f"{i}") for i in range(assets)),
    )


def test_what_fits_is_left_as_it_is() -> None:
    services = (service("a", 3), service("b", 0))
    assert budget.fit(services, budget.DEFAULT_BYTES) == services


def test_the_largest_pays_and_says_how_much() -> None:
    small, large = budget.fit([service("small", 5), service("large", 5000, 100)], 64 * 1024)
    assert len(small.assets) == 5
    assert 0 < len(large.assets) < 5000
    assert len(large.assets) + large.omitted_asset_count == 5000
    assert large.assets == service("large", 5000, 100).assets[: len(large.assets)]


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 500)), max_size=6), st.integers(20_000, 200_000))
def test_a_message_is_never_larger_than_said(shapes: list[tuple[int, int]], limit: int) -> None:
    services = [service(f"s{i}", count, length) for i, (count, length) in enumerate(shapes)]
    fitted = budget.fit(services, limit)
    assert [s.service for s in fitted] == [s.service for s in services]
    for was, is_ in zip(services, fitted, strict=True):
        assert len(is_.assets) + is_.omitted_asset_count == len(was.assets)
    message = convert.inventory_to_proto(Inventory(revision=0, host=Host(host_id="h"), services=fitted))
    assert message.ByteSize() <= limit + 2000
