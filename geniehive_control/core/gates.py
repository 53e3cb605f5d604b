"""What a role demands of an endpoint, in the order of the contract's gates.

Health, accept_requests and availability are not asked here: a service that is away stays in its tiers, and its upstream
says that it takes nothing (`verdict`).
"""

from collections.abc import Iterable
from typing import NamedTuple

from geniehive.rules.model import Gate, RoutingPolicy, Rule
from geniehive.rules.operations import Operation
from geniehive_control.core.facts import Facts


class Stopped(NamedTuple):
    """The first gate that an endpoint does not pass, and why, in words."""

    gate: Gate
    reason: str


def operation(facts: Facts, wanted: Operation) -> Stopped | None:
    if wanted in facts.operations:
        return None
    return Stopped(Gate.OPERATION, f"it does not serve {wanted.word}")


def hosted(facts: Facts, allowed: bool) -> Stopped | None:
    if allowed or not facts.hosted:
        return None
    return Stopped(Gate.HOSTED, "a hosted provider, which is not allowed here")


def joins_nothing() -> Stopped:
    """What holds a provider back from a name that others serve."""
    return Stopped(Gate.HOSTED, "a hosted provider, which joins no name of local services")


def demands(facts: Facts, policy: RoutingPolicy) -> Stopped | None:
    """All that come after `hosted`."""
    machine = facts.machine
    for gate, rule, words, what in (
        (Gate.TRUST_TIER, policy.trust_tiers, (machine.trust_tier,), "trust tier"),
        (Gate.DEVICE_CLASS, policy.device_classes, (machine.device_class,), "device class"),
    ):
        if (reason := _ruled_out(rule, words, what)) is not None:
            return Stopped(gate, reason)
    # A host without any lends itself to anything.
    classes = machine.workload_classes
    if (
        reason := _ruled_out(policy.workload_classes, classes or policy.workload_classes.allowed, "workload class")
    ) is not None:
        return Stopped(Gate.WORKLOAD_CLASS, reason)
    if policy.min_context_tokens is not None:
        if facts.context_tokens is None:
            return Stopped(Gate.MIN_CONTEXT, f"its context is not known; {policy.min_context_tokens} is asked for")
        if facts.context_tokens < policy.min_context_tokens:
            return Stopped(Gate.MIN_CONTEXT, f"context {facts.context_tokens} < {policy.min_context_tokens}")
    for ability in policy.required_abilities:
        if ability not in facts.abilities:
            known = "it lacks" if ability in facts.lacking else "it is not known to have"
            return Stopped(Gate.ABILITIES, f"{known} {ability.name.lower()}")
    if policy.require_loaded and not facts.loaded:
        return Stopped(
            Gate.REQUIRE_LOADED, "not in memory" if facts.loaded is False else "not known whether it is in memory"
        )
    return None


def _ruled_out(rule: Rule, words: Iterable[str], what: str) -> str | None:
    have = [word for word in words if word]
    for word in have:
        if word in rule.denied:
            return f"{what} {word} is denied"
    if rule.allowed and not any(word in rule.allowed for word in have):
        mine = f"{what} {', '.join(have)} is not" if have else f"its {what} is not known, and not"
        return f"{mine} one of {', '.join(rule.allowed)}"
    return None
