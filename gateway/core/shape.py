"""Request policies: how a body is changed before an endpoint gets it.

What a body becomes is the deep merge, later ones winning, of the endpoint's defaults, the tier's defaults, the client's
body, the tier's overrides and the endpoint's overrides; then the system prompt and the user template, of which the
tier's win. Only what a policy speaks of is decoded: every other value keeps its bytes, so that integers stay integers.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from geniehive.rules import request_policy
from geniehive.rules.model import PromptAction, RequestPolicy, SystemPrompt
from geniehive.rules.operations import Operation
from geniehive.rules.request_policy import USER_INPUT

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

# A value of a policy: an object with its own values, or the bytes of anything else.
_Tree = Mapping[str, "_Node"]
_Node = _Tree | msgspec.Raw


class Unshapeable(Exception):
    """A body that a policy can't be applied to; the text is for the client. param: the field that is to blame."""

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def shaper(operation: Operation, tier: RequestPolicy | None, endpoint: Iterable[RequestPolicy]) -> "Shaper | None":
    """What changes bodies for this operation; None if nothing does. endpoint: its policies, a later one winning.

    ValueError for a policy that makes no sense.
    """
    own = [p for p in endpoint if not p.operations or operation in p.operations]
    ruling = [] if tier is None or (tier.operations and operation not in tier.operations) else [tier]
    defaults: _Tree = {}
    # One after another: an object over something else is another thing than an object over an object.
    overrides: list[_Tree] = []
    prompt: SystemPrompt | None = None
    template: str | None = None
    for policy in (*own, *ruling):
        request_policy.check(policy)
    for policy in (*own, *ruling):
        defaults = _merged(defaults, _tree(policy.defaults_json))
        prompt = policy.system_prompt or prompt
        template = policy.user_template if policy.user_template is not None else template
    for policy in (*ruling, *own):
        overrides += [tree] if (tree := _tree(policy.overrides_json)) else []
    if operation not in _SYSTEM:
        prompt = None
    if operation not in _TEMPLATES:
        template = None
    if not defaults and not overrides and prompt is None and template is None:
        return None
    return Shaper(operation, defaults, overrides, prompt, template)


class Shaper:
    """Made once per plan."""

    __slots__ = ("_defaults", "_overrides", "_prompt", "_set_prompt", "_set_template", "_template")

    def __init__(
        self,
        operation: Operation,
        defaults: _Tree,
        overrides: Iterable[_Tree],
        prompt: SystemPrompt | None,
        template: str | None,
    ) -> None:
        # With what is put in where the client says nothing.
        self._defaults = tuple((name, value, _raw(value)) for name, value in defaults.items())
        self._overrides = tuple(overrides)
        self._prompt = prompt
        self._template = template
        self._set_prompt = _SYSTEM.get(operation)
        self._set_template = _TEMPLATES.get(operation)

    def policy(self) -> dict[str, Any]:
        """What is in force, to be shown as JSON; what says nothing is left out."""
        shown: dict[str, Any] = {}
        if self._defaults:
            shown["defaults"] = {name: whole for name, _, whole in self._defaults}
        if self._overrides:
            merged: _Tree = {}
            for tree in self._overrides:
                merged = _merged(merged, tree)
            shown["overrides"] = {name: _raw(value) for name, value in merged.items()}
        if self._prompt is not None:
            shown["system_prompt"] = {"action": self._prompt.action.name.lower(), "text": self._prompt.text}
        if self._template is not None:
            shown["user_template"] = self._template
        return shown

    def apply(self, body: bytes, model: str) -> bytes:
        """The body with the policies in force and `model` in it. Unshapeable."""
        top = _object(body)
        top["model"] = msgspec.Raw(_encode(model))
        for name, value, whole in self._defaults:
            if name not in top:
                top[name] = whole
            else:
                _default(top, name, value)
        for tree in self._overrides:
            for name, value in tree.items():
                _override(top, name, value)
        if self._template is not None and self._set_template is not None:
            self._set_template(top, self._template)
        if self._prompt is not None and self._set_prompt is not None:
            self._set_prompt(top, self._prompt)
        return _encode(top)


# Merging.


def _object(body: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    # Half a surrogate pair, as programs that cut strings send it, is valid JSON which msgspec refuses.
    try:
        found = json.loads(bytes(body))
        if isinstance(found, dict):
            return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in found.items()}
    except (ValueError, RecursionError):
        pass
    raise Unshapeable("The request body can't be read as a JSON object, and this model's policy has to change it")


def _tree(text: str) -> _Tree:
    """Of a JSON object; "" counts as an empty one."""
    return {key: _node(value) for key, value in _decode(text.encode()).items()} if text else {}


def _node(value: msgspec.Raw) -> _Node:
    return _tree(bytes(value).decode()) if _is_object(value) else msgspec.Raw(bytes(value))


def _is_object(value: msgspec.Raw) -> bool:
    return bytes(value).lstrip()[:1] == b"{"


def _merged(under: _Tree, over: _Tree) -> _Tree:
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[name] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _raw(node: _Node) -> msgspec.Raw:
    return node if isinstance(node, msgspec.Raw) else msgspec.Raw(_encode({k: _raw(v) for k, v in node.items()}))


def _default(into: dict[str, msgspec.Raw], name: str, value: _Node) -> None:
    there = into.get(name)
    if there is None:
        into[name] = _raw(value)
    elif isinstance(value, Mapping) and _is_object(there):
        inner = _object(there)
        for key, below in value.items():
            _default(inner, key, below)
        into[name] = msgspec.Raw(_encode(inner))


def _override(into: dict[str, msgspec.Raw], name: str, value: _Node) -> None:
    there = into.get(name)
    if there is not None and isinstance(value, Mapping) and _is_object(there):
        inner = _object(there)
        for key, below in value.items():
            _override(inner, key, below)
        into[name] = msgspec.Raw(_encode(inner))
    else:
        into[name] = _raw(value)


# System prompts, in each protocol's own form.


def _joined(prompt: SystemPrompt, said: str) -> str:
    if not said or prompt.action is PromptAction.REPLACE:
        return prompt.text
    return f"{prompt.text}\n\n{said}" if prompt.action is PromptAction.PREPEND else f"{said}\n\n{prompt.text}"


def _chat_prompt(top: dict[str, msgspec.Raw], prompt: SystemPrompt) -> None:
    roles = _roles(top)
    system = [n for n, role in enumerate(roles) if role in _SYSTEM_ROLES]
    if not system:
        # Put in before the others, of which nothing else need be decoded.
        rest = bytes(top["messages"]).lstrip()[1:]
        first = _encode({"role": "system", "content": prompt.text})
        top["messages"] = msgspec.Raw(b"".join((b"[", first, b"," if roles else b"", rest)))
        return
    messages = _list(top, "messages")
    if prompt.action is PromptAction.REPLACE:
        messages = [message for n, message in enumerate(messages) if n not in system]
        messages.insert(0, msgspec.Raw(_encode({"role": "system", "content": prompt.text})))
    else:
        # The first is where models look; templates of many refuse a second one.
        at = system[0] if prompt.action is PromptAction.PREPEND else system[-1]
        head = _head(messages[at], "messages")
        messages[at] = _with_text(messages[at], head, lambda said: _joined(prompt, said), prompt)
    top["messages"] = msgspec.Raw(_encode(messages))


def _roles(top: Mapping[str, msgspec.Raw]) -> list[Any]:
    try:
        return [message.role for message in _decode_roles(top["messages"])]
    except KeyError:
        raise Unshapeable('"messages" is missing', "messages") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unshapeable('"messages" must be a list of messages', "messages") from None


def _with_text(
    message: msgspec.Raw, head: Mapping[str, Any], change: Callable[[str], str], prompt: SystemPrompt
) -> msgspec.Raw:
    fields = _object(message)
    content = head.get("content")
    if isinstance(content, list):
        block = {"type": "text", "text": prompt.text}
        content = [block, *content] if prompt.action is PromptAction.PREPEND else [*content, block]
        fields["content"] = msgspec.Raw(_encode(content))
    else:
        fields["content"] = msgspec.Raw(_encode(change(content if isinstance(content, str) else "")))
    return msgspec.Raw(_encode(fields))


def _messages_prompt(top: dict[str, msgspec.Raw], prompt: SystemPrompt) -> None:
    said = _decode_any(top["system"]) if "system" in top else None
    if isinstance(said, list) and prompt.action is not PromptAction.REPLACE:
        block = {"type": "text", "text": prompt.text}
        made: Any = [block, *said] if prompt.action is PromptAction.PREPEND else [*said, block]
    else:
        made = _joined(prompt, said if isinstance(said, str) else "")
    top["system"] = msgspec.Raw(_encode(made))


def _responses_prompt(top: dict[str, msgspec.Raw], prompt: SystemPrompt) -> None:
    said = _decode_any(top["instructions"]) if "instructions" in top else None
    top["instructions"] = msgspec.Raw(_encode(_joined(prompt, said if isinstance(said, str) else "")))


# User templates.


def _chat_template(top: dict[str, msgspec.Raw], template: str) -> None:
    messages = _list(top, "messages")
    if _fill(messages, template, "text", "messages"):
        top["messages"] = msgspec.Raw(_encode(messages))


def _responses_template(top: dict[str, msgspec.Raw], template: str) -> None:
    said = _decode_any(top["input"]) if "input" in top else None
    if isinstance(said, str):
        top["input"] = msgspec.Raw(_encode(template.replace(USER_INPUT, said)))
        return
    items = _list(top, "input")
    if _fill(items, template, "input_text", "input"):
        top["input"] = msgspec.Raw(_encode(items))


def _fill(messages: list[msgspec.Raw], template: str, kind: str, param: str) -> bool:
    """Puts the text of the last user message into the template. False if there is no such text."""
    for at in range(len(messages) - 1, -1, -1):
        head = _head(messages[at], param)
        if head.get("role") != "user":
            continue
        content = head.get("content")
        if isinstance(content, str):
            made: Any = template.replace(USER_INPUT, content)
        elif isinstance(content, list):
            texts = [n for n, part in enumerate(content) if isinstance(part, dict) and part.get("type") == kind]
            if not texts:
                return False
            made = list(content)
            said = content[texts[-1]].get("text")
            made[texts[-1]] = {**content[texts[-1]], "text": template.replace(USER_INPUT, said if said else "")}
        else:
            return False
        fields = _object(messages[at])
        fields["content"] = msgspec.Raw(_encode(made))
        messages[at] = msgspec.Raw(_encode(fields))
        return True
    return False


def _list(top: Mapping[str, msgspec.Raw], name: str) -> list[msgspec.Raw]:
    try:
        return _decode_list(top[name])
    except KeyError:
        raise Unshapeable(f'"{name}" is missing', name) from None
    except (msgspec.DecodeError, RecursionError):
        raise Unshapeable(f'"{name}" must be a list of messages', name) from None


class _Role(msgspec.Struct, gc=False):
    role: Any = None


_decode_roles = msgspec.json.Decoder(list[_Role]).decode


class _Head(msgspec.Struct, gc=False):
    role: Any = None
    content: Any = None


_decode_head = msgspec.json.Decoder(_Head).decode


def _head(message: msgspec.Raw, param: str) -> Mapping[str, Any]:
    try:
        head = _decode_head(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unshapeable(f'"{param}" has an item that is no message', param) from None
    return {"role": head.role, "content": head.content}


_SYSTEM_ROLES = ("system", "developer")
_SYSTEM: dict[Operation, Callable[[dict[str, msgspec.Raw], SystemPrompt], None]] = {
    Operation.CHAT: _chat_prompt,
    Operation.MESSAGES: _messages_prompt,
    Operation.RESPONSES: _responses_prompt,
}
_TEMPLATES: dict[Operation, Callable[[dict[str, msgspec.Raw], str], None]] = {
    Operation.CHAT: _chat_template,
    Operation.MESSAGES: _chat_template,
    Operation.RESPONSES: _responses_template,
}
