"""What of an inventory is taken, and what is refused.

Items that are wrong or belong to another host are left out and named; the rest counts.
"""

from urllib.parse import urlsplit

import msgspec

from geniehive.rules import names, request_policy
from geniehive.rules.model import Asset, Condition, Host, Inventory, Relay, Service
from geniehive_control.core import reach
from geniehive_control.core.effects import Refused
from geniehive_control.core.refusal import Refusal, Why, field_invalid

# The end of the year 9999, which is as far as a Timestamp goes. Such a time could be sent to nobody.
END_OF_TIME = 253402300799.0


# Services and models of one host: what is more would hold up all others while it is compiled.
MOST_ITEMS = 20_000


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an inventory that counts."""

    host: Host
    services: dict[str, Service]
    relay: Relay | None
    refused: tuple[Refused, ...]


def accept(inventory: Inventory, host_id: str) -> Accepted:
    """Refusal: NOT_YOURS if the inventory is of another host than the session's, TOO_MUCH if it is too large."""
    if inventory.host.host_id != host_id:
        raise Refusal(
            Why.NOT_YOURS,
            f"this session is of host {host_id!r}, and sent the inventory of {inventory.host.host_id!r}",
        )
    items = sum(1 + len(service.assets) for service in inventory.services)
    if items > MOST_ITEMS:
        text = f"the inventory has {items} services and models, of which one host may have {MOST_ITEMS}"
        raise Refusal(Why.TOO_MUCH, text)
    services: dict[str, Service] = {}
    refused: list[Refused] = []
    host = inventory.host
    try:
        _check_time(host.condition)
    except Refusal as refusal:
        refused.append(Refused(service="", refusal=refusal))
        host = msgspec.structs.replace(host, condition=msgspec.structs.replace(host.condition, since=None))
    for service in inventory.services:
        try:
            _check_service(service, host_id)
            if service.service in services:
                raise field_invalid("service", f"{service.service!r} stands twice in the inventory")
        except Refusal as refusal:
            refused.append(Refused(service=service.service, refusal=refusal))
            continue
        assets, wrong = _assets(service)
        refused += wrong
        services[service.service] = msgspec.structs.replace(service, assets=assets) if wrong else service
    relay = inventory.relay
    if relay is not None:
        try:
            _check_relay(relay, host_id)
        except Refusal as refusal:
            refused.append(Refused(service="", refusal=refusal))
            relay = None
    return Accepted(host=host, services=services, relay=relay, refused=tuple(refused))


def _check_service(service: Service, host_id: str) -> None:
    try:
        owner, _ = names.split_service(service.service)
    except ValueError as error:
        raise field_invalid("service", str(error)) from error
    if owner != host_id:
        raise Refusal(Why.NOT_YOURS, f"service {service.service!r} does not belong to host {host_id!r}")
    for number, way in enumerate(service.ways):
        if way.direct_url is not None:
            _check_origin(way.direct_url, f"ways[{number}].direct.base_url")
    _check_time(service.condition)


def _check_time(condition: Condition) -> None:
    if condition.since is not None and not 0 <= condition.since < END_OF_TIME:
        raise field_invalid("condition.since_time", "must lie between the years 1970 and 9999")


def _assets(service: Service) -> tuple[tuple[Asset, ...], list[Refused]]:
    taken: dict[str, Asset] = {}
    refused: list[Refused] = []
    for asset in service.assets:
        refusal = None
        if not names.is_model_name(asset.asset_id):
            refusal = field_invalid("asset_id", f"{asset.asset_id!r} is no model name")
        elif not names.is_model_name(asset.upstream_name):
            refusal = field_invalid("upstream_name", f"{asset.upstream_name!r} is no model name")
        elif asset.upstream_name in taken:
            refusal = field_invalid("upstream_name", f"{asset.upstream_name!r} stands twice in {service.service}")
        elif asset.request_policies:
            refusal = _policy_refusal(asset)
        if refusal is None:
            taken[asset.upstream_name] = asset
        else:
            refused.append(Refused(service=service.service, upstream_name=asset.upstream_name, refusal=refusal))
    return tuple(taken.values()), refused


def _policy_refusal(asset: Asset) -> Refusal | None:
    for number, policy in enumerate(asset.request_policies):
        try:
            request_policy.check(policy)
        except ValueError as error:
            return field_invalid(f"request_policies[{number}]", str(error))
    return None


def _check_relay(relay: Relay, host_id: str) -> None:
    if relay.host_id != host_id:
        raise Refusal(Why.NOT_YOURS, f"the relay of {relay.host_id!r} does not belong to host {host_id!r}")
    for number, url in enumerate(relay.base_urls):
        field = f"relay.base_urls[{number}]"
        _check_origin(url, field)
        if url.startswith("http://") and reach.place(url) is not None:
            raise field_invalid(field, "a relay that is not on loopback must be https")


def _check_origin(url: str, field: str) -> None:
    """Gateways append the client's path, so that anything after the port would be wrong."""
    try:
        parts = urlsplit(url)
        good = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and parts.username is None
            and url.isprintable()
            and " " not in url
            and url == f"{parts.scheme}://{parts.netloc}"
        )
    except ValueError:
        good = False
    if not good:
        # Not shown: somebody may have written a password into it.
        raise field_invalid(field, 'must be like "http://192.0.2.7:11434", with no user, path or slash at the end')
