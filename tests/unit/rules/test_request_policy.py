"""What makes sense as a request policy."""

import pytest

from geniehive.rules.model import RequestPolicy
from geniehive.rules.request_policy import check


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"n": 4096, "x": {"y": [1.5, null, "NaN"]}}', '{"big": 123456789012345678901234567890, "e": 1e308}'],
)
def test_what_can_be_applied(text: str) -> None:
    check(RequestPolicy(defaults_json=text, overrides_json=text, user_template="{{ user_input }}"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("3", "must be a JSON object"),
        ('{"model": "x"}', "must not set"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ('{"a": [-Infinity]}', "-Infinity is no number of JSON"),
        ('{"a": 1e999}', "the number 1e999 is too large"),
    ],
)
def test_what_can_not(text: str, told: str) -> None:
    for name in ("defaults_json", "overrides_json"):
        with pytest.raises(ValueError, match=f"^{name} .*{told}"):
            check(RequestPolicy(**{name: text}))


def test_a_template_that_drops_what_the_client_said() -> None:
    with pytest.raises(ValueError, match=r"^user_template lacks"):
        check(RequestPolicy(user_template="hello"))
