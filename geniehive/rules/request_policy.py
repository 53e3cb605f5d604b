"""What makes sense as a request policy: asked by who takes one in, before it can reach a request."""

import json
from math import isfinite
from typing import Any, NoReturn

from geniehive.rules.model import RequestPolicy

# What stands for the client's words in a user template.
USER_INPUT = "{{ user_input }}"


def check(policy: RequestPolicy) -> None:
    """ValueError that names the field, if it can't be applied."""
    for name in ("defaults_json", "overrides_json"):
        text = getattr(policy, name)
        if not text:
            continue
        try:
            found = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name} is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise ValueError(f"{name} must be a JSON object")
        if "model" in found:
            raise ValueError(f'{name} must not set "model": who is asked is for routing to say')
    if policy.user_template is not None and USER_INPUT not in policy.user_template:
        raise ValueError(f'user_template lacks "{USER_INPUT}", so that nothing of what the client said would be left')


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _finite(text: str) -> Any:
    found = float(text)
    if not isfinite(found):
        raise ValueError(f"the number {text} is too large")
    return found
