"""Request ids: a client's own is kept if it is harmless in a header and in a log."""

import re

_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}\Z")


def is_sane(request_id: str) -> bool:
    return _SANE.match(request_id) is not None
