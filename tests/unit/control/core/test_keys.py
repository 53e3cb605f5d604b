"""Client keys: look-up, expiry, revocation, what a scope includes."""

import pytest

from geniehive.rules.model import ClientKey, Scope
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from geniehive_control.core.keys import Keys, allowed
from geniehive_control.core.records import StoredKey
from geniehive_control.core.refusal import Refusal, Why
from tests.support.control_core import WALL, Driver, Mirror, only


def key(key_id: str, expires: float | None = None, configured: bool = False) -> ClientKey:
    return ClientKey(
        key_id=key_id, sha256=key_id.encode() * 32, scopes=(Scope.INFER,), expires=expires, configured=configured
    )


def why(keys: Keys, digest: bytes, wall: float = 0.0) -> Why:
    with pytest.raises(Refusal) as caught:
        keys.by_digest(digest, wall)
    return caught.value.why


def test_look_up() -> None:
    keys = Keys([key("c")], [StoredKey(key=key("a"), created=1), StoredKey(key=key("b"), created=2, revoked=3)])
    assert keys.by_digest(b"a" * 32, 0).key_id == "a"
    assert keys.by_id("c", 0).key_id == "c"
    assert why(keys, b"b" * 32) is Why.CREDENTIAL_REVOKED
    assert why(keys, b"?" * 32) is Why.CREDENTIAL_REFUSED
    with pytest.raises(Refusal):
        keys.by_id("b", 0)
    assert [known.key.key_id for known in keys.all()] == ["c", "a"]


def test_expiry() -> None:
    keys = Keys([], [StoredKey(key=key("a", expires=10.0), created=1), StoredKey(key=key("b"), created=2)])
    assert keys.by_digest(b"a" * 32, 9.9).key_id == "a"
    assert why(keys, b"a" * 32, 10.0) is Why.CREDENTIAL_REFUSED
    assert keys.next_expiry(0) == 10.0
    assert keys.next_expiry(10.0) is None
    assert [k.key_id for k in keys.valid(10.0)] == ["b"]


def test_revoking() -> None:
    keys = Keys([], [StoredKey(key=key("a"), created=1)])
    assert keys.revoke("a")
    assert not keys.revoke("a")
    assert why(keys, b"a" * 32) is Why.CREDENTIAL_REVOKED


def test_what_a_scope_includes() -> None:
    assert allowed([Scope.ADMIN]) == frozenset(Scope)
    assert allowed([Scope.OPERATE]) == {Scope.OPERATE, Scope.READ}
    assert allowed([Scope.READ]) == {Scope.READ}
    assert allowed([Scope.INFER]) == {Scope.INFER}
    assert allowed([]) == frozenset()


def test_keys_reach_gateways_at_once_and_leave_at_once() -> None:
    driver = Driver(configured=[key("c", configured=True)])
    mirror = Mirror(driver)
    mirror.catch_up()
    assert mirror.table.keys() == {"key/c"}
    driver.feed(e.KeyCreated(key=key("a"), created=1.0))
    mirror.catch_up()
    assert mirror.table["key/a"].content == key("a")
    effects = driver.feed(e.KeyRevoked(key_id="a"))
    assert [end.refusal.why for end in only(effects, fx.EndCallers)] == [Why.CREDENTIAL_REVOKED]
    mirror.catch_up()
    assert mirror.table.keys() == {"key/c"}


def test_an_expired_key_leaves_the_table_by_itself() -> None:
    driver = Driver()
    mirror = Mirror(driver)
    driver.feed(e.KeyCreated(key=key("a", expires=driver.now.wall + 90.0), created=1.0))
    mirror.catch_up()
    driver.wait(89.9)
    assert "key/a" in driver.registry.table
    effects = driver.wait(0.2)
    assert [end.key_id for end in only(effects, fx.EndCallers)] == ["a"]
    mirror.catch_up()
    assert mirror.table == {}
    assert [known.key.key_id for known in driver.registry.keys.all()] == ["a"], "it is still listed"


def test_a_key_that_expired_while_control_was_away_never_enters() -> None:
    driver = Driver(configured=[key("c", expires=WALL)])
    assert len(driver.registry.table) == 0
