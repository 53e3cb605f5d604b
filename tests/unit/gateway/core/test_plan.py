"""Why a service takes no work, in words."""

import pytest

from gateway.core.plan import condition_words
from geniehive.rules.model import Availability, Condition, Health, Reason, Upstream
from tests.unit.gateway.builders import OFFLINE


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (OFFLINE, "offline: the node's stream closed"),
        (Condition(availability=Availability.OFFLINE, reason=Reason.LEASE_EXPIRED), "offline: lease expired"),
        (Condition(health=Health.UNHEALTHY, detail="connection refused"), "unhealthy: connection refused"),
        (Condition(), "takes no requests"),
    ],
)
def test_condition_words(condition: Condition, words: str) -> None:
    assert condition_words(Upstream(service="a/e", condition=condition)) == words
