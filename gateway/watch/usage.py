"""RegistryService.QueryUsage, asked in a client's name."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from gateway.core.questions import Away, Forbidden, Found, Question, Wrong
from geniehive import usage
from geniehive.channels import CLIENT_KEY_ID
from geniehive.failures import from_rpc_error
from geniehive.v1.failure_pb2 import FAILURE_REASON_FIELD_INVALID

if TYPE_CHECKING:  # the stub file alone has it
    from geniehive.v1.registry_service_pb2_grpc import RegistryServiceAsyncStub

DEADLINE = 10.0


class AskUsage:
    """stub: to ask control by; None while it is away. metadata: what proves this gateway."""

    def __init__(
        self, stub: "Callable[[], RegistryServiceAsyncStub | None]", metadata: tuple[tuple[str, str], ...]
    ) -> None:
        self._stub = stub
        self._metadata = metadata

    async def __call__(self, question: Question, key_id: str) -> Found:
        """key_id: of the client, "" where authentication is off. Wrong, Forbidden, Away."""
        try:
            asked = usage.request(
                question.by, question.since, question.until, question.limit, question.page, question.only
            )
        except ValueError as error:
            raise Wrong(str(error)) from error
        stub = self._stub()
        if stub is None:
            raise Away("there is no connection to it")
        metadata = (*self._metadata, (CLIENT_KEY_ID, key_id)) if key_id else self._metadata
        try:
            answer = await stub.QueryUsage(asked, timeout=DEADLINE, metadata=metadata)
        except grpc.RpcError as error:
            refused = from_rpc_error(error)
            if refused.reason == FAILURE_REASON_FIELD_INVALID:
                raise Wrong(refused.message) from error
            if refused.code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                raise Forbidden(refused.message) from error
            raise Away(refused.message, refused.retry_after) from error
        return Found([usage.view(question.by, row) for row in answer.rows], answer.next_page_token)
