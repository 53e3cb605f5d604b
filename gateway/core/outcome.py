"""What became of one request: the one record that usage, metrics and the access log are made of."""

from enum import StrEnum

import msgspec

from geniehive.rules.operations import Operation


class Ending(StrEnum):
    """How a request ended, as its client saw it."""

    OK = "ok"
    # The client left.
    CANCELLED = "cancelled"
    # Refused by the gateway: no endpoint, no slot in time.
    UNSERVED = "unserved"
    # The engine's own 4xx. Says nothing about its health.
    REFUSED = "refused"
    # Endpoints were asked and failed, or the answer broke off.
    FAILED = "failed"


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """As the engine counted them. cached: of `prompt`, those taken from its cache."""

    prompt: int
    completion: int
    cached: int = 0


class Failed(msgspec.Struct, frozen=True, gc=False):
    """One attempt that did not serve. kind: "connect", "upstream", "timeout", "cut": count against health; "refused":
    answered 4xx, or 500; "loading": had no time yet.
    """

    endpoint: str
    kind: str


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """model: as the client wrote it, "" if there is no such route. endpoint, service, host, label: of the last attempt,
    "" if none was made. status: sent to the client, 0 if nothing was. seconds: from the request's head to the end of
    its answer. first: until the first byte of the answer's body that came from an engine. waited: for a slot, of
    `seconds`. tokens: None if the engine did not say.

    For learning how fast the endpoint is, only of requests that did not queue, else None. prefill: tokens of the prompt
    that it had to read, and seconds. decode: tokens written, and the seconds that a request alone would have taken for
    them. cold: seconds that loading the model added.
    """

    request_id: str
    key_id: str
    operation: Operation
    model: str
    ending: Ending
    status: int
    endpoint: str = ""
    service: str = ""
    host: str = ""
    label: str = ""
    attempts: int = 0
    failed: tuple[Failed, ...] = ()
    stream: bool = False
    seconds: float = 0.0
    first: float | None = None
    waited: float = 0.0
    tokens: Tokens | None = None
    prefill: tuple[int, float] | None = None
    decode: tuple[int, float] | None = None
    cold: float | None = None
