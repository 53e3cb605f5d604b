"""RoutingService.Resolve and ListRoutes on a real server."""

from typing import Any

import grpc

from geniehive import convert
from geniehive.rules.model import NameKind
from geniehive.rules.operations import Operation
from geniehive.v1 import routing_service_pb2 as pb
from tests.support.cluster import EMBEDDINGS, asset, service
from tests.support.control_server import AS_NODE, Control, as_, for_client, refused, running_control

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
