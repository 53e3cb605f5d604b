"""RecordBenchmarkSamples and ListBenchmarkSamples, between messages and the hub."""

from geniehive import convert, failures
from geniehive.v1 import admin_service_pb2, registry_service_pb2
from geniehive_control.core.benchmarks import Query
from geniehive_control.core.refusal import Refusal
from geniehive_control.hub import Hub
from geniehive_control.rpc.errors import to_refused
from geniehive_control.rpc.paging import asked, page

_Response = admin_service_pb2.RecordBenchmarkSamplesResponse


async def record_samples(request: admin_service_pb2.RecordBenchmarkSamplesRequest, hub: Hub, caller: str) -> _Response:
    """Refusal: FIELD_INVALID if they are too many. StoreUnavailable."""
    refusals = await hub.record_samples([convert.sample_from_proto(sample) for sample in request.samples], caller)
    return _Response(results=map(_result, refusals))


def _result(refusal: Refusal | None) -> _Response.Result:
    return _Response.Result(refused=None if refusal is None else failures.to_failure(to_refused(refusal)))


async def list_samples(
    request: registry_service_pb2.ListBenchmarkSamplesRequest, hub: Hub
) -> registry_service_pb2.ListBenchmarkSamplesResponse:
    """Refusal: FIELD_INVALID. StoreUnavailable."""
    size, after = asked(request)
    # Newest first is no order that text has: pages are by place.
    offset = int(after) if after is not None and after.isdecimal() else 0
    query = Query(
        service=request.service,
        asset_id=request.asset_id,
        workload=request.workload,
        limit=size + 1,
        offset=offset,
    )
    found = await hub.samples(query)
    places = ((f"{offset + number:015d}", sample) for number, sample in enumerate(found, 1))
    samples, token = page(request, places, convert.sample_to_proto)
    return registry_service_pb2.ListBenchmarkSamplesResponse(samples=samples, next_page_token=token)
