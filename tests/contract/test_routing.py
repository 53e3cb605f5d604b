"""RoutingService.Resolve, ListRoutes, MatchRoutes and ExplainRoute on a real server."""

from typing import Any

import grpc

from geniehive import convert
from geniehive.rules.model import Alias, Gate, NameKind, Role
from geniehive.rules.operations import Operation
from geniehive.v1 import routing_service_pb2 as pb
from tests.support.cluster import CHAT, EMBEDDINGS, asset, service
from tests.support.control_server import AS_NODE, Control, as_, for_client, refused, running_control
from tests.support.fake_store import FakeStore

SERVICE = service("gpu-1/ollama", "qwen3", asset("e1", EMBEDDINGS), asset("e2", EMBEDDINGS))


def resolve(control: Control, model: str, operation: int = 0, metadata: object = AS_NODE) -> Any:
    request = pb.ResolveRequest(model=model, operation=operation)  # type: ignore[arg-type]
    return control.routing.Resolve(request, metadata=metadata)


async def test_resolve_step_1_errors() -> None:
    async with running_control() as control:
        await control.node("gpu-1", SERVICE)
        error = await refused(resolve(control, "qwen"))
        assert (error.name, error.code) == ("ROUTE_NOT_FOUND", grpc.StatusCode.NOT_FOUND)
        assert error.metadata == {"near_matches": "qwen3"}
        error = await refused(resolve(control, "qwen3", Operation.EMBEDDINGS))
        assert (error.name, error.metadata) == ("OPERATION_NOT_SERVED", {"operations": "chat"})
        error = await refused(resolve(control, "gpu-1/ollama", Operation.EMBEDDINGS))
        assert (error.name, error.metadata) == ("NAME_AMBIGUOUS", {"names": "e1\ne2"})
        assert (await refused(resolve(control, "qwen3", 99))).name == "FIELD_INVALID"


async def test_resolve_step_2_the_route_and_what_it_leads_to_as_in_the_table() -> None:
    async with running_control() as control:
        await control.node("gpu-1", SERVICE)
        answer = await resolve(control, "qwen3")
        found = [convert.resource_from_proto(resource) for resource in answer.resources]
        assert [resource.name for resource in found] == [
            "route/qwen3",
            "endpoint/gpu-1/ollama/qwen3",
            "upstream/gpu-1/ollama",
            "relay/gpu-1",
        ]
        assert all(control.hub.registry.table.get(resource.name) == resource for resource in found)


async def test_resolve_relays_are_for_gateways_alone() -> None:
    async with running_control() as control:
        await control.node("gpu-1", SERVICE)
        for metadata, relays in (
            (AS_NODE, True),
            (for_client("infer"), True),
            (as_("infer"), False),
            (as_("read"), False),
            (as_("admin"), False),
        ):
            answer = await resolve(control, "qwen3", metadata=metadata)
            assert any(resource.HasField("relay") for resource in answer.resources) is relays


async def test_resolve_somebody_offline_is_an_answer() -> None:
    async with running_control() as control:
        node = await control.node("gpu-1", SERVICE)
        await node.done()
        assert await node.answer() is None
        answer = await resolve(control, "qwen3", Operation.CHAT)
        (upstream,) = [resource.upstream for resource in answer.resources if resource.HasField("upstream")]
        assert not upstream.routable
        assert upstream.condition.detail


async def test_list_routes() -> None:
    async with running_control() as control:
        await control.node("gpu-1", SERVICE)

        async def names(**query: object) -> list[str]:
            answer = await control.routing.ListRoutes(pb.ListRoutesRequest(**query), metadata=as_("read"))  # type: ignore[arg-type]
            return [route.model for route in answer.routes]

        assert await names() == ["e1", "e2", "gpu-1/ollama", "qwen3"]
        assert await names(kind=NameKind.SERVICE) == ["gpu-1/ollama"]
        assert await names(operation=Operation.EMBEDDINGS) == ["e1", "e2", "gpu-1/ollama"]
        assert await names(operation=Operation.EMBEDDINGS, kind=NameKind.ASSET) == ["e1", "e2"]
        assert await names(page_size=2) == ["e1", "e2"]
        error = await refused(control.routing.ListRoutes(pb.ListRoutesRequest(page_size=-1), metadata=as_("read")))
        assert error.metadata == {"field": "page_size"}
        assert (await refused(control.routing.ListRoutes(pb.ListRoutesRequest(), metadata=as_("infer")))).name == (
            "SCOPE_MISSING"
        )


# MatchRoutes and ExplainRoute.

ROLE = Role(role_id="coder", description="Writes code.", operation=CHAT)


def stored(*aliases: Alias) -> FakeStore:
    store = FakeStore()
    store.roles["coder"] = ROLE
    store.aliases |= {alias.alias: alias for alias in aliases}
    return store


async def test_match_routes() -> None:
    async with running_control(stored()) as control:
        await control.node("gpu-1", SERVICE)

        async def match(metadata: object = as_("read"), **query: object) -> pb.MatchRoutesResponse:
            made: pb.MatchRoutesResponse = await control.routing.MatchRoutes(
                pb.MatchRoutesRequest(**query),  # type: ignore[arg-type]
                metadata=metadata,
            )
            return made

        answer = await match(tasks=["write code"], operation=CHAT, include_services=True)
        coder, ollama = answer.candidates
        assert (coder.model, coder.kind, coder.endpoint) == ("coder", NameKind.ROLE, "endpoint/gpu-1/ollama/qwen3")
        assert [term.name for term in coder.terms] == ["text", "runtime", "benchmark", "family"]
        assert coder.score == sum(term.weight * term.value for term in coder.terms)
        assert coder.terms[0].signals["shared_words"] == 1
        assert coder.terms[0].reasons == ["1 of the task's 2 words: code"]
        assert (ollama.model, ollama.kind) == ("gpu-1/ollama", NameKind.SERVICE)
        # A gateway asks for its client.
        assert (await match(for_client("read"), modality="text")).candidates[0].model == "coder"


async def test_match_routes_refuses() -> None:
    async with running_control() as control:
        for query, field in (
            (pb.MatchRoutesRequest(limit=-1, tasks=["x"]), "limit"),
            (pb.MatchRoutesRequest(), "tasks"),
            (pb.MatchRoutesRequest(tasks=["x" * 1_000_000]), "tasks"),
            (pb.MatchRoutesRequest(operation=99), "operation"),  # type: ignore[arg-type]
            (pb.MatchRoutesRequest(workloads=["gone"]), "workloads"),
            (pb.MatchRoutesRequest(modality="smell"), "modality"),
        ):
            error = await refused(control.routing.MatchRoutes(query, metadata=as_("read")))
            assert (error.name, error.metadata) == ("FIELD_INVALID", {"field": field})
        for metadata in (as_("infer"), for_client("infer")):
            error = await refused(control.routing.MatchRoutes(pb.MatchRoutesRequest(tasks=["x"]), metadata=metadata))
            assert error.name == "SCOPE_MISSING"


async def test_explain_route() -> None:
    async with running_control(stored()) as control:
        await control.node("gpu-1", SERVICE)
        request = pb.ExplainRouteRequest(model="coder")
        for metadata in (as_("read"), for_client("read")):
            answer = await control.routing.ExplainRoute(request, metadata=metadata)
            assert [branch.operations for branch in answer.route.branches] == [[Operation.CHAT]]
            found = [(c.endpoint, c.tier if c.HasField("tier") else None) for c in answer.candidates]
            assert found == [
                ("endpoint/gpu-1/ollama/qwen3", 0),
                ("endpoint/gpu-1/ollama/e1", None),
                ("endpoint/gpu-1/ollama/e2", None),
            ]
            assert answer.candidates[1].ruled_out.gate == Gate.OPERATION
            assert answer.candidates[1].ruled_out.reason == "it does not serve chat"
            assert {resource.name for resource in answer.resources} == {
                "endpoint/gpu-1/ollama/qwen3",
                "upstream/gpu-1/ollama",
            }
        embeddings = pb.ExplainRouteRequest(model="gpu-1/ollama", operation=Operation.EMBEDDINGS)  # type: ignore[arg-type]
        assert (await refused(control.routing.ExplainRoute(embeddings, metadata=as_("read")))).name == "NAME_AMBIGUOUS"
        gone = pb.ExplainRouteRequest(model="gone")
        assert (await refused(control.routing.ExplainRoute(gone, metadata=as_("read")))).name == "ROUTE_NOT_FOUND"
        assert (await refused(control.routing.ExplainRoute(request, metadata=as_("infer")))).name == "SCOPE_MISSING"


async def test_resolve_a_name_that_only_a_glob_has() -> None:
    alias = Alias(alias="claude-*", target="coder")
    async with running_control(stored(alias)) as control:
        await control.node("gpu-1", SERVICE)
        answer = await resolve(control, "claude-opus")
        assert [resource.name for resource in answer.resources] == [
            "route/claude-*",
            "endpoint/gpu-1/ollama/qwen3",
            "upstream/gpu-1/ollama",
            "relay/gpu-1",
        ]
        assert answer.resources[0].route.glob
