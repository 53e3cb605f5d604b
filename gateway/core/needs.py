"""What a request needs of whoever serves it, read from its body where its plan makes a difference of that.

Sizes are estimates: bytes of text, at so many to a token as is usual. An estimate that decides something is made with
care: what is no text, pictures above all, is left out, and where there is a doubt it errs low.
"""

import msgspec

from gateway.core.asking import BLOCK_BYTES, MOST_BLOCKS, Ask
from gateway.core.body import UNSAID, Head, Named
from gateway.core.plan import BYTES_PER_TOKEN, Plan
from geniehive.rules.operations import Ability, Operation

_decode = msgspec.json.Decoder().decode

# Of text with long words, and much white space, there are more to a token; hardly ever more than these.
MOST_BYTES_PER_TOKEN = 6

# From this size on a body is searched for what is no text.
_LARGE = 16 << 10

# What a model is given to read, for these operations; what others send has no context to fit into, or is no text.
_PROMPTS = {
    Operation.CHAT: "messages",
    Operation.COMPLETIONS: "prompt",
    Operation.EMBEDDINGS: "input",
    Operation.RESPONSES: "input",
    Operation.MESSAGES: "messages",
}
# Lists here are of prompts that are read each by itself.
_APART = frozenset({Operation.COMPLETIONS, Operation.EMBEDDINGS})
# By the "type" of a part.
_IMAGES = frozenset({"image_url", "input_image", "image"})
_UNREAD = _IMAGES | {
    "input_audio", "audio", "file", "input_file", "document",
    # Templates leave out what a model thought before.
    "thinking", "redacted_thinking", "reasoning",
}  # fmt: skip


class Needs(msgspec.Struct, frozen=True, gc=False):
    """tokens: that have to fit into a context at once, by the usual estimate; 0: not known to matter. ask: for the
    choice; None if nobody asks. tools, images: whether they are sent, as far as some candidate can't take them.
    """

    ask: Ask | None = None
    tokens: int = 0
    tools: bool = False
    images: bool = False

    @property
    def surely(self) -> int:
        """Tokens that there are at least."""
        return self.tokens * BYTES_PER_TOKEN // MOST_BYTES_PER_TOKEN


def read(plan: Plan, operation: Operation, named: Named, session: str = "") -> Needs:
    """To be called for bodies larger than `plan.carefree`. session: as a header names it; of use for a choice alone."""
    size = len(named.body)
    head = named.head
    if operation not in _PROMPTS or head is None:
        # What could not be read in the usual way is not judged, either.
        tokens = 0 if operation in (Operation.IMAGES, Operation.SPEECH) else size // BYTES_PER_TOKEN
        return Needs(Ask(plan.model, tokens, stream=named.stream) if plan.chooses else None)
    tokens = at_once = size // BYTES_PER_TOKEN
    images = Ability.VISION in plan.lacking and b"image" in named.body
    if images or tokens > plan.tightest or (size > _LARGE and b"base64" in named.body):
        read, largest, pictures = _measured(operation, head)
        tokens, at_once = read // BYTES_PER_TOKEN, largest // BYTES_PER_TOKEN
        images = pictures > 0
    if head.truncation is not UNSAID and bytes(head.truncation) == b'"auto"':
        at_once = 0
    tools = head.tools is not UNSAID and _is_some(head.tools)
    ask = None
    if plan.chooses:
        conversation = hash(session) if session else _conversation(operation, head)
        blocks = _blocks(operation, head) if conversation is None and size > 2 * BLOCK_BYTES else ()
        ask = Ask(plan.model, tokens, conversation, blocks, tools, images, _most_tokens(head), named.stream)
    return Needs(ask, at_once, tools, images)


def _is_some(tools: msgspec.Raw) -> bool:
    """Whether it is a list with something in it."""
    begins = bytes(memoryview(tools)[:64])
    return begins[:1] == b"[" and begins[1:].lstrip()[:1] != b"]"


def _most_tokens(head: Head) -> int | None:
    for raw in (head.max_completion_tokens, head.max_tokens, head.max_output_tokens):
        if raw is not UNSAID and (digits := bytes(raw)).isdigit() and len(digits) < 10:
            return int(digits)
    return None


def _conversation(operation: Operation, head: Head) -> int | None:
    if head.prompt_cache_key is not UNSAID and (said := _said(head.prompt_cache_key)):
        return said
    if operation is Operation.MESSAGES and head.metadata is not UNSAID:
        try:
            found = _decode(head.metadata)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = None
        whose = found.get("user_id") if isinstance(found, dict) else None
        return hash(whose) if isinstance(whose, str) and whose else None
    return _said(head.user) if head.user is not UNSAID else None


def _said(raw: msgspec.Raw) -> int | None:
    """The hash of a string that says something."""
    text = bytes(raw)
    return hash(text) if text[:1] == b'"' and len(text) > 2 else None


def _blocks(operation: Operation, head: Head) -> tuple[int, ...]:
    """Of what models are shown first: tools, the system's words, the messages as they came."""
    prompt = getattr(head, _PROMPTS[operation])
    text = bytes(memoryview(prompt)[: BLOCK_BYTES * MOST_BLOCKS])
    for before in (head.system, head.instructions):
        if before is not UNSAID:
            text = bytes(before) + text
    hashed = hash(bytes(head.tools)) if head.tools is not UNSAID else 0
    blocks = []
    for at in range(0, min(len(text), BLOCK_BYTES * MOST_BLOCKS) - BLOCK_BYTES + 1, BLOCK_BYTES):
        hashed = hash((hashed, text[at : at + BLOCK_BYTES]))
        blocks.append(hashed)
    return tuple(blocks)


def _measured(operation: Operation, head: Head) -> tuple[int, int, int]:
    """Bytes of text, those that have to be read at once, and how many images there are."""
    try:
        prompt = _value(getattr(head, _PROMPTS[operation]))
        around = [_value(raw) for raw in (head.system, head.instructions, head.tools)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0, 0, 0  # for the engine to refuse
    if operation in _APART and isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        sizes = [_text(one)[0] for one in prompt]
        return sum(sizes), max(sizes), 0
    size, images = _text(prompt)
    size += sum(_text(value)[0] for value in around)
    return size, size, images


def _value(raw: msgspec.Raw) -> object:
    return None if raw is UNSAID else _decode(raw)


def _text(value: object) -> tuple[int, int]:
    """Bytes of text in it, and images. A number may be a token."""
    size = images = 0
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            size += len(one) if one.isascii() else len(one.encode())
        elif isinstance(one, dict):
            kind = one.get("type")
            if isinstance(kind, str) and kind in _UNREAD:
                images += kind in _IMAGES
            else:
                left += one.values()
        elif isinstance(one, list):
            left += one
        elif isinstance(one, int):
            size += BYTES_PER_TOKEN
    return size, images
