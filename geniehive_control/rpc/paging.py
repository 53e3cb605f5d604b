"""Pages of lists, as the comment of RegistryService says.

A token holds the order of the last object and a digest of the query, so that it is good after a restart and for that
query only.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable
from typing import TypeVar

from google.protobuf.message import Message

from geniehive_control.core.refusal import field_invalid

_DEFAULT, _MOST = 100, 1000
# A page ends here even if fewer objects than asked for are in it: a message must stay below 4 MiB.
_BYTES = 3 * 1024 * 1024


T = TypeVar("T")
M = TypeVar("M", bound=Message)


def page(request: Message, items: Iterable[tuple[str, T]], render: Callable[[T], M]) -> tuple[list[M], str]:
    """The messages of one page and the token of the next, empty at the end.

    items: with what they are ordered by, in that order. Refusal: FIELD_INVALID.
    """
    size, after = asked(request)
    query = _query(request)
    messages: list[M] = []
    total, last = 0, ""
    for order, item in items:
        if after is not None and order <= after:
            continue
        if len(messages) == size or total > _BYTES:
            return messages, base64.urlsafe_b64encode(query + last.encode()).decode()
        message = render(item)
        messages.append(message)
        total += message.ByteSize()
        last = order
    return messages, ""


def asked(request: Message) -> tuple[int, str | None]:
    """How many objects a page has, and after which order it begins; None: at the beginning. Refusal: FIELD_INVALID."""
    size: int = request.page_size  # type: ignore[attr-defined]
    token: str = request.page_token  # type: ignore[attr-defined]
    if size < 0:
        raise field_invalid("page_size", "must not be negative")
    if not token:
        return min(size or _DEFAULT, _MOST), None
    try:
        held = base64.b64decode(token, altchars=b"-_", validate=True)
        query, after = held[:8], held[8:].decode()
    except (binascii.Error, ValueError) as error:
        raise field_invalid("page_token", "is none that control gave") from error
    if query != _query(request):
        raise field_invalid("page_token", "belongs to another query; start without one")
    return min(size or _DEFAULT, _MOST), after


def _query(request: Message) -> bytes:
    copy = type(request)()
    copy.CopyFrom(request)
    copy.ClearField("page_size")
    copy.ClearField("page_token")
    text = copy.DESCRIPTOR.full_name.encode() + copy.SerializeToString(deterministic=True)
    return hashlib.blake2b(text, digest_size=8).digest()
