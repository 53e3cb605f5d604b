"""Roles and aliases in YAML."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive import catalogue
from geniehive.kit.config import ConfigError
from geniehive.rules import model as m
from geniehive.rules.operations import Ability, Operation
from geniehive.v1 import request_pb2
from geniehive_control.core.catalogue import Catalogue

WHOLE = """
roles:
  - role_id: coder
    display_name: Coder
    description: |
      Writes
      programs.
    operation: chat
    modality: text
    request_policy:
      defaults: {temperature: 0.2, num_ctx: 4096, stop: null}
      overrides: {n: 1}
      system_prompt: {append: Be brief.}
      user_template: "Q: {{ user_input }}"
    routing_policy:
      preferred_families: [a, b]
      preferred_labels: {rack: "1"}
      min_context_tokens: 8192
      require_loaded: true
      required_abilities: [tools, vision]
      trust_tiers: {allowed: [home]}
      device_classes: {denied: [phone]}
      workload_classes: {allowed: [batch], denied: [night]}
      allow_hosted: false
      fallback_role_ids: [helper]
      strategy: least_loaded
  - {role_id: helper, operation: messages}
aliases:
  claude-*: coder
  gpt-4.1: helper
"""


def test_a_whole_catalogue() -> None:
    found = catalogue.parse(WHOLE, "f.yaml")
    assert found.roles == (
        m.Role(
            role_id="coder",
            display_name="Coder",
            description="Writes\nprograms.\n",
            operation=Operation.CHAT,
            modality="text",
            request_policy=m.RequestPolicy(
                defaults_json='{"temperature": 0.2, "num_ctx": 4096, "stop": null}',
                overrides_json='{"n": 1}',
                system_prompt=m.SystemPrompt(action=m.PromptAction.APPEND, text="Be brief."),
                user_template="Q: {{ user_input }}",
            ),
            routing_policy=m.RoutingPolicy(
                preferred_families=("a", "b"),
                preferred_labels={"rack": "1"},
                min_context_tokens=8192,
                require_loaded=True,
                required_abilities=(Ability.TOOLS, Ability.VISION),
                trust_tiers=m.Rule(allowed=("home",)),
                device_classes=m.Rule(denied=("phone",)),
                workload_classes=m.Rule(allowed=("batch",), denied=("night",)),
                allow_hosted=False,
                fallback_role_ids=("helper",),
                strategy=m.Strategy.LEAST_LOADED,
            ),
        ),
        m.Role(role_id="helper", operation=Operation.MESSAGES),
    )
    assert found.aliases == (m.Alias(alias="claude-*", target="coder"), m.Alias(alias="gpt-4.1", target="helper"))
    again = catalogue.parse(catalogue.write(list(found.roles), list(found.aliases)), "again")
    assert (again.roles, again.aliases) == (found.roles, found.aliases)


def test_an_empty_one() -> None:
    for text in ("", "# nothing\n", "{}", "roles: []\naliases: {}\n"):
        found = catalogue.parse(text, "f.yaml")
        assert (found.roles, found.aliases) == ((), ())


def with_role(*lines: str) -> str:
    return "\n".join(["roles:", "  - role_id: a", "    operation: chat", *(f"    {line}" for line in lines)])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("roles:\n  - role_id: a\n    operation: chatt", "line 3: roles[0].operation: invalid enum value 'chatt'; "),
        (with_role("colour: red"), "line 4: unknown key 'roles[0].colour'; allowed in roles[0]: "),
        ("\nroles:\n  - role_id: a", "line 3: roles[0]: object missing required field `operation`"),
        (with_role("routing_policy:", "  strategy: fastest"), "line 5: roles[0].routing_policy.strategy: "),
        (with_role("routing_policy:", "  required_abilities: [tools,", "    fly]"), "line 6: roles[0].routing_policy."),
        (with_role("routing_policy:", "  min_context_tokens: .inf"), "expected a whole number or null"),
        (with_role("routing_policy: {preferred_labels: {a: 1}}"), "expected text, got a whole number"),
        (with_role("request_policy:", "  defaults: {a: .nan}"), "line 5: roles[0].request_policy.defaults: can't be"),
        (with_role("request_policy:", "  defaults: {a: 2030-01-01}"), "can't be written as JSON"),
        (with_role("request_policy:", "  defaults: {1: 2}"), "expected text, got a whole number as a key"),
        (with_role("request_policy:", "  system_prompt: {}"), "line 5: roles[0].request_policy.system_prompt: give"),
        ("aliases:\n  a: b\n  c.d: 1", "line 3: aliases.c.d: expected the name"),
        ("aliases:\n  a: b\n  a: c", "line 3: a: stands there twice"),
        ("aliases: [a]", "line 1: aliases: expected keys with values"),
        ("just text", "line 1: expected keys with values"),
        ("roles: [\n  {", "line 2, column 4: not valid YAML"),
        ("roles: !!python/object:os.system {}", "not valid YAML"),
        ("a: &a [*a]", "its references go round in circles"),
        ("x" * (catalogue.LONGEST + 1), "longer than"),
    ],
)  # fmt: skip
def test_faults_have_line_and_field(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        catalogue.parse(text, "f.yaml")
    assert str(caught.value).startswith("f.yaml")
    assert told in str(caught.value)


def test_a_text_that_grows_without_end_is_refused_at_once() -> None:
    text = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    with pytest.raises(ConfigError, match="too large"):
        catalogue.parse(text, "f.yaml")


def test_faults_that_are_found_later_have_their_line_too() -> None:
    lines = {
        "roles[0].request_policy.defaults_json": 11,
        "roles[0].routing_policy.fallback_role_ids[0]": 25,
        "roles[1].role_id": 27,
        "aliases.gpt-4.1": 30,
        "roles[0].display_name": 4,
        "roles[0].nowhere": 3,
    }
    for at, line in lines.items():
        assert str(catalogue.fault(WHOLE, "f.yaml", at, "no")) == f"f.yaml, line {line}: {at}: no"


def test_a_role_by_itself() -> None:
    text = "role_id: a\noperation: chat\n"
    assert catalogue.is_role(text)
    assert not catalogue.is_role(WHOLE)
    assert not catalogue.is_role("[")
    assert catalogue.parse_role(text, "f.yaml") == m.Role(role_id="a", operation=Operation.CHAT)
    with pytest.raises(ConfigError, match=r"f.yaml, line 2: operation: "):
        catalogue.parse_role("role_id: a\noperation: x\n", "f.yaml")


def test_words_are_those_of_the_contract() -> None:
    operations = {name.removeprefix("OPERATION_").lower() for name in request_pb2.Operation.keys()}  # noqa: SIM118
    assert operations == {*catalogue.OperationWord.__args__, "unspecified"}  # type: ignore[attr-defined]
    strategies = {strategy.name.lower() for strategy in m.Strategy}
    assert strategies == {*catalogue.StrategyWord.__args__, "unspecified"}  # type: ignore[attr-defined]
    assert {a.name.lower() for a in Ability} == {*catalogue.AbilityWord.__args__}  # type: ignore[attr-defined]


words = st.text(st.characters(exclude_categories=("C",)), min_size=1, max_size=8)
rules = st.builds(m.Rule, allowed=st.lists(words).map(tuple), denied=st.lists(words).map(tuple))


@given(
    st.builds(
        m.Role,
        role_id=words,
        display_name=words,
        operation=st.sampled_from(Operation),
        routing_policy=st.builds(
            m.RoutingPolicy,
            preferred_labels=st.dictionaries(words, words, max_size=3),
            min_context_tokens=st.none() | st.integers(1, 10**6),
            trust_tiers=rules,
            workload_classes=rules,
            allow_hosted=st.none() | st.booleans(),
            strategy=st.sampled_from(m.Strategy),
            require_loaded=st.booleans(),
            required_abilities=st.lists(st.sampled_from(Ability)).map(tuple),
        ),
    )
)
def test_what_is_written_reads_as_it_was(role: m.Role) -> None:
    [again] = catalogue.parse(catalogue.write([role], []), "f.yaml").roles
    assert again == role


@pytest.mark.parametrize("name", sorted(p.name for p in (Path(__file__).parents[2] / "configs/catalogues").iterdir()))
def test_those_that_come_with_it_can_be_used(root: Path, name: str) -> None:
    text = (root / "configs/catalogues" / name).read_text()
    found = catalogue.parse(text, name)
    Catalogue().check_file(found.roles, found.aliases)
    assert not found.aliases
    assert all(role.display_name and role.description for role in found.roles)
    # What is commented out can be used, too.
    whole, _, rest = text.partition("# aliases:")
    with_aliases = catalogue.parse(whole + "aliases:" + rest.replace("\n#", "\n"), name)
    Catalogue().check_file(with_aliases.roles, with_aliases.aliases)
    assert msgspec.structs.asdict(with_aliases.aliases[0]) | {"owner": 0} == {
        "alias": "claude-*",
        "target": "coder",
        "owner": 0,
        "etag": "",
    }
    names = {"assistant", "coder", "translator", "summariser", "embedder", "transcriber", "background"}
    assert {role.role_id for role in found.roles} == names
