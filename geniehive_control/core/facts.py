"""What routing knows of an endpoint: as much as routes depend on, and alike for machines that are alike."""

from collections.abc import Mapping
from functools import lru_cache
from weakref import WeakValueDictionary

import msgspec

from geniehive.rules.families import identify, within
from geniehive.rules.model import Asset, Host, LoadState, RequestPolicy, Service, Value
from geniehive.rules.operations import Ability, Operation

IN_MEMORY = frozenset({LoadState.LOADED, LoadState.SLEEPING})


class Machine(Value, frozen=True, kw_only=True):
    """What roles may ask of a host."""

    trust_tier: str = ""
    device_class: str = ""
    workload_classes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


def machine(host: Host) -> Machine:
    return Machine(
        trust_tier=host.trust_tier,
        device_class=host.device_class,
        workload_classes=host.workload_classes,
        labels=tuple(sorted(host.labels.items())),
    )


class Facts(msgspec.Struct, frozen=True, kw_only=True, eq=False, weakref=True):
    """Of the same contents there is one; so it is compared, and looked up, by what it is and not by what is in it.

    loaded: whether the model is in memory; None: not known. labels: of host and service together.
    """

    operations: tuple[Operation, ...]
    hosted: bool
    family: str
    # Of which a part more than the family may be preferred: "qwen3-coder".
    name: str = ""
    context_tokens: int | None
    abilities: tuple[Ability, ...]
    lacking: tuple[Ability, ...]
    loaded: bool | None
    machine: Machine
    labels: tuple[tuple[str, str], ...]

    # Said again, since msgspec gives a frozen one a hash of its contents.
    __hash__ = object.__hash__


class Known:
    """Those that endpoints have now."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[object, ...], Facts] = WeakValueDictionary()

    def of(self, service: Service, asset: Asset, machine: Machine) -> Facts:
        state = asset.load_state
        loaded = None if state is LoadState.UNKNOWN else state in IN_MEMORY
        labels = tuple(sorted({**dict(machine.labels), **service.labels}.items())) if service.labels else machine.labels
        key = (
            service.operations_of(asset),
            service.hosted,
            identify(asset).family,
            identify(asset).name,
            asset.context_tokens,
            asset.abilities,
            asset.lacking_abilities,
            loaded,
            machine,
            labels,
        )
        found = self._known.get(key)
        if found is None:
            names = Facts.__struct_fields__
            found = self._known[key] = Facts(**dict(zip(names, key, strict=True)))  # type: ignore[arg-type]
        return found


_NO_THINKING = '{"chat_template_kwargs":{"enable_thinking":false}}'
# Ollama has a field of its own, and passes over what others take.
_NO_THINKING_BY_RUNTIME: Mapping[str, str] = {"ollama": '{"reasoning_effort":"none"}'}


def shaped(asset: Asset, facts: Facts, runtime: str) -> Asset:
    """With what control adds to the requests of local models."""
    return asset if facts.hosted or not within(facts.family, "qwen3") else _unthinking(asset, runtime)


@lru_cache(maxsize=1024)
def _unthinking(asset: Asset, runtime: str) -> Asset:
    # Before what the node says, so that this wins.
    own = RequestPolicy(operations=(Operation.CHAT,), defaults_json=_NO_THINKING_BY_RUNTIME.get(runtime, _NO_THINKING))
    return msgspec.structs.replace(asset, request_policies=(own, *asset.request_policies))
