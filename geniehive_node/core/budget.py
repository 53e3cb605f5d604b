"""An offer within the size of a message."""

from collections.abc import Sequence

import msgspec

from geniehive.rules.model import Asset, Service

# Of the 4 MiB of a message; the rest is for the host, names and what encoding adds.
DEFAULT_BYTES = 3 * 1024 * 1024
LEAST_BYTES = 64 * 1024


def _size(value: Asset | Service) -> int:
    # Field names are in it, so this is never less than the message will have.
    return len(msgspec.msgpack.encode(value))


def fit(services: Sequence[Service], limit: int) -> tuple[Service, ...]:
    """The same services, with as many of their models as fit into `limit` bytes; the others are counted.

    Services with few models keep them all; those with the most share what is left.
    """
    if sum(map(_size, services)) <= limit:
        return tuple(services)
    left = limit - sum(_size(msgspec.structs.replace(s, assets=())) for s in services)
    fitted: dict[str, Service] = {}
    by_size = sorted(services, key=_size)
    for done, service in enumerate(by_size):
        share = max(0, left) // (len(by_size) - done)
        kept = []
        used = 0
        for asset in service.assets:
            used += _size(asset)
            if used > share:
                break
            kept.append(asset)
        left -= min(used, share)
        fitted[service.service] = msgspec.structs.replace(
            service, assets=tuple(kept), omitted_asset_count=len(service.assets) - len(kept)
        )
    return tuple(fitted[s.service] for s in services)
