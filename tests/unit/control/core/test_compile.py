"""What a name means."""

from geniehive.rules.model import Asset, Branch, Gate, NameKind, Route, RuledOut, Service, Strategy, Tier, TierEndpoint
from geniehive.rules.operations import Operation
from geniehive_control.core import compile as compiling
from geniehive_control.core.compile import Offer, route
from tests.support.cluster import CHAT, EMBEDDINGS, asset, service


def offers(model: str, *services: Service) -> list[Offer]:
    return [
        compiling.offer(of, asset, endpoint)
        for of in services
        for endpoint, asset in compiling.endpoints(of).items()
        if asset.asset_id == model
    ]


def of_asset(model: str, *services: Service) -> Route | None:
    return route(model, offers(model, *services), None)


def tier(model: str, *endpoints: str) -> tuple[Tier, ...]:
    found = tuple(TierEndpoint(endpoint=endpoint) for endpoint in endpoints)
    return (Tier(label=model, strategy=Strategy.ROUND_ROBIN, endpoints=found),)


def test_nothing_of_this_name() -> None:
    assert of_asset("qwen3") is None


def test_one_name_with_an_endpoint_on_each_host() -> None:
    found = of_asset("qwen3", service("b/vllm", "qwen3"), service("a/ollama", "qwen3", "other"))
    assert found == Route(
        model="qwen3",
        branches=(
            Branch(
                operations=(CHAT,),
                kind=NameKind.ASSET,
                tiers=tier("qwen3", "endpoint/a/ollama/qwen3", "endpoint/b/vllm/qwen3"),
            ),
        ),
    )


def test_operations_with_the_same_endpoints_share_a_branch() -> None:
    both = asset("m", Operation.COMPLETIONS, CHAT)
    found = of_asset("m", service("a/x", both), service("b/x", asset("m", CHAT, Operation.COMPLETIONS, EMBEDDINGS)))
    assert found is not None
    assert [branch.operations for branch in found.branches] == [(CHAT, Operation.COMPLETIONS), (EMBEDDINGS,)]


def test_the_same_model_under_two_names_of_an_engine() -> None:
    twice = service("a/x", Asset(asset_id="m", upstream_name="m:1"), Asset(asset_id="m", upstream_name="m:2"))
    found = of_asset("m", twice)
    assert found is not None
    assert found.branches[0].tiers == tier("m", "endpoint/a/x/m:1", "endpoint/a/x/m:2")


def test_a_provider_joins_no_name_that_is_local() -> None:
    cloud = service("a/cloud", "m", hosted=True)
    alone = of_asset("m", cloud)
    assert alone is not None
    assert alone.branches[0].tiers == tier("m", "endpoint/a/cloud/m")
    joined = of_asset("m", cloud, service("a/ollama", "m"))
    assert joined is not None
    assert joined.branches[0].tiers == tier("m", "endpoint/a/ollama/m")
    # Of another operation it is the only one.
    apart = of_asset("m", cloud, service("a/ollama", asset("m", EMBEDDINGS)))
    assert apart is not None
    assert [b.tiers for b in apart.branches] == [tier("m", "endpoint/a/cloud/m"), tier("m", "endpoint/a/ollama/m")]


def test_a_service_with_one_model_for_an_operation() -> None:
    own = service("a/x", "m", asset("e1", EMBEDDINGS), asset("e2", EMBEDDINGS))
    found = route("a/x", [], own)
    assert found == Route(
        model="a/x",
        branches=(
            Branch(operations=(CHAT,), kind=NameKind.SERVICE, tiers=tier("a/x", "endpoint/a/x/m")),
            Branch(operations=(EMBEDDINGS,), kind=NameKind.SERVICE, choose_from=("e1", "e2")),
        ),
    )


def test_a_service_without_models_is_a_503_and_not_a_404() -> None:
    found = route("a/x", [], service("a/x"))
    assert found is not None
    (branch,) = found.branches
    assert branch.tiers == ()
    assert branch.ruled_out == (RuledOut(endpoint="", gate=Gate.OPERATION, reason="a/x offers no model now"),)
    unknown = route("a/x", [], Service(service="a/x"))
    assert unknown is not None
    assert set(unknown.branches[0].operations) == set(Operation)


def test_a_model_called_like_a_service_comes_first_and_hides_it() -> None:
    own = service("a/x", "m", asset("e", EMBEDDINGS))
    other = service("b/y", "a/x")
    found = route("a/x", offers("a/x", other), own)
    assert found is not None
    assert found.shadows == (NameKind.SERVICE,)
    assert [(b.kind, b.operations) for b in found.branches] == [
        (NameKind.ASSET, (CHAT,)),
        (NameKind.SERVICE, (EMBEDDINGS,)),
    ]
