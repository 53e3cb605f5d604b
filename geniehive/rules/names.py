"""How hosts, services, models and resources of the routing table are named."""

import re

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_id(text: str) -> bool:
    """Whether `text` may be a host_id or the second half of a service's name."""
    return _ID.match(text) is not None


def to_id(text: str, otherwise: str = "host") -> str:
    """The nearest allowed id to a free text: "My PC.local" -> "my-pc.local"."""
    made = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:63]
    return made or otherwise


def is_model_name(text: str) -> bool:
    """Whether `text` may name a model: 1 to 512 characters, no control characters."""
    return 0 < len(text) <= 512 and _CONTROL.search(text) is None


def join_service(host_id: str, service_id: str) -> str:
    """ "gpu-1", "ollama" -> "gpu-1/ollama", the one form in which a service is named."""
    return f"{host_id}/{service_id}"


def split_service(service: str) -> tuple[str, str]:
    """The reverse of `join_service`. ValueError if `service` is no "host/service"."""
    host_id, slash, service_id = service.partition("/")
    if not slash or not is_id(host_id) or not is_id(service_id):
        raise ValueError(f'a service is named "host/service", not {service!r}')
    return host_id, service_id


def route_resource(model: str) -> str:
    return f"route/{model}"


def endpoint_resource(service: str, upstream_name: str) -> str:
    return f"endpoint/{service}/{upstream_name}"


def upstream_resource(service: str) -> str:
    return f"upstream/{service}"


def relay_resource(host_id: str) -> str:
    return f"relay/{host_id}"


def key_resource(key_id: str) -> str:
    return f"key/{key_id}"


def glob_pattern(glob: str) -> re.Pattern[str]:
    """What matches a name that stands for many, such as "claude-*"; "*" alone is special."""
    return re.compile(".*".join(map(re.escape, glob.split("*"))) + r"\Z")


def longest_first(glob: str) -> tuple[int, str]:
    """What globs are ordered by: the first that matches a name decides."""
    return -len(glob), glob
