"""MatchRoutes and ExplainRoute, between messages and the core."""

from geniehive import convert
from geniehive.rules.model import NameKind
from geniehive.rules.operations import Operation
from geniehive.v1 import routing_service_pb2 as pb
from geniehive_control.core import explaining, matching
from geniehive_control.core.refusal import field_invalid
from geniehive_control.core.registry import Registry


def match_routes(request: pb.MatchRoutesRequest, registry: Registry) -> pb.MatchRoutesResponse:
    """Refusal: FIELD_INVALID."""
    query = matching.Query(
        tasks=tuple(request.tasks),
        workloads=tuple(request.workloads),
        operation=operation(request.operation),
        modality=request.modality,
        include_services=request.include_services,
        limit=request.limit,
    )
    found = matching.match(registry.table, query, registry.load_of)
    return pb.MatchRoutesResponse(
        candidates=[
            pb.MatchRoutesResponse.Candidate(
                model=made.model,
                kind=made.kind,  # type: ignore[arg-type]
                score=made.score,
                terms=map(convert.score_term_to_proto, made.terms),
                endpoint=made.endpoint,
            )
            for made in found
        ]
    )


def explain_route(request: pb.ExplainRouteRequest, registry: Registry) -> pb.ExplainRouteResponse:
    """Refusal: ROUTE_NOT_FOUND, OPERATION_NOT_SERVED, NAME_AMBIGUOUS."""
    found = explaining.explain(registry.table, request.model, operation(request.operation) or Operation.CHAT)
    return pb.ExplainRouteResponse(
        route=convert.route_to_proto(found.route),
        candidates=map(_candidate, found.candidates),
        resources=map(convert.resource_to_proto, found.resources),
    )


def _candidate(made: explaining.Candidate) -> pb.ExplainRouteResponse.Candidate:
    message = pb.ExplainRouteResponse.Candidate(
        endpoint=made.endpoint,
        score=made.score,
        terms=map(convert.score_term_to_proto, made.terms),
        ruled_out=None if made.ruled_out is None else convert.ruled_out_to_proto(made.ruled_out),
    )
    if made.tier is not None:
        message.tier = made.tier
    return message


def operation(number: int) -> Operation | None:
    """None: any. Refusal: FIELD_INVALID."""
    if number == 0:
        return None
    try:
        return Operation(number)
    except ValueError as error:
        raise field_invalid("operation", f"{number} is none that this version knows") from error


def kind(number: int) -> NameKind | None:
    """None: any. Refusal: FIELD_INVALID."""
    if number == 0:
        return None
    try:
        return NameKind(number)
    except ValueError as error:
        raise field_invalid("kind", f"{number} is none that this version knows") from error
