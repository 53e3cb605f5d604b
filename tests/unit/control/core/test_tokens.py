"""Join tokens: what each is refused for."""

import pytest

from geniehive.rules.identity import PeerKind
from geniehive_control.core import events as e
from geniehive_control.core.records import StoredToken
from geniehive_control.core.refusal import Refusal, Why
from geniehive_control.core.tokens import REMEMBERED, Tokens
from tests.support.control_core import Driver

NODE, GATEWAY = PeerKind.NODE, PeerKind.GATEWAY


def token(name: str, uses: int = 1, created: float = 0.0, **fields: object) -> StoredToken:
    given = {"kinds": (NODE, GATEWAY), **fields}
    return StoredToken(
        token_id=name, sha256=name.encode() * 32, uses_left=uses, created=created, expires=created + 10.0, **given
    )  # type: ignore[arg-type]


def refused(tokens: Tokens, name: str, *kinds: PeerKind, wall: float = 5.0) -> str:
    with pytest.raises(Refusal) as caught:
        tokens.by_digest(name.encode() * 32, kinds, wall)
    assert caught.value.why is Why.JOIN_TOKEN_REFUSED
    return caught.value.message


def test_words_for_each_reason() -> None:
    tokens = Tokens([token("a"), token("b", uses=0), token("c", revoked=1.0), token("d", kinds=(GATEWAY,))])
    assert tokens.by_digest(b"a" * 32, [NODE, GATEWAY], 9.9).token_id == "a"
    assert tokens.by_digest(b"d" * 32, [GATEWAY], 5.0).token_id == "d"
    assert "is not known here" in refused(tokens, "x")
    assert "has expired" in refused(tokens, "a", wall=10.0)
    assert "was used as often" in refused(tokens, "b")
    assert "was revoked" in refused(tokens, "c")
    assert "lets no node join" in refused(tokens, "d", GATEWAY, NODE)


def test_uses_are_counted() -> None:
    tokens = Tokens([token("a", uses=2)])
    for _ in range(2):
        tokens.by_digest(b"a" * 32, [NODE], 5.0)
        tokens.use("a")
    assert "was used as often" in refused(tokens, "a")
    tokens.use("a")
    tokens.use("unknown")


def test_those_that_can_be_used() -> None:
    tokens = Tokens([token("b", created=2.0), token("a", created=2.0), token("c"), token("d", uses=0)])
    assert [t.token_id for t in tokens.usable(5.0)] == ["c", "a", "b"]
    assert [t.token_id for t in tokens.usable(11.0)] == ["a", "b"]
    tokens.revoke("a", 6.0)
    tokens.revoke("a", 7.0)
    tokens.revoke("unknown", 7.0)
    assert [t.token_id for t in tokens.usable(6.0)] == ["c", "b"]
    assert tokens.get("b", 6.0).token_id == "b"
    for name in ("a", "d", "unknown"):
        with pytest.raises(Refusal) as caught:
            tokens.get(name, 6.0)
        assert (caught.value.why, caught.value.details) == (Why.OBJECT_NOT_FOUND, {"name": name})


def test_old_ones_are_forgotten() -> None:
    tokens = Tokens([token("a")])
    tokens.add(token("b", created=REMEMBERED))
    assert "has expired" in refused(tokens, "a", wall=REMEMBERED + 5.0)
    tokens.add(token("c", created=REMEMBERED + 10.0))
    assert "is not known here" in refused(tokens, "a", wall=REMEMBERED + 11.0)


def test_events() -> None:
    driver = Driver(tls=True)
    made = token("a", uses=2, created=driver.now.wall)
    driver.feed(e.TokenCreated(token=made))
    driver.feed(e.Enrolled(token_id="a", certificates=()))
    assert [t.uses_left for t in driver.registry.tokens.usable(driver.now.wall)] == [1]
    driver.feed(e.TokenRevoked(token_id="a"))
    assert driver.registry.tokens.usable(driver.now.wall) == []
