"""Messages of the contract <-> the shared nouns of `geniehive.rules.model`.

`x_to_proto` and `x_from_proto` for each noun. Unset fields become None and back. Numbers of enums that this version
does not know become the zero value, or are left out of lists.

fields    how single fields are set and read
offer     what a node offers
load      what is going on there
routing   the routing table
profile   roles, aliases, benchmark samples
"""

from geniehive.convert.fields import (
    seconds,
    timestamp,
)
from geniehive.convert.load import (
    brief_load_from_proto,
    load_from_proto,
    load_to_proto,
    machine_load_from_proto,
    machine_load_to_proto,
    service_load_from_proto,
    service_load_to_proto,
)
from geniehive.convert.offer import (
    asset_from_proto,
    asset_to_proto,
    condition_from_proto,
    condition_to_proto,
    host_from_proto,
    host_to_proto,
    inventory_from_proto,
    inventory_to_proto,
    policy_from_proto,
    policy_to_proto,
    relay_from_proto,
    relay_to_proto,
    service_from_proto,
    service_to_proto,
    way_from_proto,
    way_to_proto,
    ways_from_proto,
)
from geniehive.convert.profile import (
    alias_from_proto,
    alias_to_proto,
    role_from_proto,
    role_to_proto,
    sample_from_proto,
    sample_to_proto,
)
from geniehive.convert.routing import (
    client_key_from_proto,
    client_key_to_proto,
    endpoint_from_proto,
    endpoint_to_proto,
    resource_from_proto,
    resource_to_proto,
    route_from_proto,
    route_to_proto,
    ruled_out_to_proto,
    score_term_from_proto,
    score_term_to_proto,
    speed_from_proto,
    speed_to_proto,
    upstream_from_proto,
    upstream_to_proto,
)

__all__ = [
    "alias_from_proto",
    "alias_to_proto",
    "asset_from_proto",
    "asset_to_proto",
    "brief_load_from_proto",
    "client_key_from_proto",
    "client_key_to_proto",
    "condition_from_proto",
    "condition_to_proto",
    "endpoint_from_proto",
    "endpoint_to_proto",
    "host_from_proto",
    "host_to_proto",
    "inventory_from_proto",
    "inventory_to_proto",
    "load_from_proto",
    "load_to_proto",
    "machine_load_from_proto",
    "machine_load_to_proto",
    "policy_from_proto",
    "policy_to_proto",
    "relay_from_proto",
    "relay_to_proto",
    "resource_from_proto",
    "resource_to_proto",
    "role_from_proto",
    "role_to_proto",
    "route_from_proto",
    "route_to_proto",
    "ruled_out_to_proto",
    "sample_from_proto",
    "sample_to_proto",
    "score_term_from_proto",
    "score_term_to_proto",
    "seconds",
    "service_from_proto",
    "service_load_from_proto",
    "service_load_to_proto",
    "service_to_proto",
    "speed_from_proto",
    "speed_to_proto",
    "timestamp",
    "upstream_from_proto",
    "upstream_to_proto",
    "way_from_proto",
    "way_to_proto",
    "ways_from_proto",
]
