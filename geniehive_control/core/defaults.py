"""What the operator of a cluster sets for all routes, and what things weigh in a match score."""

from geniehive.rules.model import Strategy, Value


class Weights(Value, frozen=True, kw_only=True):
    """Of the parts of a match score; those of one kind add up to 1."""

    role_text: float = 0.30
    role_runtime: float = 0.30
    role_benchmark: float = 0.25
    role_family: float = 0.15
    service_text: float = 0.20
    service_runtime: float = 0.45
    service_benchmark: float = 0.35


class RoutingDefaults(Value, frozen=True, kw_only=True):
    """strategy: where a role has none, and of all names that are no roles.

    allow_hosted: whether providers outside join local names, and serve roles that don't say. found_names: whether one
    model under several spellings gets a name of its own. thinking_off: whether models of the Qwen3 family answer chats
    without thinking unless asked to.
    """

    strategy: Strategy = Strategy.SOONEST
    allow_hosted: bool = False
    found_names: bool = True
    thinking_off: bool = True
    weights: Weights = Weights()
