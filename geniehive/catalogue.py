"""Roles and aliases as people write them, in YAML: a whole catalogue, or one role. Strict, with the line of each fault.

    roles:
      - role_id: coder
        operation: chat
        request_policy:
          defaults: {temperature: 0.2}
          system_prompt: {prepend: "Answer with code."}
        routing_policy:
          preferred_families: [qwen3-coder, devstral]
          fallback_role_ids: [assistant]
    aliases:
      claude-*: coder

The names of the fields are those of the contract (role.proto), but that what is JSON text there is written out here.
"""

import json
from typing import Annotated, Any, Literal, TypeVar

import yaml
from msgspec import Meta, field

from geniehive.kit import config
from geniehive.kit.config import ConfigError, Settings
from geniehive.rules import model as m
from geniehive.rules.operations import Ability, Operation

S = TypeVar("S", bound=Settings)

# In characters; a catalogue is written by hand.
LONGEST = 1024 * 1024
# Of what the text has in it, references counted as often as they are used.
_MOST_NODES = 200_000

OperationWord = Literal[
    "chat",
    "completions",
    "embeddings",
    "transcription",
    "translation",
    "speech",
    "images",
    "rerank",
    "moderations",
    "responses",
    "messages",
]
AbilityWord = Literal["tools", "vision", "reasoning"]
StrategyWord = Literal["soonest", "scored", "loaded_first", "least_loaded", "round_robin"]


class _Prompt(Settings, frozen=True, kw_only=True):
    prepend: str | None = None
    append: str | None = None
    replace: str | None = None


class _RequestPolicy(Settings, frozen=True, kw_only=True):
    defaults: dict[str, Any] | None = None
    overrides: dict[str, Any] | None = None
    system_prompt: _Prompt | None = None
    user_template: str | None = None


class _Rule(Settings, frozen=True, kw_only=True):
    allowed: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)


class _RoutingPolicy(Settings, frozen=True, kw_only=True):
    preferred_families: list[str] = field(default_factory=list)
    preferred_labels: dict[str, str] = field(default_factory=dict)
    min_context_tokens: Annotated[int, Meta(ge=1)] | None = None
    require_loaded: bool = False
    required_abilities: list[AbilityWord] = field(default_factory=list)
    trust_tiers: _Rule = _Rule()
    device_classes: _Rule = _Rule()
    workload_classes: _Rule = _Rule()
    allow_hosted: bool | None = None
    fallback_role_ids: list[str] = field(default_factory=list)
    strategy: StrategyWord | None = None


class _Role(Settings, frozen=True, kw_only=True):
    role_id: str
    display_name: str = ""
    description: str = ""
    operation: OperationWord
    modality: Literal["", "text", "image", "audio"] = ""
    request_policy: _RequestPolicy | None = None
    routing_policy: _RoutingPolicy = _RoutingPolicy()


class _Catalogue(Settings, frozen=True, kw_only=True):
    roles: list[_Role] = field(default_factory=list)
    # To be text; judged by hand, since a fault in it would not be told with its key.
    aliases: dict[str, Any] = field(default_factory=dict)


class Catalogue(m.Value, frozen=True, kw_only=True):
    """What a text says, as far as it can be judged by itself. `text`: for the lines of faults that are found later."""

    roles: tuple[m.Role, ...] = ()
    aliases: tuple[m.Alias, ...] = ()
    text: str = ""


def parse(text: str, source: str) -> Catalogue:
    """ConfigError says what is wrong, with source, line and field."""
    tree, root = _tree(text, source)
    made = _convert(_Catalogue, tree, root, source)
    roles = tuple(_role(role, f"roles[{index}]", root, source) for index, role in enumerate(made.roles))
    for name, target in made.aliases.items():
        if not isinstance(target, str):
            raise _fault(root, source, f"aliases.{name}", "expected the name of a model, a service or a role")
    aliases = tuple(m.Alias(alias=name, target=target) for name, target in made.aliases.items())
    return Catalogue(roles=roles, aliases=aliases, text=text)


def is_role(text: str) -> bool:
    """Whether this is one role and no catalogue. What is neither is for `parse` to refuse."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    return isinstance(root, yaml.MappingNode) and any(key.value == "role_id" for key, _ in root.value)


def parse_role(text: str, source: str) -> m.Role:
    """The one role that `text` is. ConfigError as for `parse`."""
    tree, root = _tree(text, source)
    return _role(_convert(_Role, tree, root, source), "", root, source)


def role_of(tree: dict[str, Any], source: str) -> m.Role:
    """A role that did not come as a text. ConfigError as for `parse`, without a line."""
    return _role(_convert(_Role, tree, None, source), "", None, source)


def fault(text: str, source: str, key: str, why: str) -> ConfigError:
    """Something that is wrong in `text` at "roles[2].operation" or "aliases.NAME"."""
    root = yaml.compose(text, yaml.SafeLoader)
    return _fault(root, source, key, why)


def write(roles: list[m.Role], aliases: list[m.Alias]) -> str:
    """What `parse` reads. Fields that say nothing are left out."""
    tree: dict[str, Any] = {}
    if roles:
        tree["roles"] = [as_tree(role) for role in roles]
    if aliases:
        tree["aliases"] = {alias.alias: alias.target for alias in aliases}
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)


def as_tree(role: m.Role) -> dict[str, Any]:
    """As it is written: only what says something."""
    tree: dict[str, Any] = {
        "role_id": role.role_id,
        "display_name": role.display_name,
        "description": role.description,
        "operation": role.operation.word,
        "modality": role.modality,
    }
    policy, routing = role.request_policy, role.routing_policy
    if policy is not None:
        prompt = policy.system_prompt
        tree["request_policy"] = _said(
            {
                "defaults": json.loads(policy.defaults_json) if policy.defaults_json else None,
                "overrides": json.loads(policy.overrides_json) if policy.overrides_json else None,
                "system_prompt": None if prompt is None else {prompt.action.name.lower(): prompt.text},
                "user_template": policy.user_template,
            }
        )
    tree["routing_policy"] = _said(
        {
            "preferred_families": list(routing.preferred_families),
            "preferred_labels": dict(routing.preferred_labels),
            "min_context_tokens": routing.min_context_tokens,
            "require_loaded": routing.require_loaded or None,
            "required_abilities": [ability.name.lower() for ability in routing.required_abilities],
            "trust_tiers": _rule_tree(routing.trust_tiers),
            "device_classes": _rule_tree(routing.device_classes),
            "workload_classes": _rule_tree(routing.workload_classes),
            "allow_hosted": routing.allow_hosted,
            "fallback_role_ids": list(routing.fallback_role_ids),
            "strategy": None if routing.strategy is m.Strategy.UNSPECIFIED else routing.strategy.name.lower(),
        }
    )
    return _said(tree)


def _said(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if value not in (None, "", [], {})}


def _rule_tree(rule: m.Rule) -> dict[str, Any]:
    return _said({"allowed": list(rule.allowed), "denied": list(rule.denied)})


def _role(given: _Role, at: str, root: yaml.Node | None, source: str) -> m.Role:
    routing = given.routing_policy
    policy = given.request_policy
    return m.Role(
        role_id=given.role_id,
        display_name=given.display_name,
        description=given.description,
        operation=Operation[given.operation.upper()],
        modality=given.modality,
        request_policy=None if policy is None else _request_policy(policy, at, root, source),
        routing_policy=m.RoutingPolicy(
            preferred_families=tuple(routing.preferred_families),
            preferred_labels=routing.preferred_labels,
            min_context_tokens=routing.min_context_tokens,
            require_loaded=routing.require_loaded,
            required_abilities=tuple(Ability[word.upper()] for word in routing.required_abilities),
            trust_tiers=_rule(routing.trust_tiers),
            device_classes=_rule(routing.device_classes),
            workload_classes=_rule(routing.workload_classes),
            allow_hosted=routing.allow_hosted,
            fallback_role_ids=tuple(routing.fallback_role_ids),
            strategy=m.Strategy.UNSPECIFIED if routing.strategy is None else m.Strategy[routing.strategy.upper()],
        ),
    )


def _rule(given: _Rule) -> m.Rule:
    return m.Rule(allowed=tuple(given.allowed), denied=tuple(given.denied))


def _request_policy(given: _RequestPolicy, at: str, root: yaml.Node | None, source: str) -> m.RequestPolicy:
    within = f"{at}.request_policy" if at else "request_policy"
    prompts = [
        m.SystemPrompt(action=action, text=text)
        for action in m.PromptAction
        if given.system_prompt is not None and (text := getattr(given.system_prompt, action.name.lower())) is not None
    ]
    if given.system_prompt is not None and len(prompts) != 1:
        raise _fault(root, source, f"{within}.system_prompt", "give one of prepend, append and replace")
    texts = {}
    for name, value in (("defaults", given.defaults), ("overrides", given.overrides)):
        try:
            texts[name] = json.dumps(value, ensure_ascii=False, allow_nan=False) if value else ""
        except (TypeError, ValueError, RecursionError) as error:
            raise _fault(root, source, f"{within}.{name}", f"can't be written as JSON: {error}") from error
    return m.RequestPolicy(
        defaults_json=texts["defaults"],
        overrides_json=texts["overrides"],
        system_prompt=prompts[0] if prompts else None,
        user_template=given.user_template,
    )


def _tree(text: str, source: str) -> tuple[Any, yaml.Node | None]:
    """What the text has in it, and where."""
    if len(text) > LONGEST:
        raise ConfigError(f"{source}: longer than {LONGEST} characters")
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        if root is None:
            return {}, None
        _check_nodes(root, source)
        loader = yaml.SafeLoader("")
        tree = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}{where}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError):
        raise ConfigError(f"{source}: not valid YAML: a value in it cannot be read") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}, line {root.start_mark.line + 1}: expected keys with values")
    return tree, root


def _check_nodes(root: yaml.Node, source: str) -> None:
    """ConfigError for keys that stand there twice, of which YAML would take the last, and for texts that grow."""
    ahead = [root]
    seen = 0
    while ahead:
        node = ahead.pop()
        seen += 1
        if seen > _MOST_NODES:
            raise ConfigError(f"{source}: too large, or its references go round in circles")
        if isinstance(node, yaml.SequenceNode):
            ahead += node.value
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                ahead.append(value)
                if isinstance(key, yaml.ScalarNode):
                    if key.value in keys:
                        line = key.start_mark.line + 1
                        raise ConfigError(f"{source}, line {line}: {key.value}: stands there twice")
                    keys.add(key.value)


def _convert(cls: type[S], tree: Any, root: yaml.Node | None, source: str) -> S:
    try:
        return config.checked(cls, tree, source)
    except ConfigError as error:
        raise _fault(root, source, error.key, str(error).removeprefix(f"{source}: ")) from error


def _fault(root: yaml.Node | None, source: str, key: str, why: str) -> ConfigError:
    line = None if root is None else _line(root, key)
    where = source if line is None else f"{source}, line {line}"
    text = why if not key or key in why else f"{key}: {why}"
    return ConfigError(f"{where}: {text}", key=key)


def _line(node: yaml.Node, key: str) -> int:
    """Of "roles[2].operation", or of what of it there is."""
    line = node.start_mark.line + 1
    for part in _parts(key):
        found = None
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = node.value[part]
            line = found.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                if name.value == part:
                    found = value
                    line = name.start_mark.line + 1
        if found is None:
            break
        node = found
    return line


def _parts(key: str) -> list[str | int]:
    # The name of an alias may have points in it.
    if key.startswith("aliases."):
        return ["aliases", key.removeprefix("aliases.")]
    parts: list[str | int] = []
    for piece in key.split("."):
        name, *numbers = piece.split("[")
        # What is JSON text in the contract is written out here.
        parts.append(name.removesuffix("_json"))
        parts += [int(number.rstrip("]")) for number in numbers if number.rstrip("]").isdigit()]
    return parts
