"""Roles and aliases: what may be said of them, who owns them, what is in force."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.rules.model import (
    Alias,
    Owner,
    RequestPolicy,
    Role,
    RoutingPolicy,
    Rule,
)
from geniehive.rules.operations import Operation
from geniehive_control.core import effects as fx
from geniehive_control.core import events as e
from geniehive_control.core.catalogue import Catalogue
from geniehive_control.core.refusal import Refusal, Why
from tests.support.control_core import Driver


def role(role_id: str, *fallbacks: str, **fields: Any) -> Role:
    return Role(
        role_id=role_id,
        operation=Operation.CHAT,
        routing_policy=RoutingPolicy(fallback_role_ids=fallbacks, **fields.pop("routing", {})),
        **fields,
    )


def alias(name: str, target: str, etag: str = "") -> Alias:
    return Alias(alias=name, target=target, etag=etag)


def made(*roles: Role, aliases: tuple[Alias, ...] = ()) -> Catalogue:
    return Catalogue(roles, aliases)


def refusal(call: Any, *arguments: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    return caught.value


def field(call: Any, *arguments: Any) -> str:
    found = refusal(call, *arguments)
    assert found.why is Why.FIELD_INVALID
    return found.details["field"]


def nothing(name: str) -> bool:
    return False


def everything(name: str) -> bool:
    return True


BAD_ROLES = {
    "role.role_id": role("Bad Id"),
    "role.display_name": role("a", display_name="x" * 201),
    "role.description": role("a", description="\x1b[31m"),
    "role.modality": role("a", modality="smell"),
    "role.request_policy.operations": role("a", request_policy=RequestPolicy(operations=(Operation.CHAT,))),
    "role.request_policy.defaults_json": role("a", request_policy=RequestPolicy(defaults_json="[1]")),
    "role.request_policy.overrides_json": role("a", request_policy=RequestPolicy(overrides_json='{"a": NaN}')),
    "role.request_policy.user_template": role("a", request_policy=RequestPolicy(user_template="hello")),
    "role.routing_policy.preferred_families[1]": role("a", routing={"preferred_families": ("q", "q")}),
    "role.routing_policy.preferred_labels": role("a", routing={"preferred_labels": {"": "x"}}),
    "role.routing_policy.min_context_tokens": role("a", routing={"min_context_tokens": 0}),
    "role.routing_policy.trust_tiers.denied[0]": role("a", routing={"trust_tiers": Rule(denied=(" ",))}),
    "role.routing_policy.workload_classes.allowed": role(
        "a", routing={"workload_classes": Rule(allowed=tuple(map(str, range(101))))}
    ),
    "role.routing_policy.fallback_role_ids[0]": role("a", "unknown"),
    "role": role("a", request_policy=RequestPolicy(user_template="{{ user_input }}" + "x" * 300_000)),
}


@pytest.mark.parametrize("at", BAD_ROLES)
def test_a_role_that_makes_no_sense(at: str) -> None:
    catalogue = made()
    assert field(catalogue.created, BAD_ROLES[at]) == at
    assert catalogue.roles == {}


@pytest.mark.parametrize("text", ['{"a": 1e999}', '{"a": -Infinity}', "{", "[" * 100_000, '{"model": "x"}'])
def test_json_that_no_request_can_have(text: str) -> None:
    bad = role("a", request_policy=RequestPolicy(defaults_json=text))
    assert field(made().created, bad) == "role.request_policy.defaults_json"


def test_create_update_delete() -> None:
    catalogue = made()
    first = catalogue.created(role("a"))
    assert (first.owner, catalogue.roles) == (Owner.API, {})
    catalogue.put_role(first)
    assert refusal(catalogue.created, role("a")).why is Why.ALREADY_EXISTS
    second = catalogue.updated(role("a", display_name="A"), first.etag)
    assert second.etag != first.etag
    catalogue.put_role(second)
    assert refusal(catalogue.updated, role("a"), first.etag).why is Why.ETAG_STALE
    assert refusal(catalogue.may_delete_role, "a", first.etag).why is Why.ETAG_STALE
    assert refusal(catalogue.updated, role("b"), "").details == {"name": "b"}
    catalogue.may_delete_role("a", "")
    catalogue.drop_role("a")
    assert refusal(catalogue.may_delete_role, "a", "").why is Why.OBJECT_NOT_FOUND


def test_an_etag_says_the_contents_and_nothing_else() -> None:
    labels = {"a": "1", "b": "2"}
    one = made(role("a", routing={"preferred_labels": labels})).roles["a"]
    other = made(role("a", routing={"preferred_labels": dict(reversed(labels.items()))})).roles["a"]
    assert one.etag == other.etag
    assert made(msgspec.structs.replace(one, owner=Owner.FILE)).roles["a"] == one


def test_circles() -> None:
    catalogue = made(role("a", "b"), role("b", "c"), role("c"))
    found = refusal(catalogue.updated, role("c", "a"), "")
    assert found.details == {"field": "role.routing_policy.fallback_role_ids[0]"}
    assert "c > a > b > c" in found.message
    assert field(catalogue.updated, role("c", "c"), "") == "role.routing_policy.fallback_role_ids[0]"
    # Two ways to one are no circle.
    catalogue.created(role("d", "a", "b"))


@given(st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 5), unique=True, max_size=3)), max_size=25))
def test_whatever_is_done_there_are_no_circles_and_no_unknown_fallbacks(steps: list[tuple[int, list[int]]]) -> None:
    catalogue = made(*(role(f"r{number}") for number in range(6)))
    for number, fallbacks in steps:
        with contextlib.suppress(Refusal):
            catalogue.put_role(catalogue.updated(role(f"r{number}", *(f"r{n}" for n in fallbacks)), ""))
    left = dict(catalogue.roles)
    while left:
        ends = [name for name, it in left.items() if not left.keys() & set(it.routing_policy.fallback_role_ids)]
        assert ends
        for name in ends:
            del left[name]
    assert catalogue.warnings == ()


def test_what_is_pointed_at_stays() -> None:
    catalogue = made(role("a"), role("b", "a"), aliases=(alias("x", "a"),))
    found = refusal(catalogue.may_delete_role, "a", "")
    assert (found.why, found.details) == (Why.STILL_REFERENCED, {"names": "alias x\nrole b"})
    catalogue.may_delete_role("b", "")


def test_aliases() -> None:
    catalogue = made(role("coder"))
    assert field(catalogue.set, alias("x", "gone"), nothing, {}) == "alias.target"
    assert field(catalogue.set, alias("x", "x"), everything, {}) == "alias.target"
    assert field(catalogue.set, alias("x", "y*"), everything, {}) == "alias.target"
    assert field(catalogue.set, alias("", "y"), everything, {}) == "alias.alias"
    # What control found by itself is an alias too, unless a model is spelled so.
    assert "of m, n;" in refusal(catalogue.set, alias("x", "f"), nothing, {"f": alias("f", "m, n")}).message
    catalogue.set(alias("x", "f"), everything, {"f": alias("f", "f, n")})
    first = catalogue.set(alias("claude-*", "coder"), nothing, {})
    catalogue.put_alias(first)
    assert refusal(catalogue.set, alias("claude-*", "m"), everything, {}).why is Why.ETAG_STALE
    catalogue.put_alias(catalogue.set(alias("claude-*", "m", first.etag), everything, {}))
    assert refusal(catalogue.set, alias("new", "m", "old"), everything, {}).why is Why.ETAG_STALE
    assert refusal(catalogue.may_delete_alias, "claude-*", first.etag).why is Why.ETAG_STALE
    assert refusal(catalogue.may_delete_alias, "gone", "").why is Why.OBJECT_NOT_FOUND
    catalogue.may_delete_alias("claude-*", "")
    catalogue.drop_alias("claude-*")
    assert catalogue.aliases == {}


def test_no_alias_leads_to_an_alias() -> None:
    catalogue = made(aliases=(alias("x", "m"),))
    assert field(catalogue.set, alias("y", "x"), everything, {}) == "alias.target"
    # Nor does one come to, when what it leads to becomes one.
    assert field(catalogue.set, alias("m", "n"), everything, {}) == "alias.alias"


# Files.


def test_the_file_owns_what_is_in_it() -> None:
    catalogue = made(role("mine"), role("both", display_name="mine"), aliases=(alias("x", "mine"),))
    catalogue.take_file("f.yaml", [role("both"), role("theirs")], [alias("x", "theirs"), alias("z", "theirs")])
    assert {name: it.owner for name, it in catalogue.roles.items()} == {
        "both": Owner.FILE,
        "mine": Owner.API,
        "theirs": Owner.FILE,
    }
    for call in (catalogue.may_delete_role, catalogue.role_to_change):
        found = refusal(call, "both", "")
        assert (found.why, found.details) == (Why.OWNED_BY_FILE, {"file": "f.yaml"})
    assert refusal(catalogue.updated, role("theirs"), "").why is Why.OWNED_BY_FILE
    assert refusal(catalogue.set, alias("x", "mine"), everything, {}).why is Why.OWNED_BY_FILE
    assert refusal(catalogue.may_delete_alias, "z", "").why is Why.OWNED_BY_FILE
    assert "f.yaml" in refusal(catalogue.created, role("both")).message
    assert catalogue.warnings == (
        "role both was made by an operator and is hidden by that of f.yaml; rename one of them",
        "alias x was set by an operator and is hidden by that of f.yaml; remove it there",
    )
    catalogue.take_file("f.yaml", [], [])
    assert catalogue.roles["both"].display_name == "mine"
    assert catalogue.aliases["x"].target == "mine"
    assert catalogue.warnings == ()


def test_a_role_that_is_hidden_and_pointed_at_stays() -> None:
    catalogue = made(role("a"), role("b", "a"))
    catalogue.take_file("f.yaml", [role("b")], [])
    assert refusal(catalogue.may_delete_role, "a", "").why is Why.STILL_REFERENCED


def test_what_a_file_makes_invalid_is_told_and_not_lost() -> None:
    catalogue = made(role("mine", "theirs"), aliases=(alias("x", "m"),))
    catalogue.take_file("f.yaml", [role("theirs", "mine")], [alias("m", "theirs")])
    told = "\n".join(catalogue.warnings)
    assert "role mine.routing_policy.fallback_role_ids[0]: goes round in a circle: mine > theirs > mine" in told
    assert "alias x leads to m, which is an alias itself" in told
    catalogue.take_file("f.yaml", [], [])
    assert "there is no role 'theirs'; that fallback is passed over" in catalogue.warnings[0]
    assert catalogue.roles.keys() == {"mine"}
    assert catalogue.aliases.keys() == {"x"}


@pytest.mark.parametrize(
    ("roles", "aliases", "at"),
    [
        ([role("a"), role("a")], [], "roles[1].role_id"),
        ([role("a"), role("b", "a", "gone")], [], "roles[1].routing_policy.fallback_role_ids[1]"),
        ([role("a", "b"), role("b", "a")], [], "roles[0].routing_policy.fallback_role_ids[0]"),
        ([role("a", modality="x")], [], "roles[0].modality"),
        ([], [alias("a", "b"), alias("b", "a")], "aliases.a"),
        ([], [alias("a", "b*")], "aliases.a"),
    ],
)
def test_a_file_that_makes_no_sense(roles: list[Role], aliases: list[Alias], at: str) -> None:
    assert field(made().check_file, roles, aliases) == at


def test_a_file_may_fall_back_to_what_operators_made() -> None:
    made(role("mine")).check_file([role("theirs", "mine")], [alias("x", "whoever comes later")])


# In the registry.


def test_who_watches_is_told() -> None:
    driver = Driver()
    [changed] = driver.feed(e.RolePut(role=role("a")))
    assert changed == fx.Changed(roles=frozenset({"a"}), cluster=True)
    [changed] = driver.feed(e.AliasPut(alias=alias("x", "a")))
    assert changed == fx.Changed(aliases=frozenset({"x"}), cluster=True)
    note, changed = driver.feed(e.CatalogueRead(file="f.yaml", roles=(role("b"),)))
    assert isinstance(note, fx.Note)
    assert changed == fx.Changed(roles=frozenset({"b"}), cluster=True)
    note, _ = driver.feed(e.CatalogueRefused(fault="f.yaml, line 3: no"))
    assert isinstance(note, fx.Note)
    assert note.grave
    assert "line 3" in driver.registry.catalogue.warnings[0]
    assert driver.registry.catalogue.roles.keys() == {"a", "b"}
    driver.feed(e.CatalogueRead(file="f.yaml"))
    assert driver.registry.catalogue.warnings == ()
    driver.feed(e.AliasDropped(alias="x"))
    [changed] = driver.feed(e.RoleDropped(role_id="a"))
    assert changed == fx.Changed(roles=frozenset({"a"}), cluster=True)


def test_a_warning_that_comes_is_logged_once() -> None:
    driver = Driver()
    driver.feed(e.RolePut(role=role("a")))
    first = driver.feed(e.CatalogueRead(file="f", roles=(role("a"),)))
    again = driver.feed(e.CatalogueRead(file="f", roles=(role("a"), role("b"))))
    assert [sum(isinstance(x, fx.Note) and x.grave for x in effects) for effects in (first, again)] == [1, 0]
