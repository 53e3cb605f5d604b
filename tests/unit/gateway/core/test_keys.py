from hashlib import sha256

import pytest

from gateway.core.keys import TO_INFER, TO_LOOK, Caller, NoKey, ScopeMissing, UnknownKey, authenticate
from geniehive.rules.model import ClientKey, Scope


def keys(*scopes: Scope) -> dict[bytes, ClientKey]:
    digest = sha256(b"s").digest()
    return {digest: ClientKey(key_id="k", sha256=digest, scopes=scopes)}


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_key(nothing: str | None) -> None:
    assert authenticate(keys(Scope.INFER).get, nothing, TO_INFER) == NoKey()


def test_an_unknown_key_and_a_table_without_keys() -> None:
    assert authenticate(keys(Scope.INFER).get, "other", TO_INFER) == UnknownKey()
    assert authenticate({}.get, "s", TO_INFER) == UnknownKey()
    assert authenticate({}.get, "\udcff", TO_INFER) == UnknownKey()


@pytest.mark.parametrize(
    ("scope", "infers", "looks"),
    [
        (Scope.INFER, True, True),
        (Scope.READ, False, True),
        (Scope.OPERATE, False, True),
        (Scope.ADMIN, True, True),
    ],
)
def test_scopes(scope: Scope, infers: bool, looks: bool) -> None:
    for needed, allowed in ((TO_INFER, infers), (TO_LOOK, looks)):
        found = authenticate(keys(scope).get, "s", needed)
        assert found == (Caller("k") if allowed else ScopeMissing("k", needed))
