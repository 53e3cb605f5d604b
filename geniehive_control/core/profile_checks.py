"""What makes sense as a role and as an alias. Each check raises a Refusal (FIELD_INVALID) that names the field."""

from collections.abc import Iterable, Mapping

import msgspec

from geniehive.rules import names, request_policy
from geniehive.rules.model import Alias, RequestPolicy, Role, Rule
from geniehive_control.core.refusal import field_invalid

MODALITIES = ("text", "image", "audio")

_LONGEST_NAME = 200
_LONGEST_TEXT = 4000
_MOST_ITEMS = 100
# No model is near it; who writes more has slipped.
_MOST_TOKENS = 1_000_000_000
# A role's policy goes to every gateway.
_MOST_BYTES = 256 * 1024

_encoder = msgspec.msgpack.Encoder()


def role(role: Role, at: str) -> None:
    """A role by itself. at: what its fields are named after, such as "role"."""
    if not names.is_id(role.role_id):
        raise field_invalid(
            f"{at}.role_id", f"{role.role_id!r} is no id: a-z, 0-9, '.', '_', '-', at most 63, a letter or digit first"
        )
    _text(role.display_name, f"{at}.display_name", _LONGEST_NAME)
    _text(role.description, f"{at}.description", _LONGEST_TEXT, lines=True)
    if role.modality and role.modality not in MODALITIES:
        raise field_invalid(
            f"{at}.modality", f"{role.modality!r} is none; allowed: {', '.join(MODALITIES)}, or nothing"
        )
    if role.request_policy is not None:
        _request_policy(role.request_policy, f"{at}.request_policy")
    policy, within = role.routing_policy, f"{at}.routing_policy"
    _words(policy.preferred_families, f"{within}.preferred_families")
    if len(policy.preferred_labels) > _MOST_ITEMS:
        raise field_invalid(f"{within}.preferred_labels", f"more than {_MOST_ITEMS}")
    for name, value in policy.preferred_labels.items():
        if not name:
            raise field_invalid(f"{within}.preferred_labels", "a label without a name")
        for text in (name, value):
            _text(text, f"{within}.preferred_labels", _LONGEST_NAME)
    tokens = policy.min_context_tokens
    if tokens is not None and not 0 < tokens <= _MOST_TOKENS:
        raise field_invalid(f"{within}.min_context_tokens", f"{tokens} is out of range; 1 to {_MOST_TOKENS}, or unset")
    for name in ("trust_tiers", "device_classes", "workload_classes"):
        rule: Rule = getattr(policy, name)
        _words(rule.allowed, f"{within}.{name}.allowed")
        _words(rule.denied, f"{within}.{name}.denied")
    _words(policy.fallback_role_ids, f"{within}.fallback_role_ids")
    if len(_encoder.encode(role)) > _MOST_BYTES:
        raise field_invalid(at, f"the role is larger than {_MOST_BYTES // 1024} KiB as a whole")


def _request_policy(policy: RequestPolicy, at: str) -> None:
    if policy.operations:
        raise field_invalid(f"{at}.operations", "stays empty: a role has one operation, and it stands there")
    try:
        request_policy.check(policy)
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        raise field_invalid(f"{at}.{name}", rest) from error


def unknown_fallbacks(roles: Mapping[str, Role], role: Role, at: str) -> None:
    for index, role_id in enumerate(role.routing_policy.fallback_role_ids):
        if role_id not in roles:
            raise field_invalid(_fallback(at, index), f"there is no role {role_id!r}")


def cycles(roles: Mapping[str, Role], role: Role, at: str) -> None:
    """Whether one comes back to the role by its fallbacks, among `roles`."""
    for index, first in enumerate(role.routing_policy.fallback_role_ids):
        way = _way(roles, first, role.role_id)
        if way is not None:
            shown = " > ".join([role.role_id, *way])
            raise field_invalid(_fallback(at, index), f"goes round in a circle: {shown}")


def fallbacks(roles: Mapping[str, Role], role: Role, at: str) -> None:
    unknown_fallbacks(roles, role, at)
    cycles(roles, role, at)


def _fallback(at: str, index: int) -> str:
    return f"{at}.routing_policy.fallback_role_ids[{index}]"


def _way(roles: Mapping[str, Role], first: str, last: str) -> list[str] | None:
    """The names on a way of fallbacks from `first` to `last`, both with it. None: there is none."""
    came_from: dict[str, str] = {first: ""}
    ahead = [first]
    while ahead:
        here = ahead.pop()
        if here == last:
            way = [here]
            while came_from[way[-1]]:
                way.append(came_from[way[-1]])
            return way[::-1]
        known = roles.get(here)
        for following in () if known is None else known.routing_policy.fallback_role_ids:
            if following not in came_from:
                came_from[following] = here
                ahead.append(following)
    return None


def alias(alias: Alias, at: str, at_target: str) -> None:
    """An alias by itself. at, at_target: what its two fields are named."""
    if not names.is_model_name(alias.alias):
        raise field_invalid(at, "an alias has 1 to 512 characters, none of them a control character")
    if not names.is_model_name(alias.target):
        raise field_invalid(at_target, "a target has 1 to 512 characters, none of them a control character")
    if "*" in alias.target:
        raise field_invalid(at_target, f"{alias.target!r} is a pattern; one name is needed")
    if alias.target == alias.alias:
        raise field_invalid(at_target, f"alias {alias.alias!r} leads to itself")


def no_chain(aliases: Mapping[str, Alias], alias: Alias, at: str, at_target: str) -> None:
    """aliases: all that there are, with this one."""
    if alias.target in aliases:
        text = (
            f"{alias.target!r} is an alias itself, of {aliases[alias.target].target!r}; name a model, service or role"
        )
        raise field_invalid(at_target, text)
    leading = sorted(other.alias for other in aliases.values() if other.target == alias.alias)
    if leading:
        text = f"{', '.join(leading)} stands for {alias.alias!r}, and no alias stands for an alias; change that first"
        raise field_invalid(at, text)


def _words(given: Iterable[str], at: str) -> None:
    words = list(given)
    if len(words) > _MOST_ITEMS:
        raise field_invalid(at, f"more than {_MOST_ITEMS}")
    for index, word in enumerate(words):
        if not word.strip():
            raise field_invalid(f"{at}[{index}]", "is empty")
        _text(word, f"{at}[{index}]", _LONGEST_NAME)
        if word in words[:index]:
            raise field_invalid(f"{at}[{index}]", f"{word!r} stands there twice")


def _text(text: str, at: str, longest: int, *, lines: bool = False) -> None:
    if len(text) > longest:
        raise field_invalid(at, f"longer than {longest} characters")
    if not (text.replace("\n", " ").replace("\t", " ") if lines else text).isprintable():
        raise field_invalid(at, "has characters in it that can't be shown")
