"""RegistryService.QueryUsage, asked in a client's name."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.core.questions import Away, Found, Question, Wrong
from gateway.watch.answers import DEADLINE, answered, for_client
from geniehive import usage

if TYPE_CHECKING:  # the stub file alone has it
    from geniehive.v1.registry_service_pb2_grpc import RegistryServiceAsyncStub


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
        call = stub.QueryUsage(asked, timeout=DEADLINE, metadata=for_client(self._metadata, key_id))
        answer = await answered(call)
        return Found([usage.view(question.by, row) for row in answer.rows], answer.next_page_token)
