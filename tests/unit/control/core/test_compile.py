"""What a name means: of a model, a service, an alias."""

from geniehive.rules.model import (
    Alias,
    Asset,
    Branch,
    Gate,
    NameKind,
    Owner,
    Role,
    Route,
    RuledOut,
    Service,
    Strategy,
    Tier,
    TierEndpoint,
)
from geniehive.rules.operations import Operation
from geniehive_control.core.defaults import RoutingDefaults
from tests.support.cluster import CHAT, EMBEDDINGS, asset, service
from tests.support.routing import endpoints, route, table


def tier(model: str, *endpoints: str) -> tuple[Tier, ...]:
    found = tuple(TierEndpoint(endpoint=endpoint) for endpoint in endpoints)
    return (Tier(label=model, strategy=Strategy.SOONEST, endpoints=found),)


def test_nothing_of_this_name() -> None:
    assert route(table(), "qwen3") is None


def test_one_name_with_an_endpoint_on_each_host() -> None:
    found = table(service("b/vllm", "qwen3"), service("a/ollama", "qwen3", "other"))
    assert route(found, "qwen3") == Route(
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
    found = route(table(service("a/x", both), service("b/x", asset("m", CHAT, Operation.COMPLETIONS, EMBEDDINGS))), "m")
    assert found is not None
    assert [branch.operations for branch in found.branches] == [(CHAT, Operation.COMPLETIONS), (EMBEDDINGS,)]


def test_the_same_model_under_two_names_of_an_engine() -> None:
    twice = service("a/x", Asset(asset_id="m", upstream_name="m:1"), Asset(asset_id="m", upstream_name="m:2"))
    assert endpoints(table(twice), "m") == [["a/x/m:1", "a/x/m:2"]]


def test_a_provider_joins_no_name_that_is_local() -> None:
    cloud = service("a/cloud", "m", hosted=True)
    assert endpoints(table(cloud), "m") == [["a/cloud/m"]]
    assert endpoints(table(cloud, service("a/ollama", "m")), "m") == [["a/ollama/m"]]
    # Of another operation it is the only one.
    apart = table(cloud, service("a/ollama", asset("m", EMBEDDINGS)))
    assert endpoints(apart, "m", CHAT) == [["a/cloud/m"]]
    assert endpoints(apart, "m", EMBEDDINGS) == [["a/ollama/m"]]
    # Where it may, it comes after those of the house.
    allowed = RoutingDefaults(allow_hosted=True)
    joined = table(cloud, service("a/ollama", "m"), routing=allowed)
    assert endpoints(joined, "m") == [["a/ollama/m"], ["a/cloud/m"]]


def test_direct_names_have_the_default_strategy() -> None:
    found = route(table(service("a/x", "m"), routing=RoutingDefaults(strategy=Strategy.LEAST_LOADED)), "m")
    assert found is not None
    assert found.branches[0].tiers[0].strategy is Strategy.LEAST_LOADED


def test_a_service_with_one_model_for_an_operation() -> None:
    found = table(service("a/x", "m", asset("e1", EMBEDDINGS), asset("e2", EMBEDDINGS)))
    assert route(found, "a/x") == Route(
        model="a/x",
        branches=(
            Branch(operations=(CHAT,), kind=NameKind.SERVICE, tiers=tier("a/x", "endpoint/a/x/m")),
            Branch(operations=(EMBEDDINGS,), kind=NameKind.SERVICE, choose_from=("e1", "e2")),
        ),
    )


def test_a_service_without_models_is_a_503_and_not_a_404() -> None:
    found = route(table(service("a/x")), "a/x")
    assert found is not None
    (branch,) = found.branches
    assert branch.tiers == ()
    assert branch.ruled_out == (RuledOut(endpoint="", gate=Gate.OPERATION, reason="a/x offers no model now"),)
    unknown = route(table(Service(service="a/x")), "a/x")
    assert unknown is not None
    assert set(unknown.branches[0].operations) == set(Operation)


def test_a_model_called_like_a_service_comes_first_and_hides_it() -> None:
    found = route(table(service("a/x", "m", asset("e", EMBEDDINGS)), service("b/y", "a/x")), "a/x")
    assert found is not None
    assert found.shadows == (NameKind.SERVICE,)
    assert [(b.kind, b.operations) for b in found.branches] == [
        (NameKind.ASSET, (CHAT,)),
        (NameKind.SERVICE, (EMBEDDINGS,)),
    ]


def test_the_order_of_kinds() -> None:
    of = service("a/x", "n", asset("e", EMBEDDINGS))
    role = Role(role_id="n", operation=Operation.SPEECH)
    found = route(table(of, aliases=[Alias(alias="n", target="e")], roles=[role]), "n")
    assert found is not None
    assert [(b.kind, b.operations) for b in found.branches] == [
        (NameKind.ALIAS, (EMBEDDINGS,)),
        (NameKind.ASSET, (CHAT,)),
        (NameKind.ROLE, (Operation.SPEECH,)),
    ]
    assert found.shadows == ()
    hidden = route(table(of, aliases=[Alias(alias="n", target="a/x")], roles=[Role(role_id="n", operation=CHAT)]), "n")
    assert hidden is not None
    assert hidden.shadows == (NameKind.ASSET, NameKind.ROLE)


def test_an_alias_is_what_it_stands_for() -> None:
    of = service("a/x", "m", asset("e1", EMBEDDINGS), asset("e2", EMBEDDINGS))
    found = table(of, aliases=[Alias(alias="fast", target="m"), Alias(alias="box", target="a/x")])
    fast, box = route(found, "fast"), route(found, "box")
    assert fast is not None
    assert fast.branches == (
        Branch(operations=(CHAT,), kind=NameKind.ALIAS, target="m", tiers=tier("m", "endpoint/a/x/m")),
    )
    assert box is not None
    assert [(b.target, b.choose_from) for b in box.branches] == [("a/x", ()), ("a/x", ("e1", "e2"))]


def test_an_alias_of_something_that_is_not_there_is_a_503() -> None:
    found = route(table(aliases=[Alias(alias="fast", target="m")]), "fast")
    assert found is not None
    (branch,) = found.branches
    assert set(branch.operations) == set(Operation)
    assert branch.ruled_out[0].reason == "it stands for m, and nothing has that name now"


def test_a_glob_shadows_names_that_it_matches_but_what_it_stands_for() -> None:
    of = service("a/x", "qwen3:8b", "qwen3:4b", "other")
    aliases = [Alias(alias="q*", target="other"), Alias(alias="qwen*", target="qwen3:8b")]
    found = table(of, aliases=aliases)
    short, longer = route(found, "qwen3:4b"), route(found, "qwen*")
    assert short is not None
    assert (short.branches[0].target, short.shadows) == ("qwen3:8b", (NameKind.ASSET,))
    assert longer is not None
    assert longer.glob
    assert longer.branches == short.branches
    own = route(found, "qwen3:8b")
    assert own is not None
    assert (own.branches[0].kind, own.shadows) == (NameKind.ASSET, ())
    # Nothing has this very name: the glob's route is for it.
    assert route(found, "qwen4") is None


def test_a_glob_that_leads_nowhere_hides_nothing() -> None:
    found = route(table(service("a/x", "m"), aliases=[Alias(alias="*", target="gone")]), "m")
    assert found is not None
    assert found.branches[0].kind is NameKind.ASSET


def test_one_model_under_several_spellings_has_a_name_of_its_own() -> None:
    services = [
        service("a/ollama", asset("gpt-oss:120b", quantization="MXFP4")),
        service("b/vllm", "openai/gpt-oss-120b"),
        service("c/llamacpp", "gpt-oss-120b-Q4.gguf"),
        service("d/cloud", "x/gpt-oss-120b", hosted=True),
    ]
    found = table(*services)
    joined = [["a/ollama/gpt-oss:120b", "b/vllm/openai/gpt-oss-120b", "c/llamacpp/gpt-oss-120b-Q4.gguf"]]
    assert endpoints(found, "gpt-oss-120b") == joined
    assert found.found_aliases() == {
        "gpt-oss-120b": Alias(
            alias="gpt-oss-120b",
            target="gpt-oss-120b-Q4.gguf, gpt-oss:120b, openai/gpt-oss-120b",
            owner=Owner.FOUND,
        )
    }
    assert endpoints(found, "gpt-oss:120b") == [["a/ollama/gpt-oss:120b"]]
    off = table(*services, routing=RoutingDefaults(found_names=False))
    assert off.found_aliases() == {}
    assert route(off, "gpt-oss-120b") is None


def test_a_found_name_that_a_service_spells_so_itself_is_all_of_them() -> None:
    found = table(service("a/x", "qwen3:8b"), service("b/y", "qwen3-8b"))
    assert endpoints(found, "qwen3-8b") == [["a/x/qwen3:8b", "b/y/qwen3-8b"]]
    made = route(found, "qwen3-8b")
    assert made is not None
    assert made.shadows == ()


def test_a_found_name_gives_way_to_what_somebody_configured() -> None:
    services = [service("a/x", "qwen3:8b", "m"), service("b/y", "Qwen/Qwen3-8B")]
    for of in (
        table(*services, aliases=[Alias(alias="qwen3-8b", target="m")]),
        table(*services, aliases=[Alias(alias="qwen3-*", target="m")]),
        table(*services, roles=[Role(role_id="qwen3-8b", operation=CHAT)]),
    ):
        assert of.found_aliases() == {}
        found = route(of, "qwen3-8b")
        assert found is None or found.branches[0].target == "m" or found.branches[0].kind is NameKind.ROLE


def test_how_long_answers_are_is_said_where_it_can_be_known() -> None:
    found = table(service("a/x", asset("m", CHAT, EMBEDDINGS)))
    found.put_expected("m", 250)
    found.put_expected("nobody", 1)
    assert found.compile() == {"route/m"}
    made = route(found, "m")
    assert made is not None
    assert [(b.operations, b.expected_completion_tokens) for b in made.branches] == [
        ((CHAT,), 250),
        ((EMBEDDINGS,), None),
    ]
    found.put_expected("m", None)
    found.compile()
    made = route(found, "m")
    assert made is not None
    assert made.branches[0].operations == (CHAT, EMBEDDINGS)


def test_weights_are_made_for_who_asks_for_them() -> None:
    services = [service("a/x", asset("m", load_state=3)), service("b/x", "m")]
    found = route(table(*services, routing=RoutingDefaults(strategy=Strategy.SCORED)), "m")
    assert found is not None
    assert [(e.weight, e.reason) for e in found.branches[0].tiers[0].endpoints] == [(160, "in memory"), (0, "")]
