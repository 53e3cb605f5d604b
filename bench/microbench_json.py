"""What the JSON work of a gateway costs per request: python microbench_json.py (run under taskset on an idle core)"""

import json
import timeit

import msgspec
import orjson


def body(n):
    msgs, size = [{"role": "system", "content": "You are a careful assistant."}], 0
    while size < n:
        t = 'The quick brown fox — jumps over the "lazy" dog.\nIt does so again and again, and so on. ' * 4
        msgs.append({"role": "user" if len(msgs) % 2 else "assistant", "content": t})
        size += len(t)
    return orjson.dumps({"model": "qwen3-8b", "messages": msgs, "temperature": 0.2, "stream": True, "max_tokens": 512})


class Head(msgspec.Struct):
    model: str
    stream: bool = False


class Req(msgspec.Struct):  # every field of interest typed, messages kept raw
    model: str
    messages: msgspec.Raw = msgspec.Raw(b"")
    stream: bool = False


head, req = msgspec.json.Decoder(Head).decode, msgspec.json.Decoder(Req).decode
generic = msgspec.json.Decoder().decode
rawmap = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
enc = msgspec.json.Encoder().encode


def merge_orjson(b):
    d = orjson.loads(b)
    d["model"] = "upstream"
    d.setdefault("top_p", 0.9)
    return orjson.dumps(d)


def merge_raw(b):
    d = rawmap(b)
    d["model"] = msgspec.Raw(b'"upstream"')
    d.setdefault("top_p", msgspec.Raw(b"0.9"))
    return enc(d)


SSE = (
    b'data: {"id":"chatcmpl-9f2b7c1d4e6a48b0","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"mock-model","choices":[{"index":0,"delta":{"content":" hello"},"logprobs":null,'
    b'"finish_reason":null}]}\n\n'
)


def sse_usage_find(b):
    return b.find(b'"usage":{')


def sse_parse(b):
    return orjson.loads(b[6:-2])


def t(name, f, *a):
    n = 2000
    v = min(timeit.repeat(lambda: f(*a), number=n, repeat=7)) / n * 1e6
    print(f"  {name:52s} {v:8.2f} us")


for n in (400, 4000, 40000, 400000):
    b = body(n)
    print(f"body of {len(b)} bytes")
    t("json.loads", json.loads, b.decode()) if n < 100000 else None
    t("orjson.loads", orjson.loads, b)
    t("msgspec generic decode", generic, b)
    t("msgspec Struct {model, stream} only", head, b)
    t("msgspec Struct {model, stream, messages: Raw}", req, b)
    t("msgspec dict[str, Raw] (top level only)", rawmap, b)
    t("rewrite model + default: orjson loads/dumps", merge_orjson, b)
    t("rewrite model + default: msgspec Raw map", merge_raw, b)
print("one SSE event of", len(SSE), "bytes")
t("bytes.find('\"usage\":{')", sse_usage_find, SSE)
t("orjson.loads of the event", sse_parse, SSE)
