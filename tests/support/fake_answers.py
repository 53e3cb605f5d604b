"""What a fake engine answers at each path of JSON, whole or as events, as the real ones word it.

`answer` is asked by path, with the decoded body, and knows no sockets. A request that has tools and no result of
one yet gets a call of a tool: of a shell, if one is among them, else of the first.
"""

import base64
import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.fake_runtimes import CREATED, Reply

# Names of tools that run a command, as agents have them.
SHELLS = ("Bash", "shell_command", "exec_command", "shell", "local_shell")
COMMAND = "echo geniehive-tool-ran"
# A picture of one pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@dataclass
class Stream:
    """An answer in pieces, of which each is written by itself."""

    pieces: Sequence[bytes]
    content_type: str = "text/event-stream"


@dataclass
class Question:
    """What is asked, and what the answer is made of. extras: what the runtime adds to answers."""

    path: str
    body: dict[str, Any]
    model: str
    words: list[str]
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def prompt_tokens(self) -> int:
        asked = next((v for k in ("messages", "prompt", "input") if (v := self.body.get(k))), "")
        return len(json.dumps(asked)) // 4 + 1

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))


def answer(question: Question) -> Reply | Stream:
    return _ANSWERS[question.path](question)


def data(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def named(event: dict[str, Any]) -> bytes:
    """An event that says its type twice, as Responses and Messages have it."""
    return f"event: {event['type']}\n".encode() + data(event)


def halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


# --- tools


@dataclass
class ToolCall:
    name: str
    arguments: dict[str, Any]
    namespace: str | None = None

    @property
    def json(self) -> str:
        return json.dumps(self.arguments)


def tool_call(tools: Any, done: bool) -> ToolCall | None:
    """The call that an answer makes: none without tools, or when a result of one is there."""
    found = list(_tools(tools)) if isinstance(tools, list) and not done else []
    if not found:
        return None
    call, schema = min(found, key=lambda one: SHELLS.index(one[0].name) if one[0].name in SHELLS else len(SHELLS))
    given = schema.get("properties") or {}
    wanted = schema.get("required") or [name for name in ("command", "cmd") if name in given]
    call.arguments = {name: _example(name, given.get(name) or {}) for name in wanted}
    return call


def _tools(tools: list[Any], namespace: str | None = None) -> Iterator[tuple[ToolCall, dict[str, Any]]]:
    for tool in tools:
        if tool.get("type") == "namespace":
            yield from _tools(tool.get("tools") or [], tool["name"])
            continue
        tool = tool.get("function") or tool  # chat has them one deeper
        if tool.get("type", "function") in ("function", "custom") and "name" in tool and "format" not in tool:
            schema = tool.get("parameters") or tool.get("input_schema") or {}
            yield ToolCall(tool["name"], {}, namespace), schema


def _example(name: str, schema: dict[str, Any]) -> Any:
    """A value that the schema takes."""
    if name in ("command", "cmd"):
        return COMMAND.split() if schema.get("type") == "array" else COMMAND
    if schema.get("enum"):
        return schema["enum"][0]
    kinds: dict[str, Any] = {"number": 1, "integer": 1, "boolean": False, "array": [], "object": {}, "null": None}
    kind = schema.get("type", "string")
    return kinds.get(kind[0] if isinstance(kind, list) else kind, "x")


def _has(items: Any, *types: str) -> bool:
    return isinstance(items, list) and any(isinstance(i, dict) and i.get("type") in types for i in items)


# --- chat and completions


def _chat(q: Question) -> Reply | Stream:
    chat = q.path == "/v1/chat/completions"
    asked = q.body.get("messages") or []
    call = tool_call(q.body.get("tools"), any(m.get("role") == "tool" for m in asked)) if chat else None
    tokens = len(q.words)
    usage = {"prompt_tokens": q.prompt_tokens, "completion_tokens": tokens, "total_tokens": q.prompt_tokens + tokens}
    base = {"id": "chatcmpl-fake" if chat else "cmpl-fake", "created": CREATED, "model": q.model}
    if q.streams:
        options = q.body.get("stream_options") or {}
        return _chat_stream(q, base, chat, usage if options.get("include_usage") else None, call)
    choice: dict[str, Any] = {"index": 0, "finish_reason": "tool_calls" if call else "stop"}
    if call:
        function = {"name": call.name, "arguments": call.json}
        made = {"id": "call_fake", "type": "function", "function": function}
        choice["message"] = {"role": "assistant", "content": None, "tool_calls": [made]}
    elif chat:
        choice["message"] = {"role": "assistant", "content": q.text}
    else:
        choice |= {"text": q.text, "logprobs": None}
    kind = "chat.completion" if chat else "text_completion"
    return Reply({**base, "object": kind, "choices": [choice], "usage": usage, **q.extras})


def _chat_stream(q: Question, base: dict[str, Any], chat: bool, usage: Any, call: ToolCall | None) -> Stream:
    base = {**base, "object": "chat.completion.chunk" if chat else "text_completion"}

    def event(content: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "finish_reason": finish, **({"delta": content} if chat else content)}
        return data({**base, "choices": [choice], **more})

    events = [event({"role": "assistant", "content": ""})] if chat else []
    if call:
        first, second = halves(call.json)
        head = {"index": 0, "id": "call_fake", "type": "function", "function": {"name": call.name, "arguments": ""}}
        events.append(event({"tool_calls": [head]}))
        events += [event({"tool_calls": [{"index": 0, "function": {"arguments": a}}]}) for a in (first, second)]
    else:
        events += [event({"content" if chat else "text": word}) for word in q.words]
    finish = "tool_calls" if call else "stop"
    events.append(event({} if chat else {"text": ""}, finish, **({} if usage else q.extras)))
    if usage:
        events.append(data({**base, "choices": [], "usage": usage, **q.extras}))
    return Stream([*events, b"data: [DONE]\n\n"])


# --- embeddings, rerank, moderations


def _inputs(given: Any) -> list[Any]:
    return given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]


def _embeddings(q: Question) -> Reply:
    entries = []
    inputs = _inputs(q.body.get("input", ""))
    for index, item in enumerate(inputs):
        digest = hashlib.sha256(json.dumps(item).encode()).digest()
        vector = [(byte - 128) / 128 for byte in digest[:8]]
        packed = base64.b64encode(struct.pack("<8f", *vector)).decode()
        embedding = packed if q.body.get("encoding_format") == "base64" else vector
        entries.append({"object": "embedding", "index": index, "embedding": embedding})
    usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
    return Reply({"object": "list", "model": q.model, "data": entries, "usage": usage})


def _rerank(q: Question) -> Reply:
    documents = q.body.get("documents") or []
    ranked = [
        {"index": n, "relevance_score": 1 / (n + 1), "document": {"text": d if isinstance(d, str) else d.get("text")}}
        for n, d in enumerate(documents)
    ]
    tokens = len(json.dumps(documents)) // 4
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Reply({"id": "rerank-fake", "model": q.model, "results": ranked[: q.body.get("top_n")], "usage": usage})


def _moderations(q: Question) -> Reply:
    one = {
        "flagged": False,
        "categories": {"harassment": False, "violence": False},
        "category_scores": {"harassment": 0.001, "violence": 0.002},
        "category_applied_input_types": {"harassment": ["text"], "violence": ["text"]},
    }
    return Reply({"id": "modr-fake", "model": q.model, "results": [one for _ in _inputs(q.body.get("input"))]})


# --- responses


def _responses(q: Question) -> Reply | Stream:
    call = tool_call(q.body.get("tools"), _has(q.body.get("input"), "function_call_output", "custom_tool_call_output"))
    tokens = len(q.words)
    usage = {
        "input_tokens": q.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": q.prompt_tokens + tokens,
    }
    base: dict[str, Any] = {
        "id": "resp_fake",
        "object": "response",
        "created_at": CREATED,
        "model": q.model,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
    }
    item: dict[str, Any]
    if call:
        item = {"id": "fc_fake", "type": "function_call", "call_id": "call_fake", "name": call.name}
        item |= {"arguments": call.json, "status": "completed"}
        item |= {"namespace": call.namespace} if call.namespace else {}
    else:
        content = [{"type": "output_text", "text": q.text, "annotations": []}]
        item = {"id": "msg_fake", "type": "message", "role": "assistant", "status": "completed", "content": content}
    whole = {**base, "status": "completed", "output": [item], "usage": usage}
    if not q.streams:
        return Reply(whole)
    begun = {**base, "status": "in_progress", "output": [], "usage": None}
    events = [{"type": "response.created", "response": begun}, {"type": "response.in_progress", "response": begun}]
    events += _item_events(item, q.words)
    events.append({"type": "response.completed", "response": whole})
    return Stream([named({**event, "sequence_number": n}) for n, event in enumerate(events)])


def _item_events(item: dict[str, Any], words: list[str]) -> Iterator[dict[str, Any]]:
    """One item of a response: how it is added, grows and is done."""
    at: dict[str, Any] = {"output_index": 0, "item_id": item["id"]}
    added: dict[str, Any] = {**item, "status": "in_progress"}
    added |= {"arguments": ""} if "arguments" in item else {"content": []}
    yield {"type": "response.output_item.added", "output_index": 0, "item": added}
    if "arguments" in item:
        for piece in halves(item["arguments"]):
            yield {"type": "response.function_call_arguments.delta", **at, "delta": piece}
        done = {"arguments": item["arguments"], "name": item["name"]}
        yield {"type": "response.function_call_arguments.done", **at, **done}
    else:
        at["content_index"] = 0
        part = item["content"][0]
        yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
        for word in words:
            yield {"type": "response.output_text.delta", **at, "delta": word, "logprobs": []}
        yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}
        yield {"type": "response.content_part.done", **at, "part": part}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}


# --- messages


def _messages(q: Question) -> Reply | Stream:
    asked = q.body.get("messages") or []
    call = tool_call(q.body.get("tools"), any(_has(m.get("content"), "tool_result") for m in asked))
    block: dict[str, Any] = {"type": "text", "text": q.text}
    if call:
        block = {"type": "tool_use", "id": "toolu_fake", "name": call.name, "input": call.arguments}
    reason = "tool_use" if call else "end_turn"
    whole: dict[str, Any] = {"id": "msg_fake", "type": "message", "role": "assistant", "model": q.model}
    whole |= {"content": [block], "stop_reason": reason, "stop_sequence": None}
    counts = {"input_tokens": q.prompt_tokens, "output_tokens": len(q.words)}
    if not q.streams:
        return Reply({**whole, "usage": counts})
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**counts, "output_tokens": 1}}
    if call:
        empty = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in halves(call.json)]
    else:
        empty = {**block, "text": ""}
        deltas = [{"type": "text_delta", "text": word} for word in q.words]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": counts},
        {"type": "message_stop"},
    ]
    return Stream([named(event) for event in events])


def _count_tokens(q: Question) -> Reply:
    return Reply({"input_tokens": q.prompt_tokens})


# --- images and speech


def images(q: Question) -> Reply | Stream:
    """Generations, edits and variations answer alike."""
    picture = base64.b64encode(PNG).decode()
    usage = {"input_tokens": 4, "output_tokens": 6, "total_tokens": 10}
    usage |= {"input_tokens_details": {"text_tokens": 4, "image_tokens": 0}}  # type: ignore[dict-item]
    if q.body.get("stream") in (True, "true"):
        kind = "image_generation" if q.path.endswith("generations") else "image_edit"
        common = {"b64_json": picture, "created_at": CREATED, "size": "1024x1024", "quality": "low"}
        common |= {"background": "opaque", "output_format": "png"}
        partial = {"type": f"{kind}.partial_image", **common, "partial_image_index": 0}
        return Stream([named(partial), named({"type": f"{kind}.completed", **common, "usage": usage})])
    entries = [{"b64_json": picture} for _ in range(int(q.body.get("n") or 1))]
    return Reply({"created": CREATED, "data": entries, "usage": usage})


_SOUNDS = {"wav": "audio/wav", "mp3": "audio/mpeg", "pcm": "audio/pcm", "opus": "audio/ogg"}


def sound(words: list[str]) -> list[bytes]:
    """A WAV file: its head, and a tenth of a second of silence for each word."""
    piece = bytes(4800)
    size = len(piece) * len(words)
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, 24000, 48000, 2, 16, b"data", size
    )
    return [head, *(piece for _ in words)]


def _speech(q: Question) -> Stream:
    pieces = sound(q.words)
    if q.body.get("stream_format") == "sse":
        deltas = [data({"type": "speech.audio.delta", "audio": base64.b64encode(p).decode()}) for p in pieces]
        usage = {"input_tokens": 4, "output_tokens": len(q.words), "total_tokens": 4 + len(q.words)}
        return Stream([*deltas, data({"type": "speech.audio.done", "usage": usage})])
    return Stream(pieces, _SOUNDS.get(q.body.get("response_format") or "wav", "application/octet-stream"))


_ANSWERS = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _chat,
    "/v1/embeddings": _embeddings,
    "/v1/rerank": _rerank,
    "/rerank": _rerank,
    "/v1/moderations": _moderations,
    "/v1/responses": _responses,
    "/v1/messages": _messages,
    "/v1/messages/count_tokens": _count_tokens,
    "/v1/images/generations": images,
    "/v1/audio/speech": _speech,
}
